"""Matrix products: operands into panels, then a micro-kernel in the stated order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asterope.host.chunks import chunks_of
from asterope.host.few_rows import few_rows_of
from asterope.host.in_place import read_in_place
from asterope.host.int_product import emit_int_product, fits_pairs, pair_bytes
from asterope.host.layout import is_row_major
from asterope.host.loops import reads, reads_elsewhere
from asterope.host.microkernel import Product, emit_fma_product, panel_bytes
from asterope.host.sharing import sharing
from asterope.host.tile_choice import Sum, is_matrix_to_come, is_zero, panels_of
from asterope.host.tile_pack import Notes, Smallest, as_pairs, pair_place
from asterope.host.tile_product import PAIRS, emit_tile_product, pack_bytes
from asterope.host.values import MAX_LANES, At, Buffer, Lazy, Memory, to_bf16
from asterope.ir import Op, Type, Value
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["dot", "each_matrix", "multiply", "start_of_sum"]


def dot(low: Lowering, op: Op) -> None:
    """Translate acc + a b."""
    a, b, acc = op.operands
    few = few_rows_of(low, op)
    if few is not None and (live := few.depth(low)) is not None:
        with low.temporaries() as temporary:
            left = read_in_place(low, a, temporary) or low.materialise(a)
            target = start_of_sum(low, op, acc, {left.memory, *reads(low, b)})
            with low.fn.if_else(few.fits(low, left, live)) as otherwise:
                few.multiply(low, left, live, target, temporary, from_zero=is_zero(low, acc))
                otherwise()
                with low.inner():
                    multiply(low, op, left, low.materialise(b), target)
        low.env[op.result] = target
        return
    with low.temporaries() as temporary, panels_of(low, op):
        if op in low.sums:
            left, right = (_codes(low, op, v, temporary) for v in (a, b))
        else:
            left, right = (read_in_place(low, v, temporary) or low.materialise(v) for v in (a, b))
        target = start_of_sum(low, op, acc, {left.memory, right.memory})
        with each_matrix(low, [left, right, target]) as (rows, columns, total):
            multiply(low, op, rows, columns, total)
    low.env[op.result] = target


def start_of_sum(low: Lowering, op: Op, acc: Value, busy: set[Memory]) -> Buffer:
    """Return the buffer that a product is added to; nothing is in it yet where that is zero."""
    if is_zero(low, acc):
        return low.new_buffer(op.result.type)
    return accumulator(low, op, acc, busy)


@contextmanager
def each_matrix(low: Lowering, buffers: Sequence[Buffer]) -> Iterator[list[Buffer]]:
    """Loop over the matrices of batches; matrices themselves are one each."""
    if len(buffers[0].type.shape) == 2:
        yield list(buffers)
        return
    with low.loops(buffers[0].type.shape[:1]) as index, low.scope():
        yield [_matrix(buffer, index[0] * buffer.strides[0]) for buffer in buffers]


def _matrix(batch: Buffer, skip: Val) -> Buffer:
    """Look at one matrix of a batch, so many elements in."""
    pointer = batch.pointer.offset(skip * batch.element_bytes)
    type_ = batch.type.with_shape(batch.type.shape[1:])
    return Buffer(batch.memory, pointer, type_, batch.strides[1:], batch.compact)


def _codes(low: Lowering, op: Op, value: Value, temporary: Callable[..., Buffer]) -> Buffer:
    """Return an operand as codes of bf16, in its panel where nothing else needs it."""
    if is_matrix_to_come(low, value):
        low.shared.discard(value)
        if value is op.operands[1]:
            return _pairs(low, value, low.sums[op])
        if low.sums[op].most > 1 or not (found := read_in_place(low, value, temporary)):
            found = low.sums[op].rows(value.type)
            low.fill(found, value)
        return found
    if value in low.compact:
        found = read_in_place(low, value, temporary) or low.materialise(value)
        if found.compact:  # some ops, a reshape or a scan, make buffers of their own
            return found
    copy = temporary(value.type, compact=True)
    low.fill(copy, value)
    return copy


def _pairs(low: Lowering, value: Value, sums: Sum) -> Buffer:
    """Return a right operand as pairs of rows, where they are not there from a program before."""
    fn, kept = low.fn, sums.kept
    pairs = sums.pairs(sums.op.result.type.shape[0], value.type)
    if not kept:
        _fill_pairs(low, value, pairs, sums.exponent)
        return pairs
    with fn.if_(~fn.load(kept.is_hit, "i1")), low.inner():
        _fill_pairs(low, value, pairs, sums.exponent)
    fn.store(fn.load(kept.round, "i64") + 1, kept.round)
    return pairs


def _fill_pairs(low: Lowering, value: Value, pairs: Buffer, exponent: Val) -> None:
    """Compute a right operand two rows at a time into pairs, and store its smallest exponent."""
    seen = Notes(low.fn, "umin")
    shape, lanes = value.type.shape, MAX_LANES
    plan = chunks_of(low, shape, [value], lane=1, lanes=lanes)
    with sharing(low, [value], shape, 1), low.fn.loop(0, shape[0], 2) as k:
        below = k + 1
        for at in plan.each((k,), beside=(below,)):
            rows = at, At((below, at.index[1]), 1, lanes)
            even, odd = (to_bf16(low.evaluate(value, row).vector(lanes)) for row in rows)
            place = pair_place(pairs.pointer, k, at.index[1], shape[0])
            both = as_pairs(even, odd)
            seen.add_pairs(both)
            low.fn.store(both, place)
    low.fn.store(seen.smallest_exponent(), exponent)


def multiply(low: Lowering, op: Op, left: Buffer, right: Buffer, target: Buffer) -> None:
    """Add the product of two matrices to a third, which is row-major, or start it from zero."""
    product = Product(
        m=left.type.shape[0], n=right.type.shape[1], k=left.type.shape[1],
        order=str(op.attrs.get("order", "pairs")),
        a_kind=left.kind, b_kind=right.kind if right.strides else PAIRS, total=target.kind,
        a_strides=(left.strides[0], left.strides[1]),
        b_strides=(right.strides[0], right.strides[1]) if right.strides else (0, 0),
        from_zero=is_zero(low, op.operands[2]),
    )  # fmt: skip
    isa, module = low.fn.isa, low.fn.module
    operands = [left.pointer, right.pointer, target.pointer]
    sums = low.sums.get(op)
    state: tuple[Val, ...] = ()
    if sums:
        name = emit_tile_product(module, product, sums.most)
        num_bytes = pack_bytes(product, isa)
        of_left = low.exponents.get(left)
        if of_left is None:
            of_left = low.fn.slot("i32")
            low.fn.store(low.fn.const("i32", -1), of_left)
        state = (sums.panels.pointer, sums.count, sums.known, of_left, sums.exponent)
        if len(op.result.type.shape) > 2:
            # What is known of one matrix of a batch is not of the next.
            low.fn.store(low.fn.const("i8", 0), sums.known)
    elif fits_pairs(product, isa):
        name, num_bytes = emit_int_product(module, product), pair_bytes(product)
    else:
        name, num_bytes = emit_fma_product(module, product), panel_bytes(product, isa)
    with low.temporaries() as temporary:
        packed = temporary(Type("i8", (max(1, num_bytes),)))
        low.fn.call(name, (*operands, packed.pointer, *state))


def accumulator(low: Lowering, op: Op, acc: Value, busy: set[Memory]) -> Buffer:
    """Return a row-major buffer that holds the accumulator and may be overwritten."""
    state = low.env[acc]
    target = None
    if isinstance(state, Buffer):
        if is_row_major(state) and low.is_free(state.memory) and state.memory not in busy:
            return state
    elif isinstance(state, Lazy):
        target = _reusable(low, acc, busy)
    target = target or low.new_buffer(op.result.type)
    sums, shape = low.sums.get(op), op.result.type.shape
    if sums is None or len(shape) > 2:
        low.fill(target, acc)
        return target
    seen = Smallest(low.fn)
    low.fill(target, acc, seen.add)
    low.fn.store(seen.is_coarse().zext("i8"), sums.known)
    return target


def _reusable(low: Lowering, acc: Value, busy: set[Memory]) -> Buffer | None:
    """Find a buffer that computing `acc` reads element by element and nobody reads again."""
    for value, state in low.env.items():
        if (
            isinstance(state, Buffer)
            and state.type == acc.type
            and is_row_major(state)
            and state.memory in reads(low, acc)
            and state.memory not in busy
            and low.is_free(state.memory)
            and not reads_elsewhere(low, acc, state.memory)
            and value is not acc
        ):
            return state
    return None

"""Reductions, in the order the IR states: 16 partials in ascending order, then halving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.errors import UnsupportedError
from asterope.host.arithmetic import combine
from asterope.host.evaluate import lane_preference
from asterope.host.values import At, Buffer
from asterope.ir import REDUCE_PARTIALS, Op, Type
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["popcount", "reduce"]


def reduce(low: Lowering, op: Op) -> None:
    """Translate a reduction along one axis."""
    source = op.operands[0]
    axis, shape = op.attrs["axis"], source.type.shape
    size = shape[axis]
    if size & (size - 1):
        raise UnsupportedError(
            f"a reduction over {size} elements is not supported yet",
            where=op.loc,
            hint="use a block size that is a power of two",
        )
    rest = tuple(n for d, n in enumerate(shape) if d != axis)
    if not rest:
        with low.scope():
            low.env[op.result] = _along_lanes(low, op, ())
        return
    result = low.new_buffer(op.result.type)
    preferred = lane_preference(low, source)
    along = axis == (preferred if preferred >= 0 else len(shape) - 1)
    if along:
        _rows(low, op, rest, result)
    else:
        with low.nest(rest) as at:
            low.fn.store(_across_lanes(low, op, at), result.address(at.index))
    low.env[op.result] = result


def _rows(low: Lowering, op: Op, rest: tuple[int, ...], result: Buffer) -> None:
    """Reduce each row with its elements along the lanes."""
    with low.loops(rest) as index, low.scope():
        low.fn.store(_along_lanes(low, op, index), result.address(index))


def _combine(op: Op, a: Val, b: Val) -> Val:
    return combine(str(op.attrs["combine"]), Type(op.result.type.elem), a, b)


def _along_lanes(low: Lowering, op: Op, index: tuple[Val, ...]) -> Val:
    fn, source = low.fn, op.operands[0]
    axis, size = op.attrs["axis"], source.type.shape[op.attrs["axis"]]
    lanes = min(REDUCE_PARTIALS, size)

    def chunk(start: Val) -> Val:
        at = At((*index[:axis], start, *index[axis:]), axis, lanes)
        return low.evaluate(source, at).vector(lanes)

    first = chunk(fn.const("i64", 0))
    if size > lanes:
        slot = fn.slot(first.kind, lanes)
        fn.store(first, slot)
        with fn.loop(lanes, size, lanes) as start, low.scope():
            fn.store(_combine(op, fn.load(slot, first.kind, lanes), chunk(start)), slot)
        first = fn.load(slot, first.kind, lanes)
    while lanes > 1:
        lanes //= 2
        low_half, high_half = (first.shuffle(range(s, s + lanes)) for s in (0, lanes))
        first = _combine(op, low_half, high_half)
    return first.lane(0)


def _across_lanes(low: Lowering, op: Op, at: At) -> Val:
    """Reduce with another dimension along the lanes: each partial is a vector."""
    fn, source = low.fn, op.operands[0]
    axis, size = op.attrs["axis"], source.type.shape[op.attrs["axis"]]
    count = min(REDUCE_PARTIALS, size)
    lane = at.lane + (at.lane >= axis)

    def element(k: Val) -> Val:
        where = At((*at.index[:axis], k, *at.index[axis:]), lane, at.lanes)
        return low.evaluate(source, where).vector(at.lanes)

    partials = [element(fn.const("i64", i)) for i in range(count)]
    kind = partials[0].kind
    if size > count:
        slots = [fn.slot(kind, at.lanes) for _ in partials]
        for partial, slot in zip(partials, slots, strict=True):
            fn.store(partial, slot)
        with fn.loop(count, size, count) as start, low.scope():
            for i, slot in enumerate(slots):
                fn.store(_combine(op, fn.load(slot, kind, at.lanes), element(start + i)), slot)
        partials = [fn.load(slot, kind, at.lanes) for slot in slots]
    while len(partials) > 1:
        half = len(partials) // 2
        partials = [_combine(op, partials[i], partials[i + half]) for i in range(half)]
    return partials[0]


def popcount(low: Lowering, op: Op) -> None:
    """Count the set elements of a mask."""
    fn, source = low.fn, op.operands[0]
    state = low.env[source]
    if isinstance(state, Val):
        low.env[op.result] = state.zext("i32")
        return
    total = fn.slot("i32")
    fn.store(fn.const("i32", 0), total)
    with low.nest(source.type.shape) as at:
        on = low.evaluate(source, at).vector(at.lanes)
        count = fn.call(f"llvm.vector.reduce.add.v{at.lanes}i32", (on.zext("i32"),), "i32")
        fn.store(fn.load(total, "i32") + count, total)
    low.env[op.result] = fn.load(total, "i32")

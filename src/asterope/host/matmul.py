"""Matrix products: operands into float32 panels, then a micro-kernel in the stated order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asterope.host.int_product import emit_int_product, fits_pairs, pair_bytes
from asterope.host.layout import is_row_major, transpose_into
from asterope.host.loops import reads, reads_elsewhere
from asterope.host.microkernel import Product, emit_fma_product, panel_bytes
from asterope.host.tile_product import emit_tile_product, fits_tiles, pack_bytes
from asterope.host.values import Buffer, Lazy, Memory
from asterope.ir import Op, Type, Value
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["accumulator", "dot", "each_matrix", "multiply"]


def dot(low: Lowering, op: Op) -> None:
    """Translate acc + a b."""
    a, b, acc = op.operands
    left, right = low.materialise(a), low.materialise(b)
    target = accumulator(low, op, acc, {left.memory, right.memory})
    with each_matrix(low, [left, right, target]) as (rows, columns, total):
        multiply(low, op, rows, columns, total)
    low.env[op.result] = target


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
    return Buffer(
        batch.memory, pointer, batch.type.with_shape(batch.type.shape[1:]), batch.strides[1:]
    )


# Formats whose values are exact in bf16, and so are most of their products with a scale.
_BF16_EXACT = ("bf16", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m3", "e3m2", "e2m1")


def _suits_bf16(op: Op) -> bool:
    formats = [
        str(op.attrs.get(f"{side}_format", v.type.elem))
        for side, v in zip(("a", "b"), op.operands, strict=False)
    ]
    return all(f in _BF16_EXACT for f in formats)


def multiply(low: Lowering, op: Op, left: Buffer, right: Buffer, target: Buffer) -> None:
    """Add the product of two matrices to a third, which is row-major."""
    in_f32 = {left.kind, right.kind, target.kind} == {"f32"}
    product = Product(
        m=left.type.shape[0], n=right.type.shape[1], k=left.type.shape[1],
        order=str(op.attrs.get("order", "pairs")),
        a_kind=left.kind, b_kind=right.kind, total=target.kind,
        a_strides=(left.strides[0], left.strides[1]),
        b_strides=(right.strides[0], right.strides[1]),
    )  # fmt: skip
    isa, module = low.fn.isa, low.fn.module
    tiled = isa.has_tiles and product.order == "pairs" and in_f32 and fits_tiles(product)
    with low.temporaries() as temporary:
        if tiled and _suits_bf16(op):
            if right.strides[1] != 1:
                turned = temporary(right.type)
                transpose_into(low, right, turned)
                right = turned
                product = dataclasses.replace(product, b_strides=(turned.strides[0], 1))
            name, num_bytes = emit_tile_product(module, product), pack_bytes(product, isa)
        elif fits_pairs(product, isa):
            name, num_bytes = emit_int_product(module, product), pair_bytes(product)
        else:
            name, num_bytes = emit_fma_product(module, product), panel_bytes(product, isa)
        packed = temporary(Type("i8", (max(1, num_bytes),)))
        operands = (left.pointer, right.pointer, target.pointer, packed.pointer)
        low.fn.call(name, operands)


def accumulator(low: Lowering, op: Op, acc: Value, busy: set[Memory]) -> Buffer:
    """Return a row-major buffer that holds the accumulator and may be overwritten."""
    state = low.env[acc]
    if isinstance(state, Buffer):
        if is_row_major(state) and low.is_free(state.memory) and state.memory not in busy:
            return state
    elif isinstance(state, Lazy):
        reused = _reusable(low, acc, busy)
        if reused is not None:
            low.fill(reused, acc)
            return reused
    target = low.new_buffer(op.result.type)
    low.fill(target, acc)
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

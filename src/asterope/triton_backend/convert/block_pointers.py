"""Block pointers: blocks of an array at coordinates that move with the pointer."""

from __future__ import annotations

import math

from asterope.ir import Builder, Type, Value
from asterope.triton_backend.convert.block_access import (
    ArrayView,
    Tile,
    find_tile,
    is_const,
    load_from,
    size_of,
    store_to,
    wishes,
)
from asterope.triton_backend.convert.bundles import pointed_block
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES", "load_block", "store_block"]

_PADS_WITH_NAN = 2


def _make(cv: Converter, op: MlirOp, b: Builder) -> None:
    base, *numbers = cv.values(op.operands)
    rank = len(numbers) // 3
    shape = [size_of(n, b) for n in numbers[:rank]]
    cv.name(op, [base, *shape, *numbers[rank:]])


def _advance(cv: Converter, op: MlirOp, b: Builder) -> None:
    pointer, *steps = op.operands
    parts = cv.values([pointer])
    starts = parts[-len(steps) :]
    moved = [
        start if is_const(step, 0) else b.value("add", (start, step), start.type)
        for start, step in zip(starts, cv.values(steps), strict=True)
    ]
    cv.name(op, [*parts[: -len(steps)], *moved])


def _tile(cv: Converter, op: MlirOp, block: Type, b: Builder) -> Tile:
    base, *parts = cv.values(op.operands[:1])
    rank = len(block.shape)
    shape, strides, starts = parts[:rank], parts[rank : 2 * rank], parts[2 * rank :]
    view = ArrayView(base=base, shape=shape, strides=strides, block=block)
    return find_tile(view, starts, b, op.attrs.get("boundaryCheck") or ())


def load_block(cv: Converter, op: MlirOp, b: Builder) -> bool:
    """Convert a load through a block pointer; False if the pointer is none."""
    block = pointed_block(op.operands[0].type, op)
    if block is None:
        return False
    padding: Value | None = None
    if op.attrs.get("padding") == _PADS_WITH_NAN and block.is_float:
        padding = b.const(Type(block.elem), math.nan)
    cv.name(op, [load_from(_tile(cv, op, block, b), block, padding, b, wishes(op))])
    return True


def store_block(cv: Converter, op: MlirOp, b: Builder) -> bool:
    """Convert a store through a block pointer; False if the pointer is none."""
    block = pointed_block(op.operands[0].type, op)
    if block is None:
        return False
    store_to(_tile(cv, op, block, b), cv.env[op.operands[1]], b)
    return True


RULES: dict[str, Rule] = {"tt.make_tensor_ptr": _make, "tt.advance": _advance}

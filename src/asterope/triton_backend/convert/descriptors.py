"""Tensor descriptors: blocks of an array at given coordinates, cut off at its edges."""

from __future__ import annotations

import math

from asterope.ir import Builder, Type, Value
from asterope.triton_backend.convert.block_access import (
    ArrayView,
    combine_with,
    find_tile,
    load_from,
    size_of,
    store_to,
    wishes,
)
from asterope.triton_backend.convert.bundles import descriptor_block
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.types import convert_type
from asterope.triton_backend.ttir import MlirOp, MlirValue

__all__ = ["RULES"]

_PADS_WITH_NAN = 2
_REDUCTIONS = {1: "add", 2: "min", 3: "max", 6: "and", 7: "or", 8: "xor"}  # Triton's enum


def _read(cv: Converter, descriptor: MlirValue, op: MlirOp) -> tuple[ArrayView, Value | None]:
    """Return what a descriptor describes, and what lies outside of it if that is not zero."""
    block = descriptor_block(descriptor.type, op)
    assert block is not None
    rank = len(block.shape)
    base, *parts = cv.values([descriptor])
    shape, strides, padding = parts[:rank], parts[rank : 2 * rank - 1], parts[2 * rank - 1 :]
    view = ArrayView(base=base, shape=shape, strides=strides, block=block)
    return view, padding[0] if padding else None


def _make(cv: Converter, op: MlirOp, b: Builder) -> None:
    block = descriptor_block(op.results[0].type, op)
    assert block is not None
    base, *numbers = cv.values(op.operands)
    rank = len(block.shape)
    shape = [size_of(n, b) for n in numbers[:rank]]
    padding = []
    if block.is_float:
        outside = math.nan if op.attrs.get("padding") == _PADS_WITH_NAN else 0.0
        padding.append(b.const(Type(block.elem), outside))
    cv.name(op, [base, *shape, *numbers[rank : 2 * rank - 1], *padding])


def _load(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Load a block, or rows for which `descriptor_gather` gives a vector of coordinates."""
    view, padding = _read(cv, op.operands[0], op)
    tile = find_tile(view, cv.values(op.operands[1:]), b)
    cv.name(op, [load_from(tile, convert_type(op.results[0].type, op), padding, b, wishes(op))])


def _store(cv: Converter, op: MlirOp, b: Builder) -> None:
    view, _ = _read(cv, op.operands[0], op)
    value, *coordinates = _stored(cv, op)
    store_to(find_tile(view, coordinates, b), value, b)


def _reduce(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Combine a block with memory; each element is one step, and none waits for others."""
    view, _ = _read(cv, op.operands[0], op)
    value, *coordinates = cv.values(op.operands[1:])
    name = _REDUCTIONS[op.attrs["kind"]]
    if value.type.is_float:
        name = {"add": "fadd", "min": "fmin", "max": "fmax"}[name]
    elif name in ("min", "max"):
        name += "u" if "xui" in op.operands[0].type else "s"
    combine_with(find_tile(view, coordinates, b), value, name, b)


def _stored(cv: Converter, op: MlirOp) -> list[Value]:
    """Return the value and the coordinates: a scatter names the value last."""
    values = cv.values(op.operands[1:])
    return [values[-1], *values[:-1]] if op.name == "tt.descriptor_scatter" else values


RULES: dict[str, Rule] = {
    "tt.make_tensor_descriptor": _make,
    "tt.descriptor_load": _load,
    "tt.descriptor_gather": _load,
    "tt.descriptor_store": _store,
    "tt.descriptor_scatter": _store,
    "tt.descriptor_reduce": _reduce,
}

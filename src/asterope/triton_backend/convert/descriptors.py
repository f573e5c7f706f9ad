"""Tensor descriptors: blocks of a strided array in memory, cut off at its edges.

A descriptor is carried as its parts (`types.convert_types`), and its loads and stores are tiles
from the start: they are what a DMA engine executes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asterope.ir import Builder, Type, Value
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.types import convert_type, descriptor_block
from asterope.triton_backend.ttir import MlirOp, MlirValue

__all__ = ["RULES"]

_I32, _I64 = Type("i32"), Type("i64")
_PADS_WITH_NAN = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class _Descriptor:
    base: Value
    shape: Sequence[Value]
    strides: Sequence[Value]
    padding: Value | None
    block: Type


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tile:
    """Where a block lies, as operands of `load_tile` and `store_tile`: a mask every dimension."""

    base: Value
    offsets: Sequence[Value]
    masks: Sequence[Value]

    @property
    def operands(self) -> list[Value]:
        return [self.base, *self.offsets, *self.masks]

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(range(len(self.masks)))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(offset.type.shape[0] for offset in self.offsets)


def _read(cv: Converter, descriptor: MlirValue, op: MlirOp) -> _Descriptor:
    block = descriptor_block(descriptor.type, op)
    assert block is not None
    rank = len(block.shape)
    base, *parts = cv.values([descriptor])
    shape, strides, padding = parts[:rank], parts[rank : 2 * rank - 1], parts[2 * rank - 1 :]
    # Loads give zero outside of an array unless told otherwise.
    padding = [value for value in padding if not _is_zero(value)]
    return _Descriptor(
        base=base,
        shape=shape,
        strides=strides,
        padding=padding[0] if padding else None,
        block=block,
    )


def _is_zero(value: Value) -> bool:
    return value.op is not None and value.op.name == "const" and value.op.attrs["value"] == 0


def _wide(value: Value, b: Builder) -> Value:
    wide = value.type.with_elem("i64")
    return value if value.type == wide else b.value("convert", (value,), wide, how="sext")


def _moved(steps: Value, start: Value, b: Builder) -> Value:
    if _is_zero(start):
        return steps
    return b.value("add", (steps, b.value("broadcast", (start,), steps.type)), steps.type)


def _inside(coordinates: Value, size: Value, b: Builder) -> Value:
    """Return which coordinates lie in 0..size; read without sign, negative ones are too large."""
    limit = b.value("broadcast", (size,), coordinates.type)
    return b.value("cmp", (coordinates, limit), coordinates.type.with_elem("i1"), pred="ult")


def _times_stride(value: Value, stride: Value | None, b: Builder) -> Value:
    if stride is None:
        return value
    wide = _wide(value, b)
    factor = b.value("broadcast", (stride,), wide.type) if wide.type.shape else stride
    return b.value("mul", (wide, factor), wide.type)


def _tile(at: _Descriptor, coordinates: Sequence[Value], b: Builder) -> _Tile:
    """Find the block at the given coordinates; a vector of them picks rows one by one."""
    base, offsets, masks = at.base, [], []
    for d, start in enumerate(coordinates):
        stride = at.strides[d] if d < len(at.strides) else None
        if start.type.shape:
            offsets.append(_times_stride(start, stride, b))
            masks.append(_inside(start, at.shape[d], b))
            continue
        steps = b.value("iota", (), Type("i32", (at.block.shape[d],)), start=0)
        offsets.append(_times_stride(steps, stride, b))
        masks.append(_inside(_moved(steps, start, b), at.shape[d], b))
        if not _is_zero(start):
            base = b.value("addptr", (base, _times_stride(start, stride, b)), base.type)
    return _Tile(base=base, offsets=offsets, masks=masks)


def _shaped(value: Value, shape: tuple[int, ...], b: Builder) -> Value:
    """Add or drop dimensions of size 1."""
    type_ = value.type.with_shape(shape)
    return value if value.type == type_ else b.value("reshape", (value,), type_)


def _make(cv: Converter, op: MlirOp, b: Builder) -> None:
    block = descriptor_block(op.results[0].type, op)
    assert block is not None
    base, *numbers = cv.values(op.operands)
    rank = len(block.shape)
    zero = b.const(_I32, 0)
    # A size below zero means the same as none.
    shape = [b.value("maxs", (n, zero), _I32) for n in numbers[:rank]]
    padding = []
    if block.is_float:
        outside = math.nan if op.attrs.get("padding") == _PADS_WITH_NAN else 0.0
        padding.append(b.const(Type(block.elem), outside))
    cv.name(op, [base, *shape, *numbers[rank : 2 * rank - 1], *padding])


def _load(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Load a block, or rows for which `descriptor_gather` gives a vector of coordinates."""
    source = _read(cv, op.operands[0], op)
    tile = _tile(source, cv.values(op.operands[1:]), b)
    other = {"other": True} if source.padding else {}
    operands = [*tile.operands, source.padding] if source.padding else tile.operands
    type_ = Type(source.block.elem, tile.shape)
    value = b.value("load_tile", operands, type_, mask_dims=tile.dims, **other)
    cv.name(op, [_shaped(value, convert_type(op.results[0].type, op).shape, b)])


def _store(cv: Converter, op: MlirOp, b: Builder) -> None:
    target = _read(cv, op.operands[0], op)
    value, *coordinates = _stored(cv, op)
    tile = _tile(target, coordinates, b)
    operands = [_shaped(value, tile.shape, b), *tile.operands]
    b.op("store_tile", operands, (), {"mask_dims": tile.dims})


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
}

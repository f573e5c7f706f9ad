"""Where a block of an array lies: a base, offsets and masks, as `load_tile` takes them.

Tensor descriptors and block pointers become tiles right here: they are what a DMA engine executes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from asterope.ir import Builder, Type, Value
from asterope.triton_backend.ttir import MlirOp

__all__ = [
    "ArrayView",
    "Tile",
    "combine_with",
    "find_tile",
    "is_const",
    "load_from",
    "size_of",
    "store_to",
    "wishes",
]

_I32 = Type("i32")
_LARGEST = (1 << 31) - 1
_EVICT_LAST = 3  # of Triton's enum


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayView:
    """An array in memory and the shape of the blocks it is read and written in.

    The last stride may be left out: it is 1 then.
    """

    base: Value
    shape: Sequence[Value]
    strides: Sequence[Value]
    block: Type


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """The operands of a tile's load or store."""

    base: Value
    offsets: Sequence[Value]
    masks: Sequence[Value]
    mask_dims: tuple[int, ...]

    @property
    def operands(self) -> list[Value]:
        """Base, offsets and masks in the order of `load_tile`."""
        return [self.base, *self.offsets, *self.masks]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the block."""
        return tuple(offset.type.shape[0] for offset in self.offsets)


def is_const(value: Value, number: int) -> bool:
    """Whether a value is the constant `number`."""
    return value.op is not None and value.op.name == "const" and value.op.attrs["value"] == number


def size_of(value: Value, b: Builder) -> Value:
    """Return a dimension's size as i32: below zero it means none, above no coordinate gets."""
    source = value.op
    if source is not None and source.name == "convert" and source.operands[0].type == _I32:
        value = source.operands[0]
    value = b.value("maxs", (value, b.const(value.type, 0)), value.type)
    if value.type == _I32:
        return value
    value = b.value("mins", (value, b.const(value.type, _LARGEST)), value.type)
    return b.value("convert", (value,), _I32, how="trunc")


def _times_stride(value: Value, stride: Value | None, b: Builder) -> Value:
    if stride is None or is_const(stride, 1):
        return value
    wide = value.type.with_elem("i64")
    if value.type != wide:
        value = b.value("convert", (value,), wide, how="sext")
    factor = b.value("broadcast", (stride,), wide) if wide.shape else stride
    return b.value("mul", (value, factor), wide)


def _moved(steps: Value, start: Value, b: Builder) -> Value:
    if is_const(start, 0):
        return steps
    return b.value("add", (steps, b.value("broadcast", (start,), steps.type)), steps.type)


def _inside(coordinates: Value, size: Value, b: Builder) -> Value:
    """Return which coordinates lie in 0..size; read without sign, negative ones are too large."""
    limit = b.value("broadcast", (size,), coordinates.type)
    return b.value("cmp", (coordinates, limit), coordinates.type.with_elem("i1"), pred="ult")


def find_tile(
    at: ArrayView, coordinates: Sequence[Value], b: Builder, checked: Collection[int] | None = None
) -> Tile:
    """Find the block at the given i32 coordinates; a vector of them picks rows one by one.

    Along the `checked` dimensions, by default all, the block is cut off at the array's edges.
    """
    dims = tuple(d for d in range(len(coordinates)) if checked is None or d in checked)
    base, offsets, masks = at.base, [], []
    for d, start in enumerate(coordinates):
        stride = at.strides[d] if d < len(at.strides) else None
        steps = place = start
        if not start.type.shape:
            steps = b.value("iota", (), Type("i32", (at.block.shape[d],)), start=0)
            place = _moved(steps, start, b) if d in dims else steps
            if not is_const(start, 0):
                base = b.value("addptr", (base, _times_stride(start, stride, b)), base.type)
        offsets.append(_times_stride(steps, stride, b))
        if d in dims:
            masks.append(_inside(place, at.shape[d], b))
    return Tile(base=base, offsets=offsets, masks=masks, mask_dims=dims)


def _shaped(value: Value, shape: tuple[int, ...], b: Builder) -> Value:
    """Add or drop dimensions of size 1."""
    type_ = value.type.with_shape(shape)
    return value if value.type == type_ else b.value("reshape", (value,), type_)


def wishes(op: MlirOp) -> dict[str, bool]:
    """Return what a load asks for beside its values: `volatile`, and `pinned` if evicted last."""
    asked = {"volatile": op.attrs.get("isVolatile"), "pinned": op.attrs.get("evict") == _EVICT_LAST}
    return {name: True for name, is_asked in asked.items() if is_asked}


def load_from(
    tile: Tile, result: Type, padding: Value | None, b: Builder, wishes: Mapping[str, bool]
) -> Value:
    """Load a tile, `padding` or zero where it is cut off."""
    pads = bool(tile.masks) and padding is not None and not is_const(padding, 0)
    attrs = {**dict.fromkeys(["other"] * pads, True), **wishes}
    operands = [*tile.operands, *([padding] if pads and padding is not None else [])]
    type_ = result.with_shape(tile.shape)
    value = b.value("load_tile", operands, type_, mask_dims=tile.mask_dims, **attrs)
    return _shaped(value, result.shape, b)


def store_to(tile: Tile, value: Value, b: Builder) -> None:
    """Store a tile but for what is cut off."""
    operands = [_shaped(value, tile.shape, b), *tile.operands]
    b.op("store_tile", operands, (), {"mask_dims": tile.mask_dims})


def combine_with(tile: Tile, value: Value, combine: str, b: Builder) -> None:
    """Combine a tile of memory with a value, element by element, but for what is cut off."""
    shaped = _shaped(value, tile.shape, b)
    attrs = {"combine": combine, "memory_order": "relaxed", "mask_dims": tile.mask_dims}
    b.op("atomic_rmw_tile", [shaped, *tile.operands], [shaped.type], attrs)

"""What a load or store moves, as the two numbers that each execution brings.

A block brings its key (equal keys are the same bytes) and its bytes; a gather the bytes of one
piece and how many pieces. The ops that compute them become part of the time reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asterope.ir import Builder, Type, Value

__all__ = ["TileAccess", "address_numbers", "block_numbers", "piece_numbers"]

_I64 = Type("i64")
_Even = tuple[Value, Value]
# Odd constants without pattern: one spreads a number over 64 bits, the others tell apart
# the same offset at another place, and along another dimension.
_SPREAD = 0x9E3779B97F4A7C15 - (1 << 64)
_PLACE = (0x45D9F3B, 0x27D4EB2F, 0x165667B1, 0x2C1B3C6D)


@dataclass(frozen=True, kw_only=True, slots=True)
class TileAccess:
    """Elements at base + sum of offsets[d][i_d], where every mask is on; in the time reading.

    With `once`, elements that a dimension puts at one address are one piece.
    """

    base: Value
    offsets: Sequence[Value]
    masks: Mapping[int, Value]
    element_bytes: int
    once: bool = False

    def count(self, dim: int, b: Builder) -> Value:
        """Count the indices of a dimension that are on."""
        offset = self.offsets[dim]
        together = self.once and offset.op is not None and offset.op.name in ("const", "broadcast")
        if dim not in self.masks:
            return b.const(_I64, 1 if together else offset.type.shape[0])
        on = b.value("popcount", (self.masks[dim],), Type("i32"))
        count = b.value("convert", (on,), _I64, how="sext")
        return b.value("mins", (count, b.const(_I64, 1)), _I64) if together else count


def block_numbers(access: TileAccess, b: Builder, *, keyed: bool) -> list[Value]:
    """Give a block's key, 0 where nobody asks for it, and its bytes."""
    num_bytes = b.const(_I64, access.element_bytes)
    for d in range(len(access.offsets)):
        num_bytes = b.value("mul", (num_bytes, access.count(d, b)), _I64)
    return [_key(access, b) if keyed else b.const(_I64, 0), num_bytes]


def _key(access: TileAccess, b: Builder) -> Value:
    """Hash what is touched: the base, and each offset that is on together with its place."""
    key = b.value("ptr_to_int", (access.base,), _I64)
    for d, offset in enumerate(access.offsets):
        place, mask = _PLACE[d % len(_PLACE)], access.masks.get(d)
        even = _evenly(offset, b)
        if even is None:
            part = _sum_of_on(_mixed(_wide(offset, b), place, b), mask, b)
        else:
            part = _hash_of_even(*even, offset.type.num_elements, b)
            if mask is not None:
                steps = b.value("iota", (), Type("i32", offset.type.shape), start=1)
                on = _sum_of_on(_mixed(steps, place, b), mask, b)
                part = b.value("add", (part, _times(_wide(on, b), _SPREAD, b)), _I64)
        # Each dimension turns what came before it, so that none can stand for another.
        key = b.value("add", (_times(key, 2 * d + 3, b), part), _I64)
    return key


def _hash_of_even(start: Value, step: Value, count: int, b: Builder) -> Value:
    """Hash evenly spaced offsets without looking at each."""
    shape = b.value("add", (_times(step, _SPREAD, b), b.const(_I64, count)), _I64)
    return _scattered(b.value("add", (_scattered(shape, b), start), _I64), b)


def _evenly(vector: Value, b: Builder) -> _Even | None:
    """Return first value and step of evenly spaced offsets, None if they are not known to be."""
    op = vector.op
    if op is None:
        return None
    if op.name == "iota":
        return b.const(_I64, op.attrs["start"]), b.const(_I64, 1)
    if op.name == "const":
        return b.const(_I64, op.attrs["value"]), b.const(_I64, 0)
    if op.name == "broadcast" and not op.operands[0].type.shape:
        return _wide(op.operands[0], b), b.const(_I64, 0)
    if op.name == "convert" and op.attrs["how"] == "sext":
        return _evenly(op.operands[0], b)
    if op.name not in ("add", "sub", "mul"):
        return None
    pairs = [_evenly(v, b) for v in op.operands]
    return _even_result(op.name, pairs[0], pairs[1], b)


def _even_result(name: str, left: _Even | None, right: _Even | None, b: Builder) -> _Even | None:
    """Add, subtract or multiply evenly spaced offsets; of two factors one must be uniform."""
    if left is None or right is None:
        return None
    if name != "mul":
        return b.value(name, (left[0], right[0]), _I64), b.value(name, (left[1], right[1]), _I64)
    many, (factor, step) = (right, left) if _is_zero(left[1]) else (left, right)
    if not _is_zero(step):
        return None
    return b.value("mul", (many[0], factor), _I64), b.value("mul", (many[1], factor), _I64)


def _is_zero(value: Value) -> bool:
    return value.op is not None and value.op.name == "const" and value.op.attrs["value"] == 0


def _wide(value: Value, b: Builder) -> Value:
    wide = value.type.with_elem("i64")
    return value if value.type == wide else b.value("convert", (value,), wide, how="sext")


def _times(value: Value, factor: int, b: Builder) -> Value:
    return b.value("mul", (value, b.const(value.type, factor)), value.type)


def _scattered(value: Value, b: Builder) -> Value:
    """Make numbers without pattern of numbers: neighbours become strangers."""
    spread = _times(value, _SPREAD if value.type.bits > 32 else _PLACE[0], b)
    half = b.const(value.type, value.type.bits // 2)
    return b.value("xor", (spread, b.value("shru", (spread, half), value.type)), value.type)


def _mixed(vector: Value, place: int, b: Builder) -> Value:
    """Make a number without pattern of each element and its place; sums of such rarely agree."""
    steps = b.value("iota", (), Type("i32", vector.type.shape), start=1)
    places = _times(steps, place, b)
    if vector.type != places.type:
        places = _wide(places, b)
    return _scattered(b.value("add", (vector, places), vector.type), b)


def _sum_of_on(vector: Value, mask: Value | None, b: Builder) -> Value:
    if mask is not None:
        nothing = b.const(vector.type, 0)
        vector = b.value("select", (mask, vector, nothing), vector.type)
    return b.value("reduce", (vector,), vector.type.with_shape(()), axis=0, combine="add")


def piece_numbers(access: TileAccess, together: int | None, b: Builder) -> list[Value]:
    """Give the bytes that lie together along one dimension, if any, and how many such pieces."""
    piece, pieces = b.const(_I64, access.element_bytes), b.const(_I64, 1)
    for d in range(len(access.offsets)):
        count = access.count(d, b)
        if d == together:
            piece = b.value("mul", (piece, count), _I64)
        else:
            pieces = b.value("mul", (pieces, count), _I64)
    return [piece, pieces]


def address_numbers(
    pointer: Value, mask: Value | None, element_bytes: int, b: Builder
) -> list[Value]:
    """Give a scalar's address and bytes; of a block of addresses, elements as pieces."""
    count: Value = b.const(_I64, pointer.type.num_elements)
    if mask is not None:
        on = b.value("popcount", (mask,), Type("i32"))
        count = b.value("convert", (on,), _I64, how="sext")
    size = b.const(_I64, element_bytes)
    if pointer.type.shape:
        return [size, count]
    return [
        b.value("ptr_to_int", (pointer,), _I64),
        b.value("mul", (count, size), _I64),
    ]

"""How tile values live in generated code: scalars, buffers, and blocks not yet computed."""

from __future__ import annotations

from dataclasses import dataclass

from asterope.formats import ELEMENTS, emit_decode, emit_encode, emit_round
from asterope.ir import Op, Type
from asterope.native import BITS, Function, Val

__all__ = [
    "MAX_LANES",
    "NARROW_FLOATS",
    "At",
    "Buffer",
    "Lane",
    "Lazy",
    "from_storage",
    "index_const",
    "lanes_for",
    "register_kind",
    "round_narrow",
    "storage_kind",
    "to_bf16",
    "to_storage",
]

NARROW_FLOATS = ("fp16", "bf16", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz")
MAX_LANES = 16
_KINDS = {"fp32": "f32", "fp64": "f64", "sem": "i64"}


def register_kind(type_: Type) -> str:
    """Return what an element is computed as: narrow floats are float32 holding exact values."""
    if type_.is_ptr:
        return "ptr"
    if type_.elem in NARROW_FLOATS:
        return "f32"
    return _KINDS.get(str(type_.elem), str(type_.elem))


def storage_kind(type_: Type) -> str:
    """Return what an element is in memory: the integer that holds its code."""
    if type_.elem in NARROW_FLOATS:
        return f"i{type_.bits}"
    return "i8" if type_.elem == "i1" else register_kind(type_)


def from_storage(raw: Val, type_: Type) -> Val:
    """Turn what was loaded into what is computed with."""
    if type_.elem in NARROW_FLOATS:
        if type_.elem == "fp16" and raw.fn.isa.has_half:
            return raw.bits_as("f16").fext("f32")
        return emit_decode(raw, ELEMENTS[str(type_.elem)])
    return raw.cmp("ne", 0) if type_.elem == "i1" else raw


def to_storage(value: Val, type_: Type) -> Val:
    """Turn what was computed into what is stored."""
    if type_.elem in NARROW_FLOATS:
        if type_.elem == "fp16" and value.fn.isa.has_half:
            return value.fext("f16").bits_as("i16")
        if type_.elem == "bf16":
            return to_bf16(value)  # whatever computed it has rounded it
        kind = storage_kind(type_)
        return emit_encode(value, ELEMENTS[str(type_.elem)], overflow="special").zext(kind)
    return value.zext("i8") if type_.elem == "i1" else value


def to_bf16(value: Val) -> Val:
    """Return the code of a number that is exact in bf16."""
    bits = value.bits_as("i32")
    quiet = (bits & 0xFFFF).ne(0).where(bits.like(0x40), 0)  # a NaN that would become infinity
    return ((bits >> 16) | quiet).zext("i16")


def round_narrow(value: Val, type_: Type) -> Val:
    """Round a float32 result to its narrow format, if it has one."""
    if type_.elem in ("fp16", "bf16"):
        return emit_round(value, ELEMENTS[str(type_.elem)])
    if type_.elem in NARROW_FLOATS:
        fmt = ELEMENTS[str(type_.elem)]
        return emit_decode(emit_encode(value, fmt), fmt)
    return value


@dataclass(frozen=True, slots=True)
class At:
    """Where a chunk lies: one index a dimension; along `lane` it covers `lanes` elements.

    `lane` is -1 for a single element.
    """

    index: tuple[Val, ...]
    lane: int = -1
    lanes: int = 0

    def key(self) -> tuple[object, ...]:
        """Return what identifies the chunk within one loop body."""
        return (*(i.ref for i in self.index), self.lane)

    def without(self, dim: int) -> At:
        """Drop a dimension."""
        index = self.index[:dim] + self.index[dim + 1 :]
        if self.lane == dim:
            return At(index)
        return At(index, self.lane - (self.lane > dim), self.lanes)


@dataclass(frozen=True, slots=True)
class Lane:
    """A chunk's value: a vector, or a scalar that grows by `step` from lane to lane."""

    val: Val
    step: int = 0

    def vector(self, lanes: int) -> Val:
        """Return the value with one element a lane (a scalar if there are no lanes)."""
        if not lanes or self.val.lanes:
            return self.val
        splat = self.val.splat(lanes)
        if not self.step:
            return splat
        return splat + self.val.fn.iota(self.val.kind, lanes) * self.step


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """A piece of the scratch area."""

    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """A block in scratch memory, elements in register form (i1 as bytes), with strides.

    A `compact` one holds codes of bf16, in which its elements are exact.
    """

    memory: Memory
    pointer: Val
    type: Type
    strides: tuple[int, ...]
    compact: bool = False

    @property
    def kind(self) -> str:
        """The kind of one stored element."""
        if self.compact:
            return "i16"
        kind = register_kind(self.type)
        return "i8" if kind == "i1" else kind

    @property
    def element_bytes(self) -> int:
        """Bytes of one stored element."""
        return BITS[self.kind] // 8

    def address(self, index: tuple[Val, ...]) -> Val:
        """Return the address of the element at an index."""
        fn = self.pointer.fn
        total = fn.const("i64", 0)
        for i, stride in zip(index, self.strides, strict=True):
            total = total + i * (stride * self.element_bytes)
        return self.pointer.offset(total)

    def encoded(self, value: Val) -> Val:
        """Return what is stored for a value."""
        return to_bf16(value) if self.compact else value

    def decoded(self, raw: Val) -> Val:
        """Return the value of what was loaded."""
        if self.compact:
            return (raw.zext("i32") << 16).bits_as("f32")
        return raw.cmp("ne", 0) if self.type.elem == "i1" else raw


@dataclass(frozen=True, slots=True, eq=False)
class Lazy:
    """A block that is computed where it is used."""

    op: Op
    cost: int
    has_load: bool


def index_const(fn: Function, number: int) -> Val:
    """Make an index constant."""
    return fn.const("i64", number)


def lanes_for(size: int, most: int = MAX_LANES) -> int:
    """Return how many elements of a dimension make a chunk: the largest power of two up to 16."""
    return min(most, size & -size)

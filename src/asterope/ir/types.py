"""Types of tile IR: an element and a shape. A scalar is a block of shape ()."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from asterope.errors import IRError

__all__ = [
    "ELEMENT_BITS",
    "FLOATS",
    "INTEGERS",
    "MEMORY_SPACES",
    "SEM",
    "Ptr",
    "Type",
    "parse_type",
]

INTEGERS = ("i1", "i8", "i16", "i32", "i64")
FLOATS = ("e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "fp16", "bf16", "fp32", "fp64")
ELEMENT_BITS = {
    "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64,
    "e4m3": 8, "e5m2": 8, "e4m3fnuz": 8, "e5m2fnuz": 8,
    "fp16": 16, "bf16": 16, "fp32": 32, "fp64": 64,
    "sem": 0,
}  # fmt: skip
MEMORY_SPACES = ("hbm", "csram", "tsram")


@dataclass(frozen=True, slots=True)
class Ptr:
    """The element type of addresses: what they point to, and in which memory of the chip."""

    elem: str
    space: str = "hbm"

    def __str__(self) -> str:
        return f"ptr<{self.elem}>" if self.space == "hbm" else f"ptr<{self.elem}, {self.space}>"


@dataclass(frozen=True, slots=True)
class Type:
    """A block of elements, `fp32[128,64]`; a scalar has shape ()."""

    elem: str | Ptr
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.shape:
            return str(self.elem)
        return f"{self.elem}[{','.join(map(str, self.shape))}]"

    @property
    def is_ptr(self) -> bool:
        """Whether the elements are addresses."""
        return isinstance(self.elem, Ptr)

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.elem in FLOATS

    @property
    def is_int(self) -> bool:
        """Whether the elements are integers."""
        return self.elem in INTEGERS

    @property
    def bits(self) -> int:
        """Bits of one element; an address has 64."""
        return 64 if isinstance(self.elem, Ptr) else ELEMENT_BITS[self.elem]

    @property
    def num_elements(self) -> int:
        """Number of elements of the block."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def num_bytes(self) -> int:
        """Bytes of the block in memory; an i1 takes a byte."""
        return self.num_elements * max(1, self.bits // 8)

    @property
    def pointee(self) -> str:
        """The element an address points to.

        Raises: IRError if the elements are not addresses.
        """
        if isinstance(self.elem, Ptr):
            return self.elem.elem
        raise IRError(f"{self} is not a pointer")

    @property
    def space(self) -> str:
        """The memory an address points into.

        Raises: IRError if the elements are not addresses.
        """
        if isinstance(self.elem, Ptr):
            return self.elem.space
        raise IRError(f"{self} is not a pointer")

    def with_shape(self, shape: tuple[int, ...]) -> Type:
        """Return the same element in another shape."""
        return Type(self.elem, shape)

    def with_elem(self, elem: str | Ptr) -> Type:
        """Return the same shape with another element."""
        return Type(elem, self.shape)


SEM = Type("sem")
_TYPE = re.compile(
    r"(?:ptr<(?P<to>\w+)(?:,\s*(?P<space>\w+))?>|(?P<elem>\w+))(?:\[(?P<shape>\s*\d+(?:\s*,\s*\d+)*)\s*\])?"
)


@functools.lru_cache(maxsize=4096)
def parse_type(text: str) -> Type:
    """Read what `str(type)` writes.

    Raises: IRError naming the text.
    """
    match = _TYPE.fullmatch(text.strip())
    if not match:
        raise IRError(f"{text!r} is not a type", hint="write fp32, i32[128] or ptr<bf16>[64,64]")
    name = match["to"] or match["elem"]
    space = match["space"] or "hbm"
    if name not in ELEMENT_BITS or space not in MEMORY_SPACES:
        raise IRError(f"{text!r} names no element or memory space", hint=", ".join(ELEMENT_BITS))
    elem: str | Ptr = Ptr(name, space) if match["to"] else name
    shape = tuple(int(s) for s in match["shape"].split(",")) if match["shape"] else ()
    return Type(elem, shape)

"""Machine code that packs codes as the bit stream of `packing`, in vectors and whole arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from asterope.formats.native_loops import recast
from asterope.native import Function, Val

__all__ = [
    "PACKABLE_BITS",
    "PACK_GROUP",
    "PackCodes",
    "UnpackCodes",
    "flag_wide_codes",
    "load_codes",
    "store_codes",
]

PACKABLE_BITS = (4, 6, 8)
PACK_GROUP = 32
"""Codes that `PackCodes` and `UnpackCodes` take at once."""


def store_codes(codes: Val, ptr: Val, bits: int) -> None:
    """Store a vector of codes (i32, upper bits clear) in lanes x bits / 8 bytes."""
    fn, lanes = codes.fn, codes.lanes
    if bits == 8:
        fn.store(codes.zext("i8"), ptr)
    elif bits == 4:
        pairs = recast(codes, "i64", lanes // 2)
        fn.store((pairs | (pairs >> 28)).zext("i8"), ptr)
    else:
        pairs = recast(codes.zext("i8"), "i16", lanes // 2)
        pairs = (pairs & 0x3F) | ((pairs & 0x3F00) >> 2)
        fours = recast(pairs, "i32", lanes // 4)
        fours = (fours & 0xFFF) | ((fours & 0xFFF_0000) >> 4)
        order = [i for i in range(lanes) if i % 4 < 3]
        fn.store(recast(fours, "i8", lanes).shuffle(order), ptr)


def load_codes(ptr: Val, bits: int, lanes: int) -> Val:
    """Load a vector of codes (i32, upper bits clear) from lanes x bits / 8 bytes."""
    fn = ptr.fn
    if bits == 8:
        return fn.load(ptr, "i8", lanes).zext("i32")
    if bits == 4:
        pairs = fn.load(ptr, "i8", lanes // 2).zext("i64")
        return recast((pairs | (pairs << 28)) & 0xF_0000_000F, "i32", lanes)
    stream = fn.load(ptr, "i8", lanes * 6 // 8)
    order = [i // 4 * 3 + min(i % 4, 2) for i in range(lanes)]
    fours = recast(stream.shuffle(order), "i32", lanes // 4)
    pairs = recast((fours & 0xFFF) | ((fours & 0xFF_F000) << 4), "i16", lanes // 2)
    return recast((pairs & 0x3F) | ((pairs & 0xFC0) << 2), "i8", lanes).zext("i32")


def flag_wide_codes(codes: Val, bits: int, flag: Val) -> None:
    """Set a flag in memory if some code has more than `bits` bits."""
    fn = codes.fn
    with fn.if_(codes.cmp("ugt", (1 << bits) - 1).any_lane()):
        fn.store(fn.const("i32", 1), flag)


@dataclass(frozen=True, kw_only=True)
class PackCodes:
    """Pack groups of codes; one that is too wide sets the flag."""

    bits: int

    PARAMS: ClassVar[tuple[str, ...]] = ("ptr", "ptr", "ptr")
    GRAIN: ClassVar[int] = 1

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code; arguments codes, packed, flag."""
        codes, packed, flag = args
        with fn.loop(start, end) as group:
            vector = load_codes(codes.offset(group * PACK_GROUP), 8, PACK_GROUP)
            flag_wide_codes(vector, self.bits, flag)
            store_codes(vector, packed.offset(group * (PACK_GROUP * self.bits // 8)), self.bits)


@dataclass(frozen=True, kw_only=True)
class UnpackCodes:
    """Unpack groups of codes."""

    bits: int

    PARAMS: ClassVar[tuple[str, ...]] = ("ptr", "ptr")
    GRAIN: ClassVar[int] = 1

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code; arguments packed, codes."""
        packed, codes = args
        with fn.loop(start, end) as group:
            at = packed.offset(group * (PACK_GROUP * self.bits // 8))
            vector = load_codes(at, self.bits, PACK_GROUP)
            store_codes(vector, codes.offset(group * PACK_GROUP), 8)

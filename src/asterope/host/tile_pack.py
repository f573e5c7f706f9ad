"""How operands are laid out for tile registers, and what is noted of them on the way."""

from __future__ import annotations

from asterope.host.layout import copy_turned, turn
from asterope.native import Function, Val

__all__ = [
    "Area",
    "Notes",
    "Smallest",
    "as_pairs",
    "copy_rows",
    "narrow",
    "pack_pairs",
    "pair_place",
    "smallest_exponent",
    "widen",
    "widen_pairs",
]

_LANES = 32  # bf16 codes in a vector


class Area:
    """Scratch memory, given out piece by piece."""

    def __init__(self, start: Val) -> None:
        self._next = start

    def take(self, num_bytes: int) -> Val:
        """Return the next piece."""
        piece, self._next = self._next, self._next.offset(num_bytes)
        return piece


class Notes:
    """The smallest or largest of all 16-bit numbers seen."""

    def __init__(self, fn: Function, choice: str) -> None:
        self._fn, self._choice = fn, choice
        self._slot = fn.slot("i16", _LANES)
        fn.store(fn.const("i16", -1 if choice == "umin" else 0, _LANES), self._slot)

    def add(self, numbers: Val) -> None:
        """Look at a vector of them."""
        before = self._fn.load(self._slot, "i16", _LANES)
        self._fn.store(before.minimum(self._choice, numbers), self._slot)

    def value(self) -> Val:
        """Return what was found as an i32."""
        found = self._fn.load(self._slot, "i16", _LANES)
        name = f"llvm.vector.reduce.{self._choice}.v{_LANES}i16"
        return self._fn.call(name, (found,), "i16").zext("i32")

    def add_codes(self, codes: Val) -> None:
        """Look at the sizes of bf16, one less, so that zero is the largest."""
        self.add((codes & 0x7FFF) - 1)

    def add_pairs(self, pairs: Val) -> None:
        """Look at 16 pairs of codes."""
        self.add_codes(_halves(pairs))

    def smallest_exponent(self) -> Val:
        """Return the smallest biased exponent but of zeros; 0 if there is a subnormal."""
        return (self.value() + 1) >> 7


class Smallest:
    """The smallest of all fp32 numbers seen, 16 at a time."""

    # A number of at least 2^-103 is a multiple of 2^-126.
    _MIN_EXPONENT = 24

    def __init__(self, fn: Function) -> None:
        self._fn, self._slot = fn, fn.slot("i32", 16)
        fn.store(fn.const("i32", -1, 16), self._slot)

    def add(self, numbers: Val) -> None:
        """Look at a vector of them."""
        sizes = (numbers.bits_as("i32") & 0x7FFF_FFFF) - 1  # one less, zero is the largest
        before = self._fn.load(self._slot, "i32", 16)
        self._fn.store(before.minimum("umin", sizes), self._slot)

    def is_coarse(self) -> Val:
        """Whether all were multiples of 2^-126."""
        found = self._fn.load(self._slot, "i32", 16)
        least = self._fn.call("llvm.vector.reduce.umin.v16i32", (found,), "i32")
        return least.cmp("uge", (self._MIN_EXPONENT << 23) - 1)


def _halves(x: Val) -> Val:
    """Look at 16 numbers of 32 bits as 32 of 16."""
    return x.fn.line(f"bitcast {x.text} to <{_LANES} x i16>", "i16", _LANES)


def narrow(
    fn: Function, source: Val, area: Area, shape: tuple[int, int], strides: tuple[int, int],
    dropped: Notes,
) -> Val:  # fmt: skip
    """Copy fp32 without gaps to bf16 codes in the same order, noting the bits that are lost."""
    size = shape[0] * shape[1]
    assert strides in ((shape[1], 1), (1, shape[0])), "a matrix without gaps"
    target = area.take(2 * size)
    with fn.loop(0, size, 16) as i:
        bits = fn.load(source.offset(i * 4), "i32", 16)
        dropped.add(_halves(bits & 0xFFFF))
        fn.store((bits >> 16).zext("i16"), target.offset(i * 2))
    return target


def widen(fn: Function, codes: Val, area: Area, size: int) -> Val:
    """Copy bf16 codes without gaps to fp32 in the same order."""
    target = area.take(4 * size)
    with fn.loop(0, size, 16) as i:
        wide = fn.load(codes.offset(i * 2), "i16", 16).zext("i32") << 16
        fn.store(wide, target.offset(i * 4))
    return target


def widen_pairs(fn: Function, pairs: Val, area: Area, shape: tuple[int, int]) -> Val:
    """Copy packed pairs to rows of fp32."""
    depth, columns = shape
    target = area.take(4 * depth * columns)
    with fn.loop(0, depth, 2) as k, fn.loop(0, columns, 16) as n:
        both = fn.load(pair_place(pairs, k, n, depth), "i32", 16)
        for i, half in enumerate((both << 16, both & -65536)):
            fn.store(half, target.offset(((k + i) * columns + n) * 4))
    return target


def copy_rows(
    fn: Function, codes: Val, target: Val, shape: tuple[int, int], strides: tuple[int, int]
) -> None:
    """Copy a matrix to rows without gaps; it lies that way, or turned."""
    if strides[0] == 1 and shape[0] > 1:
        copy_turned(fn, codes, target, shape, strides, shape[1], "i16", "i16")
        return
    with fn.loop(0, shape[0] * shape[1], _LANES) as i:
        fn.store(fn.load(codes.offset(i * 2), "i16", _LANES), target.offset(i * 2))


def smallest_exponent(fn: Function, codes: Val, size: int) -> Val:
    """Return that of so many codes, a multiple of a vector's; see `Notes`."""
    seen = Notes(fn, "umin")
    with fn.loop(0, size, _LANES) as i:
        seen.add_codes(fn.load(codes.offset(i * 2), "i16", _LANES))
    return seen.smallest_exponent()


def as_pairs(even: Val, odd: Val) -> Val:
    """Put bf16 codes below others: 16 pairs."""
    return even.zext("i32") | (odd.zext("i32") << 16)


def pair_place(pairs: Val, k: Val, n: Val, depth: int) -> Val:
    """Return where pairs of rows k and k + 1 begin at column n; 16 columns lie together."""
    return pairs.offset((n >> 4) * (32 * depth) + k * 32)


def pack_pairs(
    fn: Function, codes: Val, target: Val, shape: tuple[int, int], strides: tuple[int, int],
    seen: Notes,
) -> None:  # fmt: skip
    """Write pairs of rows, 16 columns after 16 columns, and note their codes."""
    (depth, columns), (down, across) = shape, strides
    with fn.loop(0, columns, 16) as n:
        place, to = codes.offset(n * (2 * across)), pair_place(target, n * 0, n, depth)
        if across == 1:
            with fn.loop(0, depth, 2) as k:
                at = place.offset(k * (2 * down))
                even, odd = (fn.load(x, "i16", 16) for x in (at, at.offset(2 * down)))
                pairs = as_pairs(even, odd)
                seen.add_pairs(pairs)
                fn.store(pairs, to.offset(k * 32))
        else:
            assert down == 1, "one dimension of a buffer has neighbours"

            def load(k: Val, n: Val) -> Val:
                pairs = fn.load(place.offset((n * across + k * 2) * 2), "i32", 16, align=2)
                seen.add_pairs(pairs)
                return pairs

            turn(fn, (depth // 2, 16), 16, load, to, 16)

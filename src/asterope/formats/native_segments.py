"""Machine code for segments of rows: whole arrays of codes, and float32 scales of any extent.

A segment is up to `segment` neighbours of a row; the last of a row may be shorter. Segments are
counted row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from asterope.formats.element import Overflow, Rounding
from asterope.formats.native_codec import emit_encode
from asterope.formats.native_loops import (
    decode_exactly,
    emit_uniform32,
    load_values,
    raw_kind,
)
from asterope.formats.native_packing import flag_wide_codes
from asterope.formats.table import ELEMENTS, ElementFormat
from asterope.native import Function, Val

__all__ = ["SEGMENT", "AmaxSegments", "DecodeSegments", "EncodeSegments"]

SEGMENT = 4096
"""Elements of a segment where nothing else says how long it is."""

_LANES = 16
_WIDE = 64


def _for_each(count: Val, lanes: int, body: Callable[[Val, int], None]) -> None:
    """Run `body(index, lanes)` over 0..count - 1, then one element at a time (lanes 0)."""
    fn = count.fn
    stop = count & -lanes
    with fn.loop(0, stop, lanes) as i:
        body(i, lanes)
    with fn.loop(stop, count) as i:
        body(i, 0)


def _extent(segment: Val, row_length: Val, length: Val) -> tuple[Val, Val]:
    """Return the first element of a segment, and how many it has."""
    num_per_row = (row_length + length - 1).op("udiv", length)
    row, place = segment.op("udiv", num_per_row), segment.op("urem", num_per_row)
    offset = place * length
    return row * row_length + offset, length.minimum("smin", row_length - offset)


@dataclass(frozen=True, kw_only=True)
class AmaxSegments:
    """Find the largest magnitude of each segment, as float32; NaN counts as the largest."""

    dtype: str

    PARAMS: ClassVar[tuple[str, ...]] = ("ptr", "ptr", "i64", "i64")
    GRAIN: ClassVar[int] = 1

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code; arguments x, result, row length, segment length."""
        x, result, row_length, length = args
        kind, fmt = raw_kind(self.dtype), ELEMENTS[self.dtype]
        slots = {_WIDE: fn.slot(kind, _WIDE), 0: fn.slot(kind)}

        def larger(first: Val) -> Callable[[Val, int], None]:
            def body(i: Val, lanes: int) -> None:
                bits = fn.load(x.offset((first + i) * (fmt.bits // 8)), kind, lanes)
                magnitude = bits & (fmt.sign_code - 1)
                best = fn.load(slots[lanes], kind, lanes).minimum("umax", magnitude)
                fn.store(best, slots[lanes])

            return body

        with fn.loop(start, end) as segment:
            first, count = _extent(segment, row_length, length)
            for lanes, slot in slots.items():
                fn.store(fn.const(kind, 0, lanes), slot)
            _for_each(count, _WIDE, larger(first))
            wide = fn.load(slots[_WIDE], kind, _WIDE)
            amax = fn.call(f"llvm.vector.reduce.umax.v{_WIDE}{kind}", (wide,), kind)
            amax = amax.minimum("umax", fn.load(slots[0], kind))
            fn.store(decode_exactly(amax, fmt), result.offset(segment * 4))


@dataclass(frozen=True, kw_only=True)
class EncodeSegments:
    """Encode values, divided by the float32 scale of their segment if `scaled`.

    Codes are zero where the scale is NaN. Another NaN in a format without it sets the flag.
    """

    element: ElementFormat
    rounding: Rounding
    overflow: Overflow
    dtype: str
    scaled: bool

    PARAMS: ClassVar[tuple[str, ...]] = ("ptr", "ptr", "ptr", "ptr", "i64", "i64", "i64", "i64")
    GRAIN: ClassVar[int] = 1

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code.

        Arguments x, codes, scales, flag, row length, segment length, scale stride, seed.
        """
        x, codes, scales, flag, row_length, length, scale_stride, seed = args
        with fn.loop(start, end) as segment:
            first, count = _extent(segment, row_length, length)
            scale = None
            if self.scaled:
                scale = fn.load(scales.offset(segment * scale_stride * 4), "f32")

            def body(i: Val, lanes: int, first: Val = first, scale: Val | None = scale) -> None:
                values = load_values(x, first + i, self.dtype, lanes)
                self._look_for_nan(values, flag)
                code = self._codes(values, scale, first + i, seed)
                narrow = code.zext(f"i{8 * self.element.code_dtype.itemsize}")
                fn.store(narrow, codes.offset((first + i) * self.element.code_dtype.itemsize))

            _for_each(count, _LANES, body)

    def _look_for_nan(self, values: Val, flag: Val) -> None:
        if self.element.has_nan or self.scaled:
            return
        fn = values.fn
        with fn.if_(values.is_nan().any_lane()):
            fn.store(fn.const("i32", 1), flag)

    def _codes(self, values: Val, scale: Val | None, index: Val, seed: Val) -> Val:
        fn, lanes = values.fn, values.lanes
        if scale is not None:
            values = scale.is_nan().where(values.like(0), values / scale)
        uniform = None
        if self.rounding == "stochastic":
            place = index.splat(lanes) + fn.iota("i64", lanes) if lanes else index
            low, high = place.zext("i32"), (place >> 32).zext("i32")
            uniform = emit_uniform32(low, high, seed.zext("i32"))
        return emit_encode(
            values,
            self.element,
            rounding=self.rounding,
            overflow=self.overflow,
            uniform=uniform,
        )


@dataclass(frozen=True, kw_only=True)
class DecodeSegments:
    """Decode codes, times the float32 scale of their segment if `scaled`.

    A code the format does not have sets the flag.
    """

    element: ElementFormat
    scaled: bool

    PARAMS: ClassVar[tuple[str, ...]] = ("ptr", "ptr", "ptr", "ptr", "i64", "i64", "i64")
    GRAIN: ClassVar[int] = 1

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code.

        Arguments codes, scales, flag, result, row length, segment length, scale stride.
        """
        codes, scales, flag, result, row_length, length, scale_stride = args
        num_bytes = self.element.code_dtype.itemsize
        with fn.loop(start, end) as segment:
            first, count = _extent(segment, row_length, length)
            scale = None
            if self.scaled:
                scale = fn.load(scales.offset(segment * scale_stride * 4), "f32")

            def body(i: Val, lanes: int, first: Val = first, scale: Val | None = scale) -> None:
                at = codes.offset((first + i) * num_bytes)
                code = fn.load(at, f"i{8 * num_bytes}", lanes).zext("i32")
                if self.element.bits < 8 * num_bytes:
                    flag_wide_codes(code, self.element.bits, flag)
                value = decode_exactly(code, self.element)
                value = value if scale is None else value * scale
                fn.store(value, result.offset((first + i) * 4))

            _for_each(count, _LANES, body)

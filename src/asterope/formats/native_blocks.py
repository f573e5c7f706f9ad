"""Machine code for blocks of neighbours under one-byte scales: the fast path of `block`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from asterope.formats.element import Rounding
from asterope.formats.native_codec import emit_decode, emit_encode
from asterope.formats.native_loops import decode_exactly, emit_uniform32, load_values, raw_kind
from asterope.formats.native_packing import flag_wide_codes, load_codes, store_codes
from asterope.formats.table import ELEMENTS, BlockFormat, ElementFormat, ScaleRule
from asterope.native import Function, Val

__all__ = ["DequantizeBlocks", "QuantizeBlocks"]

_GROUP = 16  # blocks whose scales are computed together, one in each lane
_INF = 0x7F80_0000
_MANTISSA = 23
_SUBNORMAL_SHIFT = 149  # the smallest subnormal of float32 is 2^-149


def _block_bytes(fmt: BlockFormat, *, packed: bool) -> int:
    assert isinstance(fmt.granularity, int)
    return fmt.granularity * (fmt.element.bits if packed else 8) // 8


def _last_whole_group(index: Val, num_blocks: Val) -> Val:
    """Start the last group early enough to be whole: it repeats work, with the same result."""
    return index.minimum("smin", num_blocks - _GROUP)


@dataclass(frozen=True, kw_only=True)
class QuantizeBlocks:
    """Quantize blocks, at least 16 of them: amax of a group, its scale codes, its codes.

    `factors` holds, for each scale code, what its elements are multiplied by; a block with the
    NaN code gets codes of zero. `global_scale` is 1 without two levels.
    """

    format: BlockFormat
    rule: ScaleRule
    rounding: Rounding
    dtype: str
    packed: bool

    PARAMS: ClassVar[tuple[str, ...]] = ("ptr", "ptr", "ptr", "ptr", "f32", "i64", "i64")
    GRAIN: ClassVar[int] = _GROUP

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code; arguments x, codes, scales, factors, global scale, blocks, seed."""
        x, codes, scales, factors, global_scale, num_blocks, seed = args
        sizes = fn.slot("i32", _GROUP)
        with fn.loop(start, end, _GROUP) as index:
            first = _last_whole_group(index, num_blocks)
            with fn.loop(0, _GROUP) as i:
                fn.store(self._amax(x, first + i), sizes.offset(i * 4))
            amax = emit_decode(fn.load(sizes, "i32", _GROUP), ELEMENTS[self.dtype]).bits_as("i32")
            fn.store(self._scale_codes(amax, global_scale).zext("i8"), scales.offset(first))
            with fn.loop(0, _GROUP) as i:
                block = first + i
                scale = fn.load(scales.offset(block), "i8").zext("i64")
                factor = fn.load(factors.offset(scale * 4), "f32")
                at = codes.offset(block * _block_bytes(self.format, packed=self.packed))
                self._encode(x, block, factor, seed, at)
                with fn.if_(scale.eq(self.format.scale.nan_code)):
                    self._store(fn.const("i32", 0, self._lanes), at)

    @property
    def _lanes(self) -> int:
        assert isinstance(self.format.granularity, int)
        return self.format.granularity

    def _amax(self, x: Val, block: Val) -> Val:
        """Return the bits of the largest magnitude: they order as the values do, NaN on top."""
        kind = raw_kind(self.dtype)
        num_bytes = ELEMENTS[self.dtype].bits // 8 * self._lanes
        bits = x.fn.load(x.offset(block * num_bytes), kind, self._lanes)
        magnitude = bits & (ELEMENTS[self.dtype].sign_code - 1)
        name = f"llvm.vector.reduce.umax.v{self._lanes}{kind}"
        return x.fn.call(name, (magnitude,), kind).zext("i32")

    def _scale_codes(self, amax: Val, global_scale: Val) -> Val:
        fmt = self.format
        if fmt.scale.name == "e8m0":
            codes = _e8m0_codes(amax, fmt.element, self.rule)
        else:
            scale = amax.bits_as("f32") / fmt.element.max_value / global_scale
            scale = scale.lt(fmt.scale.min_subnormal).where(fmt.scale.min_subnormal, scale)
            scale = scale.gt(fmt.scale.max_value).where(fmt.scale.max_value, scale)
            codes = emit_encode(scale, fmt.scale)
        return amax.lt(_INF).where(codes, fmt.scale.nan_code)

    def _encode(self, x: Val, block: Val, factor: Val, seed: Val, at: Val) -> None:
        fn, lanes = x.fn, self._lanes
        first = block * lanes
        uniform = None
        if self.rounding == "stochastic":
            low = first.zext("i32") + fn.iota("i32", lanes)
            uniform = emit_uniform32(low, (first >> 32).zext("i32"), seed.zext("i32"))
        quotient = load_values(x, first, self.dtype, lanes) * factor
        code = emit_encode(quotient, self.format.element, rounding=self.rounding, uniform=uniform)
        self._store(code, at)

    def _store(self, code: Val, at: Val) -> None:
        store_codes(code, at, self.format.element.bits if self.packed else 8)


def _e8m0_codes(amax: Val, fmt: ElementFormat, rule: ScaleRule) -> Val:
    """Round the bits of finite float32 magnitudes to a power of two, as `scale_codes` does.

    A carry out of the fraction moves the exponent up: from the first fraction that rounds to two
    (even), or that exceeds the fraction of the largest value (rceil).
    """
    carry = 0
    if rule == ScaleRule.EVEN:
        carry = 1 << (_MANTISSA - 1 - fmt.mantissa_bits)
    elif rule == ScaleRule.RCEIL:
        fraction = math.frexp(fmt.max_value)[0] * 2 - 1
        carry = (1 << _MANTISSA) - 1 - int(fraction * (1 << _MANTISSA))
    if fmt.emax < 1:
        # Elsewhere every subnormal gets code 0, as the plain bits say too.
        normalised = amax.to_float("f32").bits_as("i32") - (_SUBNORMAL_SHIFT << _MANTISSA)
        amax = amax.lt(1 << _MANTISSA).where(normalised, amax)
    exponent = (amax + carry).sar(_MANTISSA) - fmt.emax
    return exponent.minimum("smax", 0).minimum("smin", ELEMENTS["e8m0"].max_code)


@dataclass(frozen=True, kw_only=True)
class DequantizeBlocks:
    """Multiply the elements of each block by `values[scale code]`.

    A code the format does not have sets the flag.
    """

    format: BlockFormat
    packed: bool

    PARAMS: ClassVar[tuple[str, ...]] = ("ptr", "ptr", "ptr", "ptr", "ptr")
    GRAIN: ClassVar[int] = 1

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code; arguments codes, scales, values, flag, result."""
        codes, scales, values, flag, result = args
        fmt, lanes = self.format, self.format.granularity
        assert isinstance(lanes, int)
        with fn.loop(start, end) as block:
            scale = fn.load(scales.offset(block), "i8").zext("i64")
            value = fn.load(values.offset(scale * 4), "f32")
            at = codes.offset(block * _block_bytes(fmt, packed=self.packed))
            code = load_codes(at, fmt.element.bits if self.packed else 8, lanes)
            if fmt.element.bits < 8 and not self.packed:
                flag_wide_codes(code, fmt.element.bits, flag)
            fn.store(decode_exactly(code, fmt.element) * value, result.offset(block * (4 * lanes)))

"""The scale rules: from the largest magnitude of a block (amax) to its scale.

All are exact: no logarithm is computed in floating point. `frexp` splits amax into m x 2^e with
m in [1/2, 1), also when amax is subnormal. A block that holds NaN or infinity has a NaN scale.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from asterope.errors import FormatError
from asterope.formats.element import encode
from asterope.formats.table import BlockFormat, ElementFormat, ScaleRule, element

__all__ = [
    "E8M0_RULES",
    "MIN_GLOBAL_SCALE",
    "amax_scale",
    "e4m3_scale_codes",
    "global_scale_of",
    "scale_codes",
]

Float32s = npt.NDArray[np.float32]
Exponents = npt.NDArray[np.int32]

MIN_GLOBAL_SCALE = 2.0**-117
"""The smallest global scale g for which 1 / (g x 2^-9) is finite in float32 with a bit to spare."""

_E8M0 = element("e8m0")
_E4M3 = element("e4m3")
_MIN_FLOAT32_SCALE = np.float32(element("fp32").min_normal)


def _floor_exponent(amax: Float32s, fmt: ElementFormat) -> Exponents:
    """Return floor(log2(amax)) - emax."""
    exponent: Exponents = np.frexp(amax)[1] - 1 - fmt.emax
    return exponent


def _even_exponent(amax: Float32s, fmt: ElementFormat) -> Exponents:
    """Return floor(log2(amax rounded to the element's mantissa)) - emax."""
    significand, _ = np.frexp(amax)
    steps = np.rint(np.ldexp(significand, fmt.mantissa_bits + 1))
    exponent: Exponents = _floor_exponent(amax, fmt) + (steps == 2 << fmt.mantissa_bits)
    return exponent


def _rceil_exponent(amax: Float32s, fmt: ElementFormat) -> Exponents:
    """Return ceil(log2(amax / max_value)): the smallest scale that clips nothing."""
    significand, _ = np.frexp(amax)
    clips = significand > math.frexp(fmt.max_value)[0]
    exponent: Exponents = _floor_exponent(amax, fmt) + clips
    return exponent


_EXPONENTS = {
    ScaleRule.FLOOR: _floor_exponent,
    ScaleRule.EVEN: _even_exponent,
    ScaleRule.RCEIL: _rceil_exponent,
}
E8M0_RULES = tuple(_EXPONENTS)
"""The rules that give a power of two."""


def scale_codes(
    amax: Float32s, fmt: str | ElementFormat, rule: ScaleRule | str
) -> npt.NDArray[np.uint8]:
    """Return the E8M0 codes of block scales by rule floor, even or rceil; amax is not negative.

    Exponents outside -127..127 are clamped. amax = 0 gives code 0 (2^-127), as torchao and
    compressed-tensors do; NaN or infinity gives 255.

    Source: OCP MX v1.0 section 6.3 (floor); torchao 0.18 ScaleCalculationMode (even, rceil).
    Raises: FormatError if the rule does not give a power of two.
    """
    fmt = element(fmt)
    if rule not in E8M0_RULES:
        raise FormatError(
            f"rule {str(rule)!r} does not give an E8M0 scale",
            where="rule",
            hint=f"use one of {', '.join(E8M0_RULES)}",
        )
    usable = np.isfinite(amax) & (amax > 0)
    exponent = _EXPONENTS[ScaleRule(rule)](np.where(usable, amax, np.float32(1)), fmt)
    codes = np.clip(exponent + _E8M0.bias, 0, _E8M0.max_code)
    codes = np.where(amax == 0, 0, codes)
    return np.where(np.isfinite(amax), codes, _E8M0.nan_code).astype(np.uint8)


def amax_scale(amax: Float32s, fmt: str | ElementFormat) -> Float32s:
    """Return float32 scales amax / max_value, at least 2^-126 so that dividing by them is safe.

    The minimum is also the scale of an all-zero block, for which compressed-tensors 0.20 writes
    2^-23 and torchao 0.18 zero (and so NaN codes).
    """
    with np.errstate(under="ignore"):
        scale = np.maximum(amax / np.float32(element(fmt).max_value), _MIN_FLOAT32_SCALE)
    return np.where(np.isfinite(amax), scale, np.float32(np.nan))


def global_scale_of(amax: float | np.float32, fmt: BlockFormat) -> np.float32:
    """Return the float32 scale of a tensor for the two-level rule: amax / (448 x 6) for NVFP4.

    value = code x block scale x global scale; compressed-tensors stores its reciprocal, modelopt
    stores it as it is. At least `MIN_GLOBAL_SCALE`, which is also what an all-zero tensor gets.
    """
    unit = np.float32(fmt.scale.max_value * fmt.element.max_value)
    with np.errstate(under="ignore"):
        return max(np.float32(amax) / unit, np.float32(MIN_GLOBAL_SCALE))


def e4m3_scale_codes(
    amax: Float32s, fmt: str | ElementFormat, global_scale: float | np.float32 = 1.0
) -> npt.NDArray[np.uint8]:
    """Return E4M3 codes of block scales: amax / max_value / global scale, nearest even.

    The quotient is clamped to [2^-9, 448] first, the smallest and largest positive E4M3, as
    modelopt does. torchao 0.18 clamps at 2^-6; compressed-tensors 0.20 rounds to zero and then
    writes 0.125. An all-zero block gets 2^-9.
    """
    with np.errstate(over="ignore", under="ignore"):
        scale = amax / np.float32(element(fmt).max_value) / np.float32(global_scale)
    clamped = np.clip(scale, np.float32(_E4M3.min_subnormal), np.float32(_E4M3.max_value))
    codes = encode(np.where(np.isfinite(amax), clamped, np.float32(np.nan)), _E4M3)
    return codes.astype(np.uint8)

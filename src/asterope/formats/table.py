"""The tables: one row per element format, one row per block format."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np

from asterope.errors import FormatError

__all__ = [
    "BLOCKS",
    "ELEMENTS",
    "BlockFormat",
    "ElementFormat",
    "ScaleRule",
    "block",
    "element",
]

Specials = Literal["ieee", "nan_only", "fnuz", "finite", "scale", "integer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ElementFormat:
    """Describe how the bits of one number are read.

    `specials` says which codes are not plain numbers:

    - `ieee`: the top exponent holds infinity (fraction 0) and NaN;
    - `nan_only`: exponent and fraction all ones is NaN, there is no infinity;
    - `fnuz`: the code of negative zero is the only NaN, there is no infinity;
    - `finite`: every code is a number;
    - `scale`: unsigned power of two without zero, code 255 is NaN;
    - `integer`: two's complement.

    Source: OCP 8-bit Floating Point (OFP8) v1.0; OCP Microscaling Formats (MX) v1.0 section 5;
    e1m2 is the same rule with one exponent bit and two fraction bits.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Specials
    signed: bool = True

    @property
    def bits(self) -> int:
        """Return the width of one code."""
        return int(self.signed) + self.exponent_bits + self.mantissa_bits

    @property
    def num_codes(self) -> int:
        """Return how many codes there are."""
        return 1 << self.bits

    @property
    def sign_code(self) -> int:
        """Return the code that holds the sign bit alone."""
        return 1 << (self.bits - 1)

    @property
    def max_code(self) -> int:
        """Return the code of the largest finite value; smaller values have smaller codes."""
        if self.specials == "scale":
            return self.num_codes - 2
        if self.specials == "ieee":
            return (((1 << self.exponent_bits) - 1) << self.mantissa_bits) - 1
        return self.sign_code - (2 if self.specials == "nan_only" else 1)

    @property
    def max_value(self) -> float:
        """Return the largest finite value."""
        return self.value(self.max_code)

    @property
    def min_normal(self) -> float:
        """Return the smallest positive value with full precision."""
        if self.specials in ("scale", "integer"):
            return self.min_subnormal
        return math.ldexp(1.0, 1 - self.bias)

    @property
    def min_subnormal(self) -> float:
        """Return the smallest positive value; equal to `min_normal` without subnormals."""
        return self.value(0 if self.specials == "scale" else 1)

    @property
    def emax(self) -> int:
        """Return the exponent of the largest finite value: floor(log2(max_value))."""
        return math.frexp(self.max_value)[1] - 1

    @property
    def has_inf(self) -> bool:
        """Return whether the format has infinities."""
        return self.specials == "ieee"

    @property
    def has_nan(self) -> bool:
        """Return whether the format has a NaN."""
        return self.specials not in ("finite", "integer")

    @property
    def nan_code(self) -> int:
        """Return the code of the (quiet, positive) NaN.

        Raises: FormatError if the format has none.
        """
        if self.specials == "ieee":
            return self.max_code + 1 + (1 << (self.mantissa_bits - 1))
        if self.specials == "fnuz":
            return self.sign_code
        if self.has_nan:
            return self.max_code + 1
        raise FormatError("this format has no NaN", where=self.name)

    @property
    def inf_code(self) -> int:
        """Return the code of positive infinity.

        Raises: FormatError if the format has none.
        """
        if self.has_inf:
            return self.max_code + 1
        raise FormatError("this format has no infinity", where=self.name)

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """Return the smallest unsigned NumPy type that holds one unpacked code."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16 if self.bits <= 16 else np.uint32)

    def value(self, code: int) -> float:
        """Return the number that one code stands for. This is the definition of the format."""
        code = int(code)  # NumPy integers would overflow below
        if not 0 <= code < self.num_codes:
            raise FormatError(
                f"code {code} is outside 0..{self.num_codes - 1}",
                where=self.name,
            )
        if self.specials == "integer":
            return float(code - self.num_codes if code >= self.sign_code else code)
        if self.specials == "scale":
            return math.nan if code > self.max_code else math.ldexp(1.0, code - self.bias)
        if self.specials == "fnuz" and code == self.sign_code:
            return math.nan
        negative, magnitude = divmod(code, self.sign_code)
        if magnitude > self.max_code:
            is_inf = self.has_inf and magnitude == self.max_code + 1
            return (-math.inf if negative else math.inf) if is_inf else math.nan
        exponent, fraction = divmod(magnitude, 1 << self.mantissa_bits)
        significand = fraction if exponent == 0 else fraction + (1 << self.mantissa_bits)
        unit = max(exponent, 1) - self.bias - self.mantissa_bits
        return math.copysign(math.ldexp(significand, unit), -1.0 if negative else 1.0)


class ScaleRule(StrEnum):
    """Name how a block's scale follows from its largest magnitude (amax). See `scale.py`.

    - `floor`: 2^(floor(log2(amax)) - emax), OCP MX v1.0 section 6.3; torchao's default, GGUF;
    - `even`: the same after rounding amax to the element's precision; compressed-tensors
      (mxfp4, mxfp6), AMD Quark;
    - `rceil`: the smallest power of two that clips nothing; cuBLAS, modelopt, TransformerEngine;
    - `amax`: amax / max_value, in the scale's own precision;
    - `two_level`: NVFP4, `amax` per block under one float32 scale per tensor.
    """

    FLOOR = "floor"
    EVEN = "even"
    RCEIL = "rceil"
    AMAX = "amax"
    TWO_LEVEL = "two_level"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockFormat:
    """Describe element codes that share a scale: value = element x scale (x global scale).

    `granularity` says what shares one scale: that many neighbours along the reduction axis,
    a rows x columns block of the last two axes, one row (all of the reduction axis) or the tensor.
    `rules` are the scale rules that apply; the first is the default.
    """

    name: str
    element: ElementFormat
    scale: ElementFormat
    granularity: int | tuple[int, int] | Literal["row", "tensor"]
    rules: tuple[ScaleRule, ...]

    @property
    def default_rule(self) -> ScaleRule:
        """Return the rule used when none is asked for."""
        return self.rules[0]

    @property
    def two_level(self) -> bool:
        """Return whether a float32 scale per tensor can stand above the block scales."""
        return ScaleRule.TWO_LEVEL in self.rules


def _element_row(
    name: str, exponent_bits: int, mantissa_bits: int, bias: int, specials: Specials
) -> ElementFormat:
    return ElementFormat(
        name=name,
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        bias=bias,
        specials=specials,
        signed=specials != "scale",
    )


ELEMENTS: Mapping[str, ElementFormat] = MappingProxyType(
    {
        row.name: row
        for row in (
            _element_row("fp32", 8, 23, 127, "ieee"),
            _element_row("fp16", 5, 10, 15, "ieee"),
            _element_row("bf16", 8, 7, 127, "ieee"),
            _element_row("e4m3", 4, 3, 7, "nan_only"),
            _element_row("e5m2", 5, 2, 15, "ieee"),
            _element_row("e4m3fnuz", 4, 3, 8, "fnuz"),
            _element_row("e5m2fnuz", 5, 2, 16, "fnuz"),
            _element_row("e2m3", 2, 3, 1, "finite"),
            _element_row("e3m2", 3, 2, 3, "finite"),
            _element_row("e2m1", 2, 1, 1, "finite"),
            _element_row("e1m2", 1, 2, 1, "finite"),
            _element_row("e8m0", 8, 0, 127, "scale"),
            _element_row("int8", 0, 7, 0, "integer"),
            _element_row("int4", 0, 3, 0, "integer"),
        )
    }
)

_FLOOR, _EVEN, _RCEIL = ScaleRule.FLOOR, ScaleRule.EVEN, ScaleRule.RCEIL
_AMAX, _TWO_LEVEL = ScaleRule.AMAX, ScaleRule.TWO_LEVEL


def _block_row(
    name: str,
    element_name: str,
    scale_name: str,
    granularity: int | tuple[int, int] | Literal["row", "tensor"],
    *rules: ScaleRule,
) -> BlockFormat:
    return BlockFormat(
        name=name,
        element=ELEMENTS[element_name],
        scale=ELEMENTS[scale_name],
        granularity=granularity,
        rules=rules,
    )


BLOCKS: Mapping[str, BlockFormat] = MappingProxyType(
    {
        row.name: row
        for row in (
            _block_row("mxfp8", "e4m3", "e8m0", 32, _RCEIL, _FLOOR, _EVEN),
            _block_row("mxfp8_e5m2", "e5m2", "e8m0", 32, _RCEIL, _FLOOR, _EVEN),
            _block_row("mxfp6", "e2m3", "e8m0", 32, _EVEN, _FLOOR, _RCEIL),
            _block_row("mxfp6_e3m2", "e3m2", "e8m0", 32, _EVEN, _FLOOR, _RCEIL),
            _block_row("mxfp4", "e2m1", "e8m0", 32, _EVEN, _FLOOR, _RCEIL),
            _block_row("mxfp4_e1m2", "e1m2", "e8m0", 32, _FLOOR, _EVEN, _RCEIL),
            _block_row("nvfp4", "e2m1", "e4m3", 16, _TWO_LEVEL, _AMAX),
            _block_row("fp8_tensor", "e4m3", "fp32", "tensor", _AMAX),
            _block_row("fp8_row", "e4m3", "fp32", "row", _AMAX),
            _block_row("fp8_block128", "e4m3", "fp32", (128, 128), _AMAX),
        )
    }
)

Row = TypeVar("Row", ElementFormat, BlockFormat)


def _look_up(table: Mapping[str, Row], name: str, kind: str) -> Row:
    if name in table:
        return table[name]
    close = difflib.get_close_matches(str(name).lower(), table, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    raise FormatError(
        f"there is no {kind} format named {name!r}",
        hint=f"{guess}the {kind} formats are {', '.join(table)}",
    )


def element(name: str | ElementFormat) -> ElementFormat:
    """Return the element format of that name, or the given format itself.

    Raises: FormatError with the nearest name and the list, if there is none.
    """
    return name if isinstance(name, ElementFormat) else _look_up(ELEMENTS, name, "element")


def block(name: str | BlockFormat) -> BlockFormat:
    """Return the block format of that name, or the given format itself.

    Raises: FormatError with the nearest name and the list, if there is none.
    """
    return name if isinstance(name, BlockFormat) else _look_up(BLOCKS, name, "block")

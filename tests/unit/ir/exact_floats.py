"""Exact arithmetic on fractions, and one rounding at the end: what float ops have to give."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from asterope.ir import Type, dtype_of

__all__ = ["FORMATS", "exact_sqrt", "rounded", "to_float"]

# Bits of precision, smallest normal exponent, largest number, whether larger ones saturate.
FORMATS = {
    "fp64": (53, -1022, Fraction(2) ** 1024 - Fraction(2) ** 971, False),
    "fp32": (24, -126, Fraction(2) ** 128 - Fraction(2) ** 104, False),
    "fp16": (11, -14, Fraction(65504), False),
    "bf16": (8, -126, Fraction(2) ** 128 - Fraction(2) ** 120, False),
    "e5m2": (3, -14, Fraction(57344), True),
    "e4m3": (4, -6, Fraction(448), True),
    "e5m2fnuz": (3, -15, Fraction(57344), True),
    "e4m3fnuz": (4, -7, Fraction(240), True),
}


def rounded(x, elem, *, toward_zero=False):
    """Round a fraction to an element format; returns a Python float, infinite on overflow."""
    precision, least_exponent, largest, saturates = FORMATS[elem]
    if x == 0:
        return 0.0
    size = abs(x)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    place = Fraction(2) ** (max(exponent, least_exponent) - precision + 1)
    steps = size // place if toward_zero else round(size / place)
    value = steps * place
    if value > largest:
        value = largest if saturates or toward_zero else math.inf
    return float(value) if x > 0 else -float(value)


def to_float(elem, values):
    """Make an array of a float element from Python floats that fit it."""
    made = np.array(values, np.float64).astype(dtype_of(Type(elem)))
    for got, wanted in zip(made.astype(np.float64).tolist(), values, strict=True):
        assert got == wanted or (math.isnan(got) and math.isnan(wanted)), (elem, wanted)
    return made


def exact_sqrt(x):
    """Return a square root to 250 bits, and never on a tie where it is irrational."""
    shift = 500 + 2 * x.denominator.bit_length()
    scaled = x * 2**shift
    root = math.isqrt(math.floor(scaled))
    sticky = Fraction(root * root != scaled, 2)
    return (root + sticky) / 2 ** (shift // 2)

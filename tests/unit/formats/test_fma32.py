"""The exact fused multiply-add against rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from asterope.formats import fma32

NUM = 4000


def round_to_float32(x: Fraction) -> float:
    """Round a non-zero rational to float32, nearest even (Python's round of a Fraction)."""
    exponent = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    if Fraction(2) ** exponent > abs(x):
        exponent -= 1
    step = Fraction(2) ** (max(exponent, -126) - 23)
    rounded = round(x / step) * step
    if abs(rounded) >= Fraction(2) ** 128:
        return math.copysign(math.inf, x)
    return math.copysign(float(rounded), x)


def exact(a: float, b: float, c: float) -> float:
    """Return a x b + c of finite values with one rounding."""
    total = Fraction(a) * Fraction(b) + Fraction(c)
    return round_to_float32(total) if total else a * b + c


def random_bits(rng):
    return rng.integers(0, 1 << 32, NUM, dtype=np.uint32).view(np.float32)


def cases(kind):
    rng = np.random.default_rng(12)
    a, b, c = (random_bits(rng) for _ in range(3))
    with np.errstate(all="ignore"):
        if kind == "similar_sizes":
            a, b, c = (rng.standard_normal(NUM).astype(np.float32) for _ in range(3))
        if kind == "cancellation":
            a, b = (rng.standard_normal(NUM).astype(np.float32) for _ in range(2))
            c = -(a * b)
        if kind == "ties_broken_by_the_product":
            c = np.float32(1) + rng.integers(0, 1 << 23, NUM).astype(np.float32) * np.float32(
                2.0**-23
            )
            a = np.float32(2.0**-24) * rng.choice(np.float32([1, 1 + 2.0**-23, 1 - 2.0**-24]), NUM)
            b = rng.choice(np.float32([1, -1, 1 + 2.0**-23, 1 - 2.0**-24]), NUM)
        if kind == "ties_broken_by_the_addend":
            a = np.float32(1) + rng.integers(0, 1 << 11, NUM).astype(np.float32) * np.float32(
                2.0**-12
            )
            b = np.float32(1) + rng.integers(0, 1 << 11, NUM).astype(np.float32) * np.float32(
                2.0**-12
            )
            c = rng.choice(np.float32([2.0**-60, -(2.0**-60), 2.0**-149]), NUM)
        if kind == "subnormal":
            a = (rng.standard_normal(NUM) * 2.0**-70).astype(np.float32)
            b = (rng.standard_normal(NUM) * 2.0**-72).astype(np.float32)
            c = rng.integers(0, 1 << 24, NUM, dtype=np.uint32).view(np.float32)
        if kind == "overflow":
            a = (rng.standard_normal(NUM) * 2.0**63).astype(np.float32)
            b = (rng.standard_normal(NUM) * 2.0**64).astype(np.float32)
            c = (rng.standard_normal(NUM) * 2.0**127).astype(np.float32)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    return a[finite], b[finite], c[finite]


KINDS = [
    "random_bits",
    "similar_sizes",
    "cancellation",
    "ties_broken_by_the_product",
    "ties_broken_by_the_addend",
    "subnormal",
    "overflow",
]


@pytest.mark.parametrize("kind", KINDS)
def test_fma32_equals_rational_arithmetic(kind):
    a, b, c = cases(kind)
    assert a.size > NUM // 2
    expected = np.array([exact(*map(float, abc)) for abc in zip(a, b, c, strict=True)])
    got = fma32(a, b, c)
    np.testing.assert_array_equal(got, expected.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


def test_rounding_through_float64_alone_would_fail_on_these_ties():
    a, b, c = cases("ties_broken_by_the_addend")
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert (twice != fma32(a, b, c)).sum() > 10


def test_infinity_and_nan_follow_ieee():
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    assert fma32(inf, 1, 5) == inf
    assert fma32(inf, -1, 5) == -inf
    assert fma32(3e38, 3e38, -inf) == -inf
    for a, b, c in [(inf, 0, 1), (inf, 1, -inf), (nan, 1, 1), (1, nan, 1), (1, 1, nan)]:
        assert np.isnan(fma32(a, b, c))


def test_zero_signs_follow_ieee():
    results = fma32(np.float32([-0.0, -0.0, 1, -1]), np.float32([1, 1, 1, 1]), [-0.0, 0.0, -1, 1])
    assert np.signbit(results).tolist() == [True, False, False, False]


def test_operands_broadcast():
    column, row = np.ones((3, 1), np.float32), np.ones((1, 4), np.float32)
    assert fma32(column, row, np.float32(1)).tolist() == [[2.0] * 4] * 3

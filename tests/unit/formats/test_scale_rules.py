from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from asterope.errors import FormatError
from asterope.formats import (
    MIN_GLOBAL_SCALE,
    amax_scale,
    block,
    decode,
    e4m3_scale_codes,
    element,
    global_scale_of,
    scale_codes,
)

NAMES = ["e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "e1m2"]


def floor_log2(x: Fraction) -> int:
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= x else exponent - 1


def exact_exponent(amax: Fraction, fmt, rule: str) -> int:
    """Return the exponent of the scale by rational arithmetic, straight from its definition."""
    if rule == "rceil":
        quotient = amax / Fraction(fmt.max_value)
        exponent = floor_log2(quotient)
        return exponent if Fraction(2) ** exponent == quotient else exponent + 1
    if rule == "even":
        step = Fraction(2) ** (floor_log2(amax) - fmt.mantissa_bits)
        amax = round(amax / step) * step
    return floor_log2(amax) - fmt.emax


def amax_probes(fmt):
    """Return positive float32: random bits, and every boundary of every rule one ulp around."""
    bits = np.random.default_rng(4).integers(1, 0x7F800000, 2000, dtype=np.uint32)
    powers = np.exp2(np.arange(-149, 128, dtype=np.float64))
    edges = np.concatenate(
        [powers * m for m in (1.0, fmt.max_value, 2 - 2.0 ** -(fmt.mantissa_bits + 1))]
    )
    edges = edges[edges < 3.4e38].astype(np.float32)
    around = [np.nextafter(edges, np.float32(side)) for side in (0, np.inf)]
    probes = np.concatenate([bits.view(np.float32), edges, *around])
    return np.unique(probes[np.isfinite(probes) & (probes > 0)])


@pytest.mark.parametrize("rule", ["floor", "even", "rceil"])
@pytest.mark.parametrize("name", NAMES)
def test_e8m0_codes_follow_the_rule_exactly_at_every_boundary(name, rule):
    fmt = element(name)
    amax = amax_probes(fmt)
    expected = [exact_exponent(Fraction(float(x)), fmt, rule) + 127 for x in amax]
    np.testing.assert_array_equal(scale_codes(amax, fmt, rule), np.clip(expected, 0, 254))


@pytest.mark.parametrize("name", NAMES)
def test_rceil_clips_nothing_and_half_of_it_would(name):
    fmt = element(name)
    amax = amax_probes(fmt)
    amax = amax[amax.astype(np.float64) <= 2.0**127 * fmt.max_value]
    scale = decode(scale_codes(amax, fmt, "rceil"), "e8m0").astype(np.float64)
    assert (amax <= scale * fmt.max_value).all()
    above_least = scale > 2.0**-127
    assert (amax > scale / 2 * fmt.max_value)[above_least].all()


@pytest.mark.parametrize("rule", ["floor", "even", "rceil"])
def test_zero_nan_and_infinity_have_their_own_codes(rule):
    amax = np.array([0, np.nan, np.inf, 1e-45, 3.4e38], np.float32)
    codes = scale_codes(amax, "e1m2", rule)
    assert codes[:4].tolist() == [0, 255, 255, 0]
    assert 253 <= codes[4] <= 254


def test_the_three_rules_differ_where_they_should():
    amax = np.array([4, 6, 6.5, 7, 7.5], np.float32)
    assert scale_codes(amax, "e2m1", "floor").tolist() == [127, 127, 127, 127, 127]
    assert scale_codes(amax, "e2m1", "even").tolist() == [127, 127, 127, 128, 128]
    assert scale_codes(amax, "e2m1", "rceil").tolist() == [127, 127, 128, 128, 128]


@pytest.mark.parametrize("rule", ["amax", "two_level", "ceil"])
def test_a_rule_that_gives_no_power_of_two_is_refused(rule):
    with pytest.raises(FormatError, match=f"rule: rule '{rule}' does not give an E8M0 scale"):
        scale_codes(np.ones(1, np.float32), "e2m1", rule)


def test_amax_scale_maps_amax_to_the_maximum():
    amax = np.array([448, 1, 0, 1e-45, np.nan, np.inf], np.float32)
    scale = amax_scale(amax, "e4m3")
    assert scale[:2].tolist() == [1, np.float32(1) / np.float32(448)]
    assert scale[2:4].tolist() == [2.0**-126, 2.0**-126]
    assert np.isnan(scale[4:]).all()


def test_global_scale_puts_the_largest_block_scale_at_448():
    nvfp4 = block("nvfp4")
    assert global_scale_of(2688, nvfp4) == 1
    upper = global_scale_of(np.float32(3.7), nvfp4)
    codes = e4m3_scale_codes(np.array([3.7, 3.7 / 448], np.float32), "e2m1", upper)
    assert decode(codes, "e4m3").tolist() == [448, 1]
    assert global_scale_of(0, nvfp4) == MIN_GLOBAL_SCALE


def test_the_least_scales_have_a_finite_reciprocal_in_float32():
    with np.errstate(all="raise"):
        reciprocal = np.float32(1) / np.float32(MIN_GLOBAL_SCALE) / np.float32(2.0**-9)
    assert np.isfinite(reciprocal)


def test_e4m3_block_scales_are_clamped_to_positive_e4m3():
    amax = np.array([0, 1e-30, 6 * 2.0**-9, 6 * 448, 6e30, np.inf, np.nan], np.float32)
    values = decode(e4m3_scale_codes(amax, "e2m1"), "e4m3")
    assert values[:5].tolist() == [2.0**-9, 2.0**-9, 2.0**-9, 448, 448]
    assert np.isnan(values[5:]).all()

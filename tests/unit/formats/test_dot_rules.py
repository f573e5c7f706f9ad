from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import FormatError, ShapeError
from asterope.formats import DOT_RULES, DotRule, decode, dot, dot_rule, encode, fma32

FIXED = settings(deadline=None, derandomize=True)
HOPPER = DOT_RULES["hopper_fp8"]


def operands(seed, m=3, k=70, n=4):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n))]


def e4m3(x):
    return decode(encode(x.astype(np.float32), "e4m3"), "e4m3")


def test_sequential_is_one_chain_of_fma_in_ascending_k():
    a, b, acc = operands(0)
    for i, j in np.ndindex(acc.shape):
        total = acc[i, j]
        for k in range(a.shape[1]):
            total = fma32(a[i, k], b[k, j], total)
        assert dot(a, b, acc, rule="sequential")[i, j] == total


def test_pairs_is_even_and_odd_chains_of_each_chunk_added_to_the_accumulator():
    a, b, acc = operands(1)
    for i, j in np.ndindex(acc.shape):
        total = acc[i, j]
        for start in range(0, a.shape[1], 32):
            chains = [np.float32(0), np.float32(0)]
            for k in range(start, min(start + 32, a.shape[1])):
                chains[k % 2] = fma32(a[i, k], b[k, j], chains[k % 2])
            total = total + (chains[0] + chains[1])
        assert dot(a, b, acc, rule="pairs")[i, j] == total


def test_orders_give_different_bits():
    a, b, acc = operands(2, k=512)
    results = {name: dot(a, b, acc, rule=name).tobytes() for name in DOT_RULES}
    assert len(set(results.values())) == len(DOT_RULES)


@FIXED
@given(st.integers(0, 2**32 - 1), st.sampled_from(["sequential", "pairs", "blackwell_fp8"]))
def test_small_integers_are_summed_exactly_in_any_order(seed, rule):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-8, 9, (3, 70)), rng.integers(-8, 9, (70, 2))
    got = dot(a.astype(np.float32), b.astype(np.float32), rule=rule)
    np.testing.assert_array_equal(got, a @ b)


@pytest.mark.parametrize("rule", DOT_RULES)
def test_no_products_leave_the_accumulator(rule):
    acc = np.array([[1.5, -0.0]], np.float32)
    got = dot(np.zeros((1, 0), np.float32), np.zeros((0, 2), np.float32), acc, rule=rule)
    np.testing.assert_array_equal(got.view(np.uint32), acc.view(np.uint32))


@pytest.mark.parametrize("rule", DOT_RULES)
def test_infinity_and_nan_reach_the_result(rule):
    a = np.ones((4, 64), np.float32)
    a[0, 3], a[1, 40], a[2, 3], a[2, 4] = np.inf, np.nan, np.inf, -np.inf
    got = dot(a, np.ones((64, 1), np.float32), rule=rule).ravel()
    assert got[0] == np.inf
    assert np.isnan(got[1:3]).all()
    assert got[3] == 64


def truncate(x: Fraction, step: Fraction) -> Fraction:
    return int(x / step) * step  # int() drops the fraction of either sign


def exponent_of(x: Fraction, least: int) -> int:
    """Return floor(log2(|x|)), at least `least`."""
    exponent = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    return max(exponent if Fraction(2) ** exponent <= abs(x) else exponent - 1, least)


def aligned_chunk(a, b, acc, fraction_bits, mantissa_bits, emin):
    """Add one chunk with rational arithmetic, straight from the description."""
    terms = [(Fraction(acc), exponent_of(Fraction(acc), -126))] if acc else []
    for x, y in zip(map(Fraction, a), map(Fraction, b), strict=True):
        if x * y:
            terms.append((x * y, exponent_of(x, emin) + exponent_of(y, emin)))
    if not terms:
        return 0.0
    step = Fraction(2) ** (max(exponent for _, exponent in terms) - fraction_bits)
    total = sum(truncate(value, step) for value, _ in terms)
    if not total:
        return 0.0
    return float(truncate(total, Fraction(2) ** (exponent_of(total, -126) - mantissa_bits)))


@pytest.mark.parametrize(("rule", "mantissa_bits"), [("hopper_fp8", 13), ("blackwell_fp8", 23)])
@pytest.mark.parametrize("size", [1, 2.0**-7, 2.0**-9])
def test_aligned_equals_rational_arithmetic_also_on_subnormal_operands(rule, mantissa_bits, size):
    rng = np.random.default_rng(3)
    a, b = e4m3(rng.standard_normal((4, 80)) * size), e4m3(rng.standard_normal((80, 3)))
    acc = np.float32(size) * rng.standard_normal((4, 3)).astype(np.float32)
    got = dot(a, b, acc, rule=rule)
    for i, j in np.ndindex(got.shape):
        total = float(acc[i, j])
        for start in range(0, 80, 32):
            chunk = slice(start, start + 32)
            total = aligned_chunk(
                map(float, a[i, chunk]), map(float, b[chunk, j]), total,
                DOT_RULES[rule].fraction_bits, mantissa_bits, -6,
            )  # fmt: skip
        assert got[i, j] == total


def test_a_product_below_the_kept_bits_is_lost_and_the_result_has_14_bits():
    a = np.array([[256, 2.0**-6, 2.0**-5]], np.float32)
    b = np.ones((3, 1), np.float32)
    assert dot(a, b, rule=HOPPER) == 256 + 2.0**-5
    assert dot(a, b, rule="sequential") == 256 + 2.0**-5 + 2.0**-6
    assert dot(np.float32([[1]]), np.float32([[0]]), np.float32([[1 + 2.0**-14]]), rule=HOPPER) == 1


def relative_bias(rule, seed=0, k=4096):
    rng = np.random.default_rng(seed)
    a, b = e4m3(np.abs(rng.standard_normal((8, k)))), e4m3(np.abs(rng.standard_normal((k, 8))))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    return ((dot(a, b, rule=rule) - exact) / exact).mean()


def test_hopper_loses_seven_percent_of_positive_sums_and_promotion_repairs_it():
    """Compare with DeepSeek-V3 section 3.5.2 and the MMA-Sim model at K = 4096."""
    assert -0.09 < relative_bias("hopper_fp8") < -0.05
    assert -0.0012 < relative_bias("hopper_fp8_promoted") < -0.0003
    assert -4e-6 < relative_bias("blackwell_fp8") < 0


def test_promotion_adds_each_span_to_a_float32_accumulator():
    a, b, acc = operands(4, k=300)
    total = acc
    for start in range(0, 300, 128):
        total = total + dot(a[:, start : start + 128], b[start : start + 128], rule=HOPPER)
    np.testing.assert_array_equal(dot(a, b, acc, rule="hopper_fp8_promoted"), total)


def test_rules_are_frozen_values():
    assert DotRule(order="pairs") == DOT_RULES["pairs"]
    assert dot_rule(HOPPER) is HOPPER
    with pytest.raises(dataclasses.FrozenInstanceError):
        HOPPER.chunk = 16


def test_unknown_rule_gets_the_list():
    with pytest.raises(
        FormatError, match="no dot rule named 'amx'\nhint: the rules are sequential,"
    ):
        dot_rule("amx")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "random"}, "order: there is no dot order named 'random'"),
        ({"order": "pairs", "chunk": 0}, "chunk: a chunk of 0 products is empty"),
        ({"order": "pairs", "accumulate": "fp16"}, "accumulate: no accumulator format 'fp16'"),
        ({"order": "aligned"}, "fraction_bits: the aligned order needs fraction_bits"),
        ({"order": "pairs", "fraction_bits": 13}, "fraction_bits: the aligned order needs"),
        ({"order": "pairs", "accumulate": "e8m13"}, "pairs: only the aligned order has these"),
        (
            {"order": "aligned", "fraction_bits": 13, "promote_every": 100},
            "promote_every: 100 is not a multiple of the chunk of 32",
        ),
    ],
)
def test_rules_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(FormatError, match=message):
        DotRule(**fields)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3), (4, 5), (2, 5)), r"dot: a \[2, 3\] and b \[4, 5\] are not \[M, K\] and \[K, N\]"),
        (((3,), (3, 5), (1, 5)), r"dot: a \[3\] and b \[3, 5\] are not"),
        (((2, 3), (3, 5), (5, 2)), r"dot: acc is \[5, 2\], not \[2, 5\]"),
    ],
)
def test_operands_that_do_not_match_are_refused(shapes, message):
    a, b, acc = (np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(ShapeError, match=message):
        dot(a, b, acc)


def test_codes_are_refused_as_operands():
    with pytest.raises(FormatError, match="b: values are uint8"):
        dot(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.uint8))

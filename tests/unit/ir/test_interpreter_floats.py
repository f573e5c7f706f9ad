from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from exact_floats import FORMATS, exact_sqrt, rounded, to_float
from one_op import array_of, run_op

from asterope.ir import FLOATS, Type, dtype_of
from ir_builder import Writer, interpreted

INF, NAN = math.inf, math.nan


def numbers(elem, seed, count=40):
    """Finite values of a format: zeros, the smallest, the largest, and random codes."""
    dtype = dtype_of(Type(elem))
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, 4 * count * dtype.itemsize, dtype=np.uint8).view(dtype)
    usual = rng.standard_normal(count).astype(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs among the codes
        found = np.concatenate([usual, raw]).astype(np.float64)
    found = found[np.isfinite(found)][: 2 * count].tolist()
    precision, least, largest, _ = FORMATS[elem]
    edges = [1.0, -3.0, float(largest), -float(largest), 2.0**least, 2.0 ** (least - precision + 1)]
    return [0.0, *edges, *found]


def negative_zero(elem):
    return [] if "fnuz" in elem else [-0.0]


def assert_same(elem, got, expected):
    """Compare values and the signs of zeros; NaN equals NaN."""
    expected = to_float(elem, expected)
    wide, wanted = got.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(wide, wanted)
    compared = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(wide)[compared], np.signbit(wanted)[compared])


def with_sign(value, exact, negative, elem):
    """Give a rounded zero its sign: that of a tiny result, or of an exact zero."""
    if value or "fnuz" in elem:
        return abs(value) if value == 0 else value
    return -0.0 if (exact < 0 or (exact == 0 and negative)) else 0.0


def pairs(elem):
    a = numbers(elem, 1)
    b = numbers(elem, 2)
    random.Random(3).shuffle(b)
    edges = [*a[:7], *negative_zero(elem)]
    found = [*itertools.product(edges, edges), *zip(a, b, strict=False)]
    return [p[0] for p in found], [p[1] for p in found]


def is_negative(x):
    return math.copysign(1.0, x) < 0


@pytest.mark.parametrize("elem", FLOATS)
def test_sum_difference_and_product_are_rounded_once(elem):
    a, b = pairs(elem)
    sums, differences, products = [], [], []
    for x, y in zip(a, b, strict=True):
        fx, fy = Fraction(x), Fraction(y)
        both = is_negative(x) and is_negative(y)
        sums.append(with_sign(rounded(fx + fy, elem), fx + fy, both, elem))
        opposite = is_negative(x) and not is_negative(y)
        differences.append(with_sign(rounded(fx - fy, elem), fx - fy, opposite, elem))
        unlike = is_negative(x) != is_negative(y)
        products.append(with_sign(rounded(fx * fy, elem), fx * fy, unlike, elem))
    left, right = (elem, to_float(elem, a)), (elem, to_float(elem, b))
    assert_same(elem, run_op("fadd", left, right), sums)
    assert_same(elem, run_op("fsub", left, right), differences)
    assert_same(elem, run_op("fmul", left, right), products)


@pytest.mark.parametrize("elem", FLOATS)
def test_quotient_and_root_are_rounded_once(elem):
    a, b = pairs(elem)
    kept = [(x, y) for x, y in zip(a, b, strict=True) if y != 0]
    expected = [
        with_sign(
            rounded(Fraction(x) / Fraction(y), elem), Fraction(x) / Fraction(y),
            is_negative(x) != is_negative(y), elem,
        )
        for x, y in kept
    ]  # fmt: skip
    left, right = to_float(elem, [x for x, _ in kept]), to_float(elem, [y for _, y in kept])
    assert_same(elem, run_op("fdiv", (elem, left), (elem, right)), expected)
    positive = [x for x in numbers(elem, 4) if x > 0]
    roots = [rounded(exact_sqrt(Fraction(x)), elem) for x in positive]
    assert_same(elem, run_op("sqrt", (elem, to_float(elem, positive))), roots)


@pytest.mark.parametrize("elem", FLOATS)
def test_remainder_is_exact_and_has_the_dividends_sign(elem):
    a, b = pairs(elem)
    kept = [(x, y) for x, y in zip(a, b, strict=True) if y != 0]
    expected = []
    for x, y in kept:
        fx, fy = Fraction(x), Fraction(y)
        rest = fx - fy * math.trunc(fx / fy)
        expected.append(with_sign(rounded(rest, elem), rest, is_negative(x), elem))
    left, right = to_float(elem, [x for x, _ in kept]), to_float(elem, [y for _, y in kept])
    assert_same(elem, run_op("frem", (elem, left), (elem, right)), expected)


@pytest.mark.parametrize("elem", FLOATS)
def test_fma_is_rounded_once_to_fp32_or_fp64_and_then_to_narrow_formats(elem):
    a, b = pairs(elem)
    c = numbers(elem, 5) * 4
    found = list(zip(a, b, c, strict=False))
    wide = elem if elem in ("fp32", "fp64") else "fp32"
    expected = []
    for x, y, z in found:
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        first = rounded(exact, wide)
        expected.append(
            rounded(Fraction(first), elem) if math.isfinite(first)
            else first if not FORMATS[elem][3] else math.copysign(float(FORMATS[elem][2]), first)
        )  # fmt: skip
    columns = [(elem, to_float(elem, list(column))) for column in zip(*found, strict=True)]
    got = run_op("fma", *columns).astype(np.float64)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("elem", ["fp16", "bf16", "fp32", "fp64"])
def test_infinities_and_nan_follow_ieee_754(elem):
    specials = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN]
    a, b = zip(*itertools.product(specials, specials), strict=True)
    x, y = np.array(a), np.array(b)
    with np.errstate(all="ignore"):
        expected = {"fadd": x + y, "fsub": x - y, "fmul": x * y, "fdiv": x / y}
        expected["frem"] = np.fmod(x, y)
    operands = (elem, to_float(elem, list(a))), (elem, to_float(elem, list(b)))
    for name, values in expected.items():
        assert_same(elem, run_op(name, *operands), values.tolist())


@pytest.mark.parametrize("elem", ["e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz"])
def test_arithmetic_in_fp8_saturates(elem):
    largest = float(FORMATS[elem][2])
    x = to_float(elem, [largest, -largest, largest])
    two = to_float(elem, [2.0, 2.0, -2.0])
    assert_same(elem, run_op("fmul", (elem, x), (elem, two)), [largest, -largest, -largest])
    zero = to_float(elem, [0.0, 0.0, 0.0])
    assert_same(elem, run_op("fdiv", (elem, x), (elem, zero)), [largest, -largest, largest])


@pytest.mark.parametrize("elem", FLOATS)
def test_of_a_number_and_nan_fmin_takes_the_number_and_fminimum_the_nan(elem):
    a = [1.0, NAN, NAN, 2.0, -1.0, 3.0]
    b = [NAN, 1.0, NAN, 1.0, 1.0, 3.0]
    operands = (elem, to_float(elem, a)), (elem, to_float(elem, b))
    assert_same(elem, run_op("fmin", *operands), [1.0, 1.0, NAN, 1.0, -1.0, 3.0])
    assert_same(elem, run_op("fmax", *operands), [1.0, 1.0, NAN, 2.0, 1.0, 3.0])
    assert_same(elem, run_op("fminimum", *operands), [NAN, NAN, NAN, 1.0, -1.0, 3.0])
    assert_same(elem, run_op("fmaximum", *operands), [NAN, NAN, NAN, 2.0, 1.0, 3.0])


@pytest.mark.parametrize("elem", ["fp32", "fp64"])
def test_fma_adds_an_infinity_to_a_product_that_is_too_large_for_the_format(elem):
    largest = float(FORMATS[elem][2])
    operands = [
        (elem, array_of(elem, v)) for v in ([largest, largest], [-largest, 2.0], [INF, -INF])
    ]
    assert_same(elem, run_op("fma", *operands), [INF, -INF])


@pytest.mark.parametrize("name", ["fmin", "fmax", "fminimum", "fmaximum"])
def test_of_two_zeros_the_first_is_taken(name):
    got = run_op(
        name, ("fp32", to_float("fp32", [0.0, -0.0])), ("fp32", to_float("fp32", [-0.0, 0.0]))
    )
    assert np.signbit(got).tolist() == [False, True]


@pytest.mark.parametrize("elem", FLOATS)
def test_sign_operations_touch_only_the_sign(elem):
    specials = [NAN] if elem in ("e4m3", "e4m3fnuz", "e5m2fnuz") else [NAN, INF, -INF]
    x = [*numbers(elem, 6), *negative_zero(elem), *specials]
    keep_zero = "fnuz" in elem
    assert_same(
        elem,
        run_op("fneg", (elem, to_float(elem, x))),
        [0.0 if keep_zero and v == 0 else -v for v in x],
    )
    assert_same(elem, run_op("abs", (elem, to_float(elem, x))), [abs(v) for v in x])


def halves_to_even(x):
    return float(round(Fraction(x))) if math.isfinite(x) else x


@pytest.mark.parametrize("elem", FLOATS)
def test_rounding_to_integers_goes_down_up_to_zero_and_to_even(elem):
    x = [v for v in numbers(elem, 7) if abs(v) < 2.0**60]
    x += [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.25, -0.25, 3.5, *negative_zero(elem)]

    def expected(f):
        made = [float(f(v)) for v in x]
        return [abs(m) if m == 0 and "fnuz" in elem else math.copysign(m, v)
                for m, v in zip(made, x, strict=True)]  # fmt: skip

    for name, f in (("floor", math.floor), ("ceil", math.ceil), ("trunc", math.trunc)):
        assert_same(elem, run_op(name, (elem, to_float(elem, x))), expected(f))
    assert_same(elem, run_op("rint", (elem, to_float(elem, x))), expected(halves_to_even))


FUNCTIONS = {
    "exp": math.exp, "exp2": math.exp2, "log": math.log, "log2": math.log2, "log10": math.log10,
    "log1p": math.log1p, "expm1": math.expm1, "sin": math.sin, "cos": math.cos,
    "tanh": math.tanh, "erf": math.erf, "rsqrt": lambda v: 1 / math.sqrt(v),
}  # fmt: skip


@pytest.mark.parametrize("elem", FLOATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_rounded_from_the_true_value(name, elem):
    dtype = dtype_of(Type(elem))
    x = np.abs(np.random.default_rng(8).standard_normal(64)).astype(dtype)
    x = x[x.astype(np.float64) > 0]
    true = [FUNCTIONS[name](v) for v in x.astype(np.float64).tolist()]
    got = run_op(name, (elem, x)).astype(np.float64)
    precision, least, _, _ = FORMATS[elem]
    for value, exact in zip(got.tolist(), true, strict=True):
        place = 2.0 ** (max(math.frexp(exact)[1] - 1, least) - precision + 1)
        allowed = 0.5 + 1e-4 if elem != "fp64" else 2
        assert abs(value - exact) <= allowed * place, (name, elem, value, exact)


ORDERED = {
    "oeq": lambda a, b: a == b, "one": lambda a, b: a != b, "olt": lambda a, b: a < b,
    "ole": lambda a, b: a <= b, "ogt": lambda a, b: a > b, "oge": lambda a, b: a >= b,
    "ord": lambda a, b: True,
}  # fmt: skip
UNORDERED = {"ueq": "oeq", "une": "one", "ult": "olt", "ule": "ole", "ugt": "ogt", "uge": "oge"}


@pytest.mark.parametrize("elem", FLOATS)
def test_ordered_comparisons_are_false_on_nan_and_unordered_ones_true(elem):
    values = [0.0, 1.0, -2.0, NAN, *negative_zero(elem)]
    a, b = zip(*itertools.product(values, values), strict=True)
    operands = (elem, to_float(elem, list(a))), (elem, to_float(elem, list(b)))
    nan = [math.isnan(x) or math.isnan(y) for x, y in zip(a, b, strict=True)]

    def run(pred):
        return run_op("fcmp", *operands, to=Type("i1", (len(a),)), pred=pred).tolist()

    for pred, holds in ORDERED.items():
        expected = [holds(x, y) and not n for x, y, n in zip(a, b, nan, strict=True)]
        assert run(pred) == expected, pred
    for pred, ordered in UNORDERED.items():
        expected = [ORDERED[ordered](x, y) or n for x, y, n in zip(a, b, nan, strict=True)]
        assert run(pred) == expected, pred
    assert run("uno") == nan


# -- conversions ----------------------------------------------------------------------------------
WITHOUT_FP64 = [elem for elem in FLOATS if elem != "fp64"]


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(WITHOUT_FP64, 2)))
def test_float_to_float_rounds_to_nearest_even_or_to_zero(source, target):
    x = numbers(source, 9)
    for options, toward_zero in (({}, False), ({"rounding": "toward_zero"}, True)):
        got = run_op(
            "convert",
            (source, to_float(source, x)),
            to=Type(target, (len(x),)),
            how="float",
            **options,
        )
        expected = [rounded(Fraction(v), target, toward_zero=toward_zero) for v in x]
        np.testing.assert_array_equal(got.astype(np.float64), expected, err_msg=str(options))


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("options", [{}, {"rounding": "toward_zero"}], ids=["nearest", "to zero"])
def test_nan_stays_nan_and_infinity_saturates_only_in_fp8(target, options):
    x = to_float("fp32", [INF, -INF, NAN])
    got = run_op("convert", ("fp32", x), to=Type(target, (3,)), how="float", **options)
    largest = float(FORMATS[target][2]) if FORMATS[target][3] else INF
    assert_same(target, got, [largest, -largest, NAN])


def test_fp64_to_fp32_toward_zero_never_grows():
    x = np.random.default_rng(10).standard_normal(64)
    got = run_op(
        "convert", ("fp64", x), to=Type("fp32", (64,)), how="float", rounding="toward_zero"
    )
    expected = [rounded(Fraction(v), "fp32", toward_zero=True) for v in x.tolist()]
    np.testing.assert_array_equal(got.astype(np.float64), expected)


@pytest.mark.parametrize("elem", ["i1", "i8", "i16", "i32", "i64"])
@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("how", ["from_signed", "from_unsigned"])
def test_integer_to_float_is_rounded_to_fp32_and_then_to_narrower_formats(how, target, elem):
    bits = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64}[elem]
    rng = random.Random(11)
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    x = [least, most, 0, *(rng.randint(least, most) >> rng.randrange(bits) for _ in range(60))]
    # Just above the middle of two neighbours: rounding to fp32 first makes it a tie.
    x += [v for v in (2**25 + 2**17 + 1, 2**40 + 2**32 + 1, 2**40 + 2**16 + 1) if v <= most]
    array = np.array([v != 0 for v in x]) if elem == "i1" else array_of(elem, x)
    numbers_ = [v if how == "from_signed" else v % 2**bits for v in x]
    got = run_op("convert", (elem, array), to=Type(target, (len(x),)), how=how)
    first = "fp64" if target == "fp64" else "fp32"
    expected = [rounded(Fraction(rounded(Fraction(v), first)), target) for v in numbers_]
    np.testing.assert_array_equal(got.astype(np.float64), expected)


@pytest.mark.parametrize("elem", FLOATS)
@pytest.mark.parametrize("number", [0.1, 1e-3, 300.0, 1e9, -1e9, 464.0, 465.0, INF, -INF, NAN])
def test_constants_are_rounded_like_results(number, elem):
    writer = Writer(y=f"ptr<{elem}>")
    writer.store("y", writer.const(elem, number))
    (out,) = interpreted(writer.done(), [np.zeros(1, dtype_of(Type(elem)))])
    largest = float(FORMATS[elem][2]) if FORMATS[elem][3] else INF
    expected = number if math.isnan(number) else math.copysign(largest, number)
    if math.isfinite(number):
        expected = rounded(Fraction(number), elem)
    assert_same(elem, out, [expected])

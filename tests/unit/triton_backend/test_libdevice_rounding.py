"""libdevice's arithmetic and conversions with a stated rounding, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from extern_call import call

ROUNDINGS = ("rn", "rz", "rd", "ru")
DTYPES = {"f": np.float32, "d": np.float64}
EXACT = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}  # fmt: skip


def numbers(dtype, seed, count=96):
    """Return finite numbers, some with far exponents, none zero."""
    rng = np.random.default_rng(seed)
    near = rng.standard_normal(count)
    far = np.exp2(rng.uniform(-140, 126, count)) * rng.choice([-1, 1], count)
    return np.where(rng.random(count) < 0.7, near, far).astype(dtype)


def as_fraction(value):
    """Return a float as a fraction, infinities as numbers beyond every float."""
    if math.isfinite(value):
        return Fraction(float(value))
    return Fraction(2) ** 1100 * (1 if value > 0 else -1)


def assert_rounded(got, exacts, rounding):
    """Assert that each float is the one beside an exact value that the rounding asks for."""
    infinity = got.dtype.type(np.inf)
    with np.errstate(over="ignore"):
        lower, upper = np.nextafter(got, -infinity), np.nextafter(got, infinity)
    for *values, exact in zip(lower, got, upper, exacts, strict=True):
        below, here, above = map(as_fraction, values)
        side = ("rd" if exact > 0 else "ru") if rounding == "rz" else rounding
        if side == "rn":
            beyond = math.isinf(values[1])
            assert beyond or abs(here - exact) <= min(abs(below - exact), abs(above - exact))
        else:
            assert here <= exact < above if side == "rd" else below < exact <= here


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("letter", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_arithmetic_gives_the_neighbour_asked_for(name, letter, rounding):
    a, b = (numbers(DTYPES[letter], s) for s in (1, 2))
    with np.errstate(all="ignore"):
        got = call(f"__nv_{letter}{name}_{rounding}", a, b)
    exact = [EXACT[name](Fraction(float(x)), Fraction(float(y))) for x, y in zip(a, b, strict=True)]
    assert_rounded(got, exact, rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("name", "dtype"), [("fmaf", np.float32), ("fma", np.float64)])
def test_fused_multiply_add_is_rounded_once(name, dtype, rounding):
    a, b, c = (numbers(dtype, s) for s in (3, 4, 5))
    got = call(f"__nv_{name}_{rounding}", a, b, c)
    exact = [
        Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        for x, y, z in zip(a, b, c, strict=True)
    ]
    assert_rounded(got, exact, rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("letter", DTYPES)
def test_square_roots_and_reciprocals(letter, rounding):
    x = np.abs(numbers(DTYPES[letter], 6))
    root = call(f"__nv_{letter}sqrt_{rounding}", x)
    # Squares keep the order of square roots; the exact root is compared through them.
    up, down = (np.nextafter(root, DTYPES[letter](s * np.inf)) for s in (1, -1))
    for r, above, below, value in zip(root, up, down, x, strict=True):
        squares = [Fraction(float(v)) ** 2 for v in (below, r, above)]
        exact = Fraction(float(value))
        assert squares[0] < exact < squares[2]
        assert {"rn": True, "ru": squares[1] >= exact}.get(rounding, squares[1] <= exact)
    reciprocal = call(f"__nv_{letter}rcp_{rounding}", x)
    assert_rounded(reciprocal, [1 / Fraction(float(v)) for v in x], rounding)


@pytest.mark.parametrize("letter", DTYPES)
def test_what_cancels_is_minus_zero_only_downward(letter):
    x = np.array([1.5, 0.0, -0.0, 0.0], DTYPES[letter])
    y = np.array([-1.5, -0.0, -0.0, 0.0], DTYPES[letter])
    signs = [np.signbit(call(f"__nv_{letter}add_{r}", x, y)).tolist() for r in ("rd", "ru", "rz")]
    assert signs[0] == [True, True, True, False]
    assert signs[1] == signs[2] == [False, False, True, False]


@pytest.mark.parametrize("letter", DTYPES)
def test_overflow_stops_at_the_largest_number_toward_zero(letter):
    largest = np.finfo(DTYPES[letter]).max
    x = np.array([largest, -largest, np.inf, np.nan], DTYPES[letter])
    got = {r: call(f"__nv_{letter}mul_{r}", x, np.full(4, 2, x.dtype)).tolist()
           for r in ("rz", "rd", "ru")}  # fmt: skip
    assert got["rz"][:3] == [largest, -largest, np.inf]
    assert got["rd"][:3] == [largest, -np.inf, np.inf]
    assert got["ru"][:3] == [np.inf, -largest, np.inf]
    assert all(math.isnan(v[3]) for v in got.values())


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_double_to_float(rounding):
    x = np.concatenate([numbers(np.float64, 7), [1e-50, -1e-50, 1e300, -1e300, 1 / 3, 2.0]])
    got = call(f"__nv_double2float_{rounding}", x)
    assert_rounded(got, [Fraction(float(v)) for v in x], rounding)


WHOLE = {"rn": round, "rz": math.trunc, "rd": math.floor, "ru": math.ceil}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("target", ["int", "uint", "ll", "ull"])
@pytest.mark.parametrize("source", ["float", "double"])
def test_floats_to_integers_saturate(source, target, rounding):
    width = 32 if "int" in target else 64
    low, high = (
        (0, 2**width - 1) if target[0] == "u" else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    )
    x = np.array(
        [
            0.5,
            1.5,
            -0.5,
            -2.75,
            2.5,
            1e6 + 0.5,
            1e30,
            -1e30,
            2.0**31,
            2.0**63,
            -0.0,
            np.inf,
            -np.inf,
        ],
        np.float32 if source == "float" else np.float64,
    )
    got = call(f"__nv_{source}2{target}_{rounding}", x)
    finite = [v if math.isfinite(v) else math.copysign(1e300, v) for v in x.tolist()]
    expected = [min(max(WHOLE[rounding](v), low), high) for v in finite]
    assert [int(v) % 2**width for v in got] == [v % 2**width for v in expected]
    (nan,) = call(f"__nv_{source}2{target}_{rounding}", np.array([np.nan], x.dtype))
    assert nan == (0 if source == "float" and width == 32 else -(2 ** (width - 1)))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    ("source", "dtype"), [("int", "i4"), ("uint", "u4"), ("ll", "i8"), ("ull", "u8")]
)
@pytest.mark.parametrize("target", ["float", "double"])
def test_integers_to_floats(target, source, dtype, rounding):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(8)
    x = np.concatenate([
        np.array([0, 1, info.max, info.min, info.max - 1, 2**24 + 1, 2**31 - 65], dtype),
        rng.integers(info.min, info.max, 40, dtype),
    ])  # fmt: skip
    got = call(f"__nv_{source}2{target}_{rounding}", x)
    assert not np.signbit(got[0])
    assert_rounded(got[1:], [Fraction(int(v)) for v in x[1:]], rounding)

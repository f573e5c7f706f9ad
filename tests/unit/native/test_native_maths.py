from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from native_call import lanewise

from asterope.native import FUNCTIONS, apply_function, available_isas

ISAS = available_isas()
EXACT = {
    "sqrt": np.sqrt, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "rint": np.rint,
}  # fmt: skip
TRUE = {
    "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "expm1": np.expm1, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]), "rsqrt": lambda x: 1 / np.sqrt(x),
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]), "cbrt": np.cbrt,
    "rcbrt": lambda x: 1 / np.cbrt(x), "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh,
}  # fmt: skip
HALF_ULP = (
    "log10", "log1p", "expm1", "erf", "erfc", "cbrt", "rcbrt", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "asinh", "acosh", "atanh",
)  # fmt: skip
GAMMA_AND_BESSEL = ("lgamma", "tgamma", "j0", "j1", "y0", "y1")
LIBRARY = {
    "exp": math.exp, "exp2": math.exp2, "log": math.log, "log2": math.log2, "log10": math.log10,
    "log1p": math.log1p, "expm1": math.expm1, "sin": math.sin, "cos": math.cos,
    "tanh": math.tanh, "erf": math.erf, "erfc": math.erfc, "tan": math.tan, "atan": math.atan,
    "sinh": math.sinh, "cosh": math.cosh, "asinh": math.asinh,
}  # fmt: skip
INF, NAN = np.inf, np.nan
SPECIALS = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (NAN, NAN), (89.0, INF)],
    "exp2": [(0.0, 1.0), (10.0, 1024.0), (INF, INF), (-INF, 0.0), (NAN, NAN), (-149.0, 1e-45)],
    "log": [(1.0, 0.0), (0.0, -INF), (-0.0, -INF), (-1.0, NAN), (INF, INF), (NAN, NAN)],
    "log2": [(1.0, 0.0), (8.0, 3.0), (0.0, -INF), (-INF, NAN), (INF, INF), (1e-45, -149.0)],
    "log10": [(1.0, 0.0), (1000.0, 3.0), (0.0, -INF), (-1.0, NAN), (INF, INF), (NAN, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (-2.0, NAN), (INF, INF), (NAN, NAN)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (-INF, -1.0), (INF, INF), (NAN, NAN)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN), (1e-45, 1e-45)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN), (NAN, NAN), (1e-45, 1.0)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (NAN, NAN), (-40.0, -1.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (NAN, NAN)],
    "erfc": [(0.0, 1.0), (INF, 0.0), (-INF, 2.0), (NAN, NAN), (-40.0, 2.0), (40.0, 0.0)],
    "cbrt": [(27.0, 3.0), (-8.0, -2.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (NAN, NAN)],
    "rcbrt": [(27.0, 1 / 3), (-8.0, -0.5), (-0.0, -INF), (INF, 0.0), (-INF, -0.0), (NAN, NAN)],
    "tan": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1.0, math.pi / 2), (2.0, NAN), (-INF, NAN), (NAN, NAN)],
    "acos": [(1.0, 0.0), (-1.0, math.pi), (0.0, math.pi / 2), (-2.0, NAN), (NAN, NAN)],
    "atan": [(-0.0, -0.0), (INF, math.pi / 2), (-INF, -math.pi / 2), (1.0, math.pi / 4)],
    "sinh": [(-0.0, -0.0), (INF, INF), (-INF, -INF), (NAN, NAN), (800.0, INF)],
    "cosh": [(-0.0, 1.0), (INF, INF), (-INF, INF), (NAN, NAN), (-800.0, INF)],
    "asinh": [(-0.0, -0.0), (INF, INF), (-INF, -INF), (NAN, NAN)],
    "acosh": [(1.0, 0.0), (0.5, NAN), (-2.0, NAN), (-INF, NAN), (INF, INF), (NAN, NAN)],
    "atanh": [(-0.0, -0.0), (1.0, INF), (-1.0, -INF), (2.0, NAN), (-INF, NAN), (NAN, NAN)],
    "lgamma": [(1.0, 0.0), (0.0, INF), (-3.0, INF), (INF, INF), (NAN, NAN)],
    "tgamma": [(5.0, 24.0), (-0.0, -INF), (-3.0, NAN), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "y0": [(0.0, -INF), (-1.0, NAN), (INF, 0.0), (NAN, NAN)],
    "rsqrt": [(4.0, 0.5), (0.0, INF), (-0.0, -INF), (INF, 0.0), (-1.0, NAN), (NAN, NAN)],
}


def every_exponent(seed, per_exponent=256):
    """Float32 of both signs with each of the 255 finite exponents, subnormals among them."""
    rng = np.random.default_rng(seed)
    exponents = np.repeat(np.arange(255, dtype=np.uint32), per_exponent)
    bits = (exponents << 23) | rng.integers(0, 1 << 23, exponents.size, dtype=np.uint32)
    bits |= rng.integers(0, 2, exponents.size, dtype=np.uint32) << 31
    return bits.view(np.float32)


def usual_arguments(seed, count=1 << 15):
    rng = np.random.default_rng(seed)
    near_one = 1 + rng.uniform(-0.3, 0.3, count) ** 3
    return np.concatenate([rng.uniform(-110, 110, count), near_one]).astype(np.float32)


def ulps(got, exact):
    """Distance from the float64 truth in units of float32's last place there."""
    with np.errstate(all="ignore"):
        place = np.spacing(np.minimum(np.abs(exact), np.finfo(np.float32).max).astype(np.float32))
        distance = np.abs(got.astype(np.float64) - exact) / place
    overflows = np.abs(exact) >= 2.0**128
    distance[overflows & np.isinf(got) & (np.sign(got) == np.sign(exact))] = 0
    distance[np.isnan(got) & np.isnan(exact) | (got == exact)] = 0
    return distance


def compute(isa, name, x, lanes=16):
    return lanewise(isa, lanes, lambda v: apply_function(name, v), x)


@pytest.mark.parametrize("name", sorted(TRUE))
def test_functions_are_within_one_and_a_half_ulp_over_all_exponents(name):
    x = np.concatenate([every_exponent(1), usual_arguments(2)])
    with np.errstate(all="ignore"):
        exact = TRUE[name](x.astype(np.float64))
    error = ulps(compute(ISAS[0], name, x), exact)
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    assert error[worst] <= 1.5, f"{name}({x[worst]!r}): {error[worst]} ulp"


@pytest.mark.parametrize("name", HALF_ULP)
def test_functions_computed_in_float64_are_all_but_correctly_rounded(name):
    x = np.concatenate([every_exponent(7, 64), usual_arguments(8, 1 << 13)])
    with np.errstate(all="ignore"):
        exact = TRUE[name](x.astype(np.float64))
    assert ulps(compute(ISAS[0], name, x), exact).max() <= 0.51


def powers(rng):
    """Bases and exponents whose powers cover the range of float32 and go beyond it."""
    base = np.exp2(rng.uniform(-149, 128, 1 << 13))
    exponent = rng.uniform(-160, 160, base.size) / np.log2(base)
    near_one = 1 + rng.uniform(-1, 1, base.size) ** 9
    bases = np.concatenate([base, near_one]).astype(np.float32)
    exponents = np.concatenate([exponent, rng.uniform(-(2**15), 2**15, base.size)])
    return bases, exponents.astype(np.float32)


@pytest.mark.parametrize(("name", "true"), [("pow", np.power), ("atan2", np.arctan2)])
def test_functions_of_two_numbers_are_all_but_correctly_rounded(name, true):
    a, b = powers(np.random.default_rng(9))
    got = lanewise(ISAS[0], 16, lambda x, y: apply_function(name, x, y), a, b)
    with np.errstate(all="ignore"):
        exact = true(a.astype(np.float64), b.astype(np.float64))
    assert ulps(got, exact).max() <= 0.51


EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, 2.0**24 + 2, 3e38, 1e-45, INF)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "true"), [("pow", np.power), ("atan2", np.arctan2)])
def test_functions_of_two_numbers_at_their_edges(name, true, dtype):
    edges = np.array([NAN, *EDGES, *(-x for x in EDGES)], dtype)
    a, b = (x.reshape(-1) for x in np.meshgrid(edges, edges))
    with np.errstate(all="ignore"):
        expected = true(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
    for isa in ISAS:
        got = lanewise(isa, 1, lambda x, y: apply_function(name, x, y), a, b)
        np.testing.assert_allclose(got, expected, rtol=2 * np.finfo(dtype).eps)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


def test_bessel_functions_have_their_wronskian():
    """J1 Y0 - J0 Y1 = 2 / (pi x), and the integral that defines J0."""
    x = np.linspace(0.5, 40, 64)
    j0, j1, y0, y1 = (compute(ISAS[0], name, x, 4) for name in ("j0", "j1", "y0", "y1"))
    np.testing.assert_allclose(j1 * y0 - j0 * y1, 2 / (np.pi * x), rtol=1e-13)
    angles = np.arange(256) * (np.pi / 128)
    np.testing.assert_allclose(j0, np.cos(np.outer(x, np.sin(angles))).mean(1), atol=1e-14)


@pytest.mark.parametrize(("name", "true"), [("lgamma", math.lgamma), ("tgamma", math.gamma)])
def test_gamma_functions(name, true):
    x = np.concatenate([np.linspace(0.05, 30, 64), np.linspace(-9.9, -0.1, 64)])
    expected = [true(v) for v in x]
    np.testing.assert_allclose(compute(ISAS[0], name, x, 4), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ["cbrt", "rcbrt"])
def test_cube_roots_of_float64_are_within_one_ulp(name):
    rng = np.random.default_rng(10)
    x = np.exp2(rng.uniform(-1000, 1000, 512)) * rng.choice([-1, 1], 512)
    got = compute(ISAS[0], name, x, 4)
    for value, root in zip(x.tolist(), got.tolist(), strict=True):
        goal = Fraction(value) if name == "cbrt" else 1 / Fraction(value)
        below, above = (Fraction(float(np.nextafter(root, d))) ** 3 for d in (-INF, INF))
        assert below <= goal <= above


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({"exp", "exp2", "log", "log2", "sin", "cos", "tanh"}))
def test_functions_are_within_one_and_a_half_ulp_on_every_64th_float(name):
    for start in range(0, 2**32, 2**28):
        x = np.arange(start + 17, start + 2**28, 64, dtype=np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        x = x[: x.size // 16 * 16]
        with np.errstate(all="ignore"):
            exact = TRUE[name](x.astype(np.float64))
        assert ulps(compute(ISAS[0], name, x), exact).max(initial=0) <= 1.5


@pytest.mark.parametrize("name", sorted(EXACT))
def test_exact_functions_are_correctly_rounded(name):
    x = np.concatenate([every_exponent(3, 64), np.array([0.0, -0.0, INF, -INF] * 4, np.float32)])
    with np.errstate(all="ignore"):
        expected = EXACT[name](x)
    for isa in ISAS:
        got = compute(isa, name, x)
        np.testing.assert_array_equal(got, expected)
        keep = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[keep], np.signbit(expected)[keep])


@pytest.mark.parametrize(
    "name",
    [x if i % 3 == 0 else pytest.param(x, marks=pytest.mark.slow) for i, x in enumerate(FUNCTIONS)],
)
def test_every_instruction_set_and_width_gives_the_same_bits(name):
    specials = np.array([0.0, -0.0, INF, -INF, 1e6, -1e6, 3e38, 1e-45] * 2, np.float32)
    x = np.concatenate([every_exponent(4, 16), usual_arguments(5, 512), specials])
    reference = compute("portable", name, x)
    nan = np.isnan(reference)
    for isa in ISAS:
        for lanes in (0, 1, 8, 16):
            got = compute(isa, name, x, lanes)
            np.testing.assert_array_equal(np.isnan(got), nan, err_msg=f"{isa} {lanes}")
            same = got.view(np.uint32) == reference.view(np.uint32)
            assert (same | nan).all(), f"{isa} with {lanes} lanes: {x[~(same | nan)][:4]}"


@pytest.mark.parametrize("name", sorted(SPECIALS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_specials_zeros_and_poles(name, dtype):
    pairs = [p for p in SPECIALS[name] if dtype == np.float32 or abs(p[0]) not in (1e-45, 89.0)]
    pairs = [p for p in pairs if dtype == np.float32 or p != (-149.0, 1e-45)]
    x = np.array([p[0] for p in pairs], dtype)
    expected = np.array([p[1] for p in pairs], dtype)
    for isa in ISAS:
        got = compute(isa, name, x, lanes=0)
        np.testing.assert_array_equal(got, expected)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_float64_functions_are_those_of_the_c_library(name):
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.uniform(0.001, 30, 500), rng.uniform(0.99, 1.01, 500)])
    expected = [LIBRARY[name](v) for v in x]
    for isa in ISAS:
        got = compute(isa, name, np.array(x), lanes=4)
        assert np.max(np.abs(got - expected) / np.spacing(np.abs(expected))) <= 1


def test_functions_of_the_table_are_those_tested_here():
    assert set(FUNCTIONS) == {*EXACT, *TRUE, *GAMMA_AND_BESSEL}

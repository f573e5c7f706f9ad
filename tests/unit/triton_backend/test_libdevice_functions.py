"""libdevice's functions of floats: within the bounds that CUDA documents, against true values.

Bounds are units in the last place, from the CUDA Math API's table of maximum errors; values are
computed with 50 digits and rounded to float64.
"""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch
from extern_call import both_readings, call
from triton.language.extra.cuda import libdevice

from asterope.triton_backend.convert.libdevice import MEANINGS

BOUND = {
    "sinpi": 2, "cospi": 2, "erfcx": 4, "erfinv": 5, "erfcinv": 6, "normcdf": 5, "normcdfinv": 8,
    "cyl_bessel_i0": 6, "cyl_bessel_i1": 6, "exp10": 1, "erfc": 5, "tgamma": 10, "lgamma": 4,
    "rcbrt": 1, "j0": 7, "j1": 7, "y0": 7, "y1": 7,
}  # fmt: skip
TRUE = {
    "sinpi": {
        0.1: 0.30901699437494745,
        -0.75: -0.7071067811865476,
        1.25: -0.7071067811865476,
        1e-300: 3.1415926535897936e-300,
        123456.7: 0.8090169943803217,
        -2.5: -1.0,
    },
    "cospi": {
        0.1: 0.9510565162951535,
        -0.75: -0.7071067811865476,
        1.25: -0.7071067811865476,
        0.499999: 3.1415926535005707e-06,
        123456.7: -0.587785252285076,
        3.0: -1.0,
    },
    "erfcx": {
        0.0: 1.0,
        0.3: 0.7345993345676551,
        -1.7: 35.69495590602528,
        5.5: 0.10096221839949909,
        -26.0: 7.657724931490568e293,
        1000.0: 0.0005641893014533876,
    },
    "erfinv": {
        0.1: 0.08885599049425769,
        -0.5: -0.4769362762044699,
        0.51: 0.4881220505159588,
        0.9: 1.1630871536766743,
        -0.999: -2.3267537655135246,
        0.9999999999999999: 5.8635847487551676,
        1e-200: 8.86226925452758e-201,
    },
    "erfcinv": {
        0.1: 1.163087153676674,
        0.25: 0.8134198475976185,
        0.7: 0.2724627147267544,
        1.0000001: -8.862269259701992e-08,
        1.9: -1.1630871536766738,
        1e-05: 3.123413274340875,
        1e-100: 15.065574702592645,
        3e-300: 26.18851851224115,
    },
    "normcdf": {
        0.0: 0.5,
        0.5: 0.6914624612740131,
        -1.0: 0.15865525393145705,
        3.0: 0.9986501019683699,
        -8.0: 6.220960574271784e-16,
        -20.5: 1.0764673258790961e-93,
        -37.0: 5.725571222524577e-300,
    },
    "normcdfinv": {
        0.1: -1.2815515655446004,
        0.4999: -0.00025066283008800747,
        0.75: 0.6744897501960817,
        0.999: 3.090232306167813,
        1e-05: -4.264890793922825,
        1e-200: -30.20559417957964,
    },
    "cyl_bessel_i0": {
        0.0: 1.0,
        1e-05: 1.000000000025,
        -2.0: 2.2795853023360673,
        15.9: 811004.4351412504,
        16.1: 984288.4439046977,
        -100.0: 1.0737517071310738e42,
        712.0: 2.4684110577627523e307,
    },
    "cyl_bessel_i1": {
        1e-300: 5e-301,
        1e-05: 5.0000000000625004e-06,
        -2.0: -1.590636854637329,
        15.9: 785072.0677334656,
        16.1: 953213.0353640702,
        -100.0: -1.0683693903381625e42,
        712.0: 2.4666770135246153e307,
    },
    "exp10": {
        0.5: 3.1622776601683795,
        -3.25: 0.0005623413251903491,
        2.0: 100.0,
        300.1: 1.258925411794233e300,
        -307.0: 1e-307,
    },
    "erfc": {
        0.3: 0.6713732405408726,
        -1.0: 1.8427007929497148,
        5.0: 1.537459794428035e-12,
        26.0: 5.663192408856143e-296,
    },
    "tgamma": {
        0.5: 1.772453850905516,
        -2.5: -0.9453087204829419,
        30.3: 2.4442850291542564e31,
        170.0: 4.269068009004705e304,
    },
    "lgamma": {
        0.3: 1.0957979948180756,
        10.5: 13.940625219403763,
        100.25: 360.28455963776423,
        -0.5: 1.2655121234846454,
    },
    "rcbrt": {2.0: 0.7937005259840998, 1e-300: 1e100, 1e300: 1e-100},
    "j0": {0.5: 0.9384698072408129, 2.0: 0.22389077914123567, 7.5: 0.2663396578803784},
    "j1": {0.5: 0.2422684576748739, 2.0: 0.5767248077568734, 7.5: 0.1352484275797055},
    "y0": {0.5: -0.44451873350670656, 2.0: 0.5103756726497451, 7.5: 0.11731328614820863},
    "y1": {0.5: -1.471472392670243, 2.0: -0.10703243154093754, 7.5: -0.25912851048611624},
}
INF, NAN = math.inf, math.nan
SPECIALS = {
    "sinpi": [(1.0, 0.0), (-0.0, -0.0), (-2.0, -0.0), (INF, NAN)],
    "cospi": [(0.5, 0.0), (-1.5, 0.0), (1e300, 1.0), (-INF, NAN)],
    "erfcx": [(INF, 0.0), (-INF, INF), (NAN, NAN), (1e38, math.sqrt(1 / math.pi) / 1e38)],
    "erfinv": [(1.0, INF), (-1.0, -INF), (1.5, NAN), (-0.0, -0.0), (NAN, NAN)],
    "erfcinv": [(0.0, INF), (2.0, -INF), (1.0, 0.0), (-0.5, NAN), (2.5, NAN), (NAN, NAN)],
    "normcdf": [(INF, 1.0), (-INF, 0.0), (NAN, NAN)],
    "normcdfinv": [(0.0, -INF), (1.0, INF), (0.5, 0.0), (-1.0, NAN)],
    "cyl_bessel_i0": [(INF, INF), (-INF, INF), (NAN, NAN), (0.0, 1.0)],
    "cyl_bessel_i1": [(INF, INF), (-INF, -INF), (NAN, NAN), (-0.0, -0.0)],
    "round": [(0.5, 1.0), (-0.5, -1.0), (-0.25, -0.0), (2.5, 3.0), (INF, INF), (NAN, NAN)],
    "logb": [(8.0, 3.0), (0.75, -1.0), (0.0, -INF), (-INF, INF), (NAN, NAN)],
}


def ulps(got, exact):
    place = np.spacing(np.abs(np.asarray(exact).astype(got.dtype))).astype(np.float64)
    return np.abs(got.astype(np.float64) - exact) / place


@pytest.mark.parametrize("name", sorted(TRUE))
def test_fp64_is_within_the_documented_bound(name):
    x, exact = (np.array(list(v)) for v in (TRUE[name].keys(), TRUE[name].values()))
    for got in both_readings(f"__nv_{name}", x):
        assert ulps(got, exact).max() <= BOUND[name]


@pytest.mark.parametrize("name", sorted(TRUE))
def test_fp32_is_all_but_correctly_rounded(name):
    exactly = [a for a in TRUE[name] if abs(a) < 3e38 and float(np.float32(a)) == a]
    pairs = [(a, TRUE[name][a]) for a in exactly if abs(TRUE[name][a]) < 3e38]
    x, exact = np.array([a for a, _ in pairs], np.float32), np.array([y for _, y in pairs])
    for got in both_readings(f"__nv_{name}f", x):
        assert ulps(got, exact).max() <= 0.51


TORCH = {
    "cyl_bessel_i0": (torch.special.i0, -80, 80), "cyl_bessel_i1": (torch.special.i1, -80, 80),
    "erfcx": (torch.special.erfcx, -9, 50), "erfinv": (torch.erfinv, -1, 1),
    "normcdf": (torch.special.ndtr, -5, 5), "normcdfinv": (torch.special.ndtri, 0, 1),
    "j0": (torch.special.bessel_j0, 0.1, 2), "y1": (torch.special.bessel_y1, 0.1, 2),
    "lgamma": (torch.lgamma, 3, 80),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TORCH))
def test_fp32_agrees_with_torch_in_float64_over_its_range(name):
    f, low, high = TORCH[name]
    x = np.linspace(low, high, 510, dtype=np.float32)[1:-1]
    exact = f(torch.from_numpy(x).double()).numpy()
    got, _ = both_readings(f"__nv_{name}f", x)
    assert ulps(got, exact).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(SPECIALS))
def test_special_values(name, dtype):
    pairs = [(x, y) for x, y in SPECIALS[name] if dtype == np.float64 or abs(x) != 1e300]
    x, expected = (np.array([p[i] for p in pairs], dtype) for i in range(2))
    for got in both_readings(f"__nv_{name}{'f' if dtype == np.float32 else ''}", x):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["hypot", "norm3d", "norm4d", "rhypot", "rnorm3d", "rnorm4d"])
def test_lengths_are_within_one_ulp_and_never_overflow_inside(name, dtype):
    rng = np.random.default_rng(1)
    count = 2 if "hypot" in name else int(name[-2])
    top = np.finfo(dtype).maxexp - 2
    scale = np.exp2(rng.integers(-top, top, 64))
    sides = [(rng.standard_normal(64) * scale).astype(dtype) for _ in range(count)]
    exact = np.array([math.hypot(*(float(s[i]) for s in sides)) for i in range(64)])
    exact = 1 / exact if name[0] == "r" else exact
    got = call(f"__nv_{name}{'f' if dtype == np.float32 else ''}", *sides)
    keep = np.abs(exact) > np.finfo(dtype).tiny  # 1 / exact has lost what is below
    assert ulps(got, exact)[keep].max() <= (0.51 if dtype == np.float32 else 2)
    edges = [np.array([np.inf, 0.0, np.nan], dtype)] + [np.array([np.nan, 0, 1], dtype)] * (
        count - 1
    )
    edge = call(f"__nv_{name}{'f' if dtype == np.float32 else ''}", *edges)
    expected = [0.0, np.inf, np.nan] if name[0] == "r" else [np.inf, 0.0, np.nan]
    np.testing.assert_array_equal(edge, np.array(expected, dtype))


def edges(dtype):
    info = np.finfo(dtype)
    values = [0.0, 1.0, 1.5, 2.5, 7.0, 0.1, info.max, info.tiny, info.smallest_subnormal, np.inf]
    values = np.array([np.nan, *values, *(-v for v in values)], dtype)
    return (v.reshape(-1) for v in np.meshgrid(values, values))


BINARY = {
    "fmod": np.fmod, "remainder": np.vectorize(math.remainder, otypes=[float]),
    "nextafter": np.nextafter, "copysign": np.copysign, "fmin": np.fmin, "fmax": np.fmax,
    "fdim": lambda a, b: np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a > b, a - b, 0)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(BINARY))
def test_exact_functions_of_two_numbers(name, dtype):
    a, b = edges(dtype)
    if name == "remainder":  # Python raises where C gives NaN
        keep = np.isfinite(a) & (b != 0) & ~np.isnan(b)
        a, b = a[keep], b[keep]
    with np.errstate(all="ignore"):
        expected = BINARY[name](a, b).astype(dtype)
        got = call(f"__nv_{name}{'f' if dtype == np.float32 else ''}", a, b)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["ldexp", "scalbn"])
def test_scaling_by_powers_of_two_is_rounded_once(name, dtype):
    rng = np.random.default_rng(2)
    x = (rng.uniform(1, 2, 256) * np.exp2(rng.integers(-140, 120, 256))).astype(dtype)
    n = rng.integers(-1200, 1200, 256).astype(np.int32)
    n[:96] = rng.integers(-160, -60, 96) if dtype == np.float32 else -1022 - rng.integers(0, 60, 96)
    with np.errstate(all="ignore"):
        expected = np.ldexp(x, n)
    got = call(f"__nv_{name}{'f' if dtype == np.float32 else ''}", x, n)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponents(dtype):
    info = np.finfo(dtype)
    x = np.array([1.0, -3.0, 0.1, info.tiny, info.smallest_subnormal * 5, info.max], dtype)
    suffix = "f" if dtype == np.float32 else ""
    expected = [math.frexp(float(v))[1] - 1 for v in x]
    assert call(f"__nv_ilogb{suffix}", x).tolist() == expected
    assert call(f"__nv_logb{suffix}", x).tolist() == expected
    odd = np.array([0.0, np.inf, np.nan], dtype)
    assert call(f"__nv_ilogb{suffix}", odd).tolist() == [-(2**31), 2**31 - 1, -(2**31)]


@pytest.mark.parametrize(("suffix", "dtype"), [("f", np.float32), ("d", np.float64)])
def test_predicates(suffix, dtype):
    x = np.array([1.0, -0.0, np.inf, -np.inf, np.nan], dtype)
    assert call(f"__nv_isnan{suffix}", x).tolist() == [0, 0, 0, 0, 1]
    assert call(f"__nv_isinf{suffix}", x).tolist() == [0, 0, 1, 1, 0]
    assert call(f"__nv_signbit{suffix}", x).tolist()[:4] == [0, 1, 0, 1]
    finite = "finitef" if suffix == "f" else "isfinited"
    assert call(f"__nv_{finite}", x).tolist() == [1, 1, 0, 0, 0]


def test_rounding_to_long_integers():
    x = np.array([2.5, -2.5, 3.5, 1e15 + 0.5, -0.4])
    assert call("__nv_llrint", x).tolist() == [2, -2, 4, 10**15, 0]
    assert call("__nv_llround", x).tolist() == [3, -3, 4, 10**15 + 1, 0]
    assert call("__nv_llrintf", x[:3].astype(np.float32)).tolist() == [2, -2, 4]


def test_integer_powers_know_odd_from_even_at_any_size():
    x, n = np.array([-2.0, -1.0, 3.0, 0.5]), np.array([3, 2**31 - 1, -2, 149], np.int32)
    assert call("__nv_powi", x, n).tolist() == [-8.0, -1.0, 1 / 9, 2.0**-149]
    got = call("__nv_powif", x.astype(np.float32), n)
    assert got.tolist() == np.array([-8.0, -1.0, 1 / 9, 2.0**-149], np.float32).tolist()


@pytest.mark.parametrize("name", ["jn", "yn"])
def test_bessel_functions_of_integer_order_follow_their_recurrence(name):
    x = np.linspace(1, 20, 16)
    order = [np.full(16, n, np.int32) for n in range(-1, 4)]
    values = [call(f"__nv_{name}", n, x) for n in order]
    assert np.isnan(values[0]).all()
    np.testing.assert_array_equal(values[1], call(f"__nv_{name[0]}0", x))
    np.testing.assert_allclose(values[2] + values[4], 4 / x * values[3], atol=1e-13)


def test_saturation_and_the_half_reciprocal():
    x = np.array([-1.0, -0.0, 0.25, 2.0, np.nan, np.inf], np.float32)
    assert call("__nv_saturatef", x).tolist() == [0.0, 0.0, 0.25, 1.0, 0.0, 1.0]
    y = call("__nv_rcp64h", np.array([3.0, -0.5]))
    assert (y.view(np.int64) & 0xFFFFFFFF).tolist() == [0, 0]
    np.testing.assert_allclose(y, [1 / 3, -2.0], rtol=2**-20)


def test_every_symbol_that_triton_names_has_a_meaning():
    named = set(re.findall(r'"(__nv_\w+)"', inspect.getsource(libdevice)))
    assert len(named) > 300
    assert named <= set(MEANINGS)

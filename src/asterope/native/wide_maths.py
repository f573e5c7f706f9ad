"""Functions of float32 computed in float64 vectors: the only visible rounding is the last.

Each takes float64 values that were float32 and returns float64 that is at most 2^-40 away,
relative, where the result is a number of float32; beyond that range it returns anything that
rounds to zero or infinity. Series with obvious coefficients are Taylor's; the others are
Chebyshev interpolations of the named function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from asterope.native.build import Val

__all__ = ["WIDE", "poly", "sine_cosine"]

_SIN = (
    -1.6666666666666677e-01, 8.333333333335684e-03, -1.9841269843193427e-04,
    2.7557319447920275e-06, -2.505184108637588e-08, 1.5969401914452755e-10,
)  # fmt: skip
_COS = (
    4.166666666666505e-02, -1.3888888888644905e-03, 2.4801587165342228e-05,
    -2.755728277625899e-07, 2.0871892494378798e-09, -1.1180569020631083e-11,
)  # fmt: skip
# pi/2 in three doubles of 33 bits each: n * part is exact for |n| < 2^20.
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
# atan(sqrt z) / sqrt z for z up to tan^2(pi / 8).
_ATAN = (
    1.0, -0.33333333333328435, 0.1999999999885472, -0.14285714180944986, 0.11111106179176837,
    -0.09090773045092805, 0.07689953077731812, -0.06640230294264204, 0.056883301988754326,
    -0.043479972450989016, 0.021134699951497873,
)  # fmt: skip
# erf(sqrt z) / sqrt z for z up to 1.
_ERF = (
    1.1283791670955126, -0.3761263890318375, 0.11283791670954879, -0.026866170645076792,
    0.0052239776248180145, -0.000854832698083379, 0.0001205533111164271, -1.4925595266831182e-05,
    1.6461000484121368e-06, -1.6350312701054695e-07, 1.4659775274047436e-08,
    -1.1372848856791674e-09, 5.957176147748911e-11,
)  # fmt: skip
# exp(x^2) erfc(x) (1 + 2 x) in t = (x - 3.75) / (x + 3.75).
_ERFC = (
    1.2375126308377915, -0.14024059858554283, 0.0035854154926866794, 0.08227673848931104,
    -0.10880393038105107, 0.09230432118803242, -0.0586933955029517, 0.028362277062466166,
    -0.009746599867453102, 0.0017556281950203902, 0.0002937908947438146, -0.000290162963565538,
    5.146862546160263e-05, 2.2404904161843304e-05, -1.1178933930496505e-05,
    -1.0036810708023523e-06, 1.508764525004148e-06, -3.0076196603233585e-08,
    -1.2638201709187094e-07, 9.015143789207673e-09,
)  # fmt: skip
_LN2_HI, _LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LN2, _LOG2E, _LOG10E = 0.6931471805599453, 1.4426950408889634, 0.4342944819032518
_EXP = tuple(1 / math.factorial(k) for k in range(13))
_ATANH = tuple(1 / (2 * k + 1) for k in range(10))
_INF, _NAN = math.inf, math.nan


def poly(x: Val, coefficients: Sequence[float]) -> Val:
    """Evaluate sum c_i x^i by Horner's rule in fused multiply-adds."""
    total = x.fn.const(x.kind, coefficients[-1], x.lanes)
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total


def _size(x: Val) -> Val:
    return x.unary("fabs")


def _signed_as(size: Val, x: Val) -> Val:
    """Give a positive number the sign of another.

    LLVM would move a copysign past later roundings and then round the sign's owner as well, from
    fp64 to fp16, for which some CPUs have no instruction and we no function.
    """
    return (size.bits_as("i64") | (x.bits_as("i64") & (-1 << 63))).bits_as("f64")


# -- exponentials -------------------------------------------------------------------------------
def _exp(x: Val) -> Val:
    x = x.gt(700.0).where(700.0, x)
    x = x.lt(-700.0).where(-700.0, x)
    n = (x * _LOG2E).unary("roundeven")
    r = n.fma(-_LN2_LO, n.fma(-_LN2_HI, x))
    power = (n.to_int_inside("i32").sext("i64") + 1023) << 52
    return poly(r, _EXP) * power.bits_as("f64")


def _expm1(x: Val) -> Val:
    small = x * poly(x, (1, 1 / 2, 1 / 6, 1 / 24))
    return _size(x).lt(2.0**-10).where(small, _exp(x) - 1.0)


def _sinh(x: Val) -> Val:
    e = _exp(x)
    small = x * poly(x * x, (1, 1 / 6, 1 / 120, 1 / 5040))
    return _size(x).lt(2.0**-6).where(small, (e - e.like(1.0) / e) * 0.5)


def _cosh(x: Val) -> Val:
    e = _exp(x)
    return (e + e.like(1.0) / e) * 0.5


# -- logarithms ---------------------------------------------------------------------------------
def _log(x: Val) -> Val:
    """Write x as m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1))."""
    bits = x.bits_as("i64")
    e = (bits - 0x3FE6A09E667F3BCD).sar(52)
    m = (bits - (e << 52)).bits_as("f64")
    s = (m - 1.0) / (m + 1.0)
    y = e.zext("i32").to_float("f64").fma(_LN2, (s + s) * poly(s * s, _ATANH))
    y = x.eq(_INF).where(x, y)
    y = x.eq(0.0).where(-_INF, y)
    return x.ge(0.0).where(y, _NAN)


def _log1p(x: Val) -> Val:
    small = x * poly(x, (1, -1 / 2, 1 / 3))
    return _size(x).lt(2.0**-20).where(small, _log(x + 1.0))


def _asinh(x: Val) -> Val:
    a = _size(x)
    z = a * a
    small = a * poly(z, (1, -1 / 6, 3 / 40))
    return _signed_as(a.lt(2.0**-10).where(small, _log(a + (z + 1.0).unary("sqrt"))), x)


def _acosh(x: Val) -> Val:
    y = _log(x + ((x - 1.0) * (x + 1.0)).unary("sqrt"))
    return x.ge(1.0).where(y, _NAN)


def _atanh(x: Val) -> Val:
    small = x * poly(x * x, (1, 1 / 3, 1 / 5))
    one = x.like(1.0)
    return _size(x).lt(2.0**-10).where(small, _log((one + x) / (one - x)) * 0.5)


# -- powers -------------------------------------------------------------------------------------
def _cbrt(x: Val) -> Val:
    return _signed_as(_exp(_log(_size(x)) * (1 / 3)), x)


def _rcbrt(x: Val) -> Val:
    return _signed_as(_exp(_log(_size(x)) * (-1 / 3)), x)


def _pow(x: Val, y: Val) -> Val:
    size = _size(x)
    power = size.eq(1.0).where(y.is_nan().where(y, 1.0), _exp(y * _log(size)))
    half = y * 0.5
    whole = y.unary("trunc").eq(y)
    odd = whole & half.unary("trunc").ne(half)
    power = (odd & x.bits_as("i64").lt(0)).where(-power, power)
    power = (x.lt(0.0) & size.lt(_INF) & ~whole).where(_NAN, power)
    return (y.eq(0.0) | x.eq(1.0)).where(1.0, power)


# -- angles -------------------------------------------------------------------------------------
def sine_cosine(x: Val) -> tuple[Val, Val, Val]:
    """Return sine and cosine of what is left of |x| < 10^6 after n quarter turns, and n."""
    n = (x * 0.6366197723675814).unary("roundeven")
    r = x
    for part in _HALF_PI:
        r = n.fma(-part, r)
    z = r * r
    sine = poly(z, _SIN).fma(z * r, r)
    cosine = poly(z, _COS).fma(z * z, z.fma(-0.5, 1.0))
    return sine, cosine, n.to_int("i64")


def _tan(x: Val) -> Val:
    sine, cosine, n = sine_cosine(x)
    odd = (n & 1).ne(0)
    tangent = odd.where(-cosine, sine) / odd.where(sine, cosine)
    return x.eq(0.0).where(x, tangent)


def _atan_of_size(q: Val) -> Val:
    """Arc tangent of q >= 0: 1/q above 1, then a turn by pi/4 above tan(pi/8)."""
    one = q.like(1.0)
    steep = q.gt(1.0)
    r = steep.where(one / q, q)
    turned = r.gt(0.41421356237309503)
    r = turned.where((r - 1.0) / (r + 1.0), r)
    angle = r * poly(r * r, _ATAN)
    angle = turned.where(angle + math.pi / 4, angle)
    return steep.where(-angle + math.pi / 2, angle)


def _atan(x: Val) -> Val:
    return _signed_as(_atan_of_size(_size(x)), x)


def _atan2(y: Val, x: Val) -> Val:
    rise, run = _size(y), _size(x)
    q = (rise.eq(_INF) & run.eq(_INF)).where(1.0, rise / run)
    q = (rise.eq(0.0) & run.eq(0.0)).where(0.0, q)
    angle = _atan_of_size(q)
    return _signed_as(x.bits_as("i64").lt(0).where(-angle + math.pi, angle), y)


def _other_leg(x: Val) -> Val:
    return ((x.like(1.0) - x) * (x + 1.0)).unary("sqrt")


# -- the error function -------------------------------------------------------------------------
def _erfc_of_size(a: Val) -> Val:
    a = a.gt(30.0).where(30.0, a)
    t = (a - 3.75) / (a + 3.75)
    return _exp(-(a * a)) * poly(t, _ERFC) / a.fma(2.0, 1.0)


def _erfc(x: Val) -> Val:
    y = _erfc_of_size(_size(x))
    return x.lt(0.0).where(-y + 2.0, y)


def _erf(x: Val) -> Val:
    a = _size(x)
    far = _signed_as(-_erfc_of_size(a) + 1.0, x)
    return a.lt(1.0).where(x * poly(x * x, _ERF), far)


WIDE: dict[str, Callable[..., Val]] = {
    "expm1": _expm1, "sinh": _sinh, "cosh": _cosh,
    "log10": lambda x: _log(x) * _LOG10E, "log1p": _log1p,
    "asinh": _asinh, "acosh": _acosh, "atanh": _atanh,
    "cbrt": _cbrt, "rcbrt": _rcbrt, "pow": _pow,
    "tan": _tan, "atan": _atan, "atan2": _atan2,
    "asin": lambda x: _atan2(x, _other_leg(x)), "acos": lambda x: _atan2(_other_leg(x), x),
    "erf": _erf, "erfc": _erfc,
}  # fmt: skip

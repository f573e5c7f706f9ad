"""What libdevice's special functions mean, composed of arithmetic, exp, log, erf and the like.

Coefficients are Chebyshev interpolations of the functions named, made with 40 digits.
"""

from __future__ import annotations

import math

from asterope.triton_backend.convert.libdevice.terms import Meaning, Term, fp64_inside, horner

__all__ = ["SPECIAL"]

# exp(x^2) erfc(x) (1 + 2 x) in t = (x - 3.75) / (x + 3.75).
_ERFCX = (
    1.2375126308378275, -0.14024059858554702, 0.003585415485463656, 0.08227673849015103,
    -0.10880393014170556, 0.09230432116019804, -0.05869339859058929, 0.028362277421519668,
    -0.009746579547145438, 0.0017556258323895534, 0.000293713591593492, -0.0002901539791322486,
    5.1649421745236465e-05, 2.2383911531916976e-05, -1.144508983794941e-05,
    -9.728484952656482e-07, 1.7535246298697825e-06, -5.826439766695699e-08,
    -2.6125820988901525e-07, 2.429131177189471e-08, 4.107398937332565e-08,
    -4.390251943140879e-09, -6.606829477916605e-09, 5.460657473630792e-10,
    9.234867707529155e-10, -3.7587308035623257e-11, -7.666209795998097e-11,
)  # fmt: skip
# sqrt(x) exp(-x) I(x) in t = 32 / x - 1, for x above 16.
_I0_LARGE = (
    0.40052897918718267, 0.0016160154003827555, 3.0355013467575125e-05, 1.0944942081078453e-06,
    6.026317010445499e-08, 4.569801158324984e-09, 4.5056837976245776e-10, 5.574211402065081e-11,
    8.460282759107574e-12, 1.5536663566582796e-12, 3.3226501701138824e-13, 8.10154091167563e-14,
    3.4989776781301094e-14, 1.9512302212088974e-14, 4.093466494715315e-15, -6.307483201123586e-16,
)  # fmt: skip
_I1_LARGE = (
    0.394220213406121, -0.004770398290913601, -4.976699102624137e-05, -1.5068432513018988e-06,
    -7.616857013961387e-08, -5.488655131194692e-09, -5.230613854899268e-10, -6.31503481373607e-11,
    -9.409034492664577e-12, -1.7027924227912792e-12, -3.604659018234994e-13,
    -8.723415235365307e-14, -3.681202073121683e-14, -2.0344734983611173e-14,
    -4.4131286371823965e-15, 5.79275501551037e-16,
)  # fmt: skip
_BESSEL_SWITCH = 16.0
_SERIES_TERMS = 45
_SQRT_HALF = math.sqrt(0.5)
_SQRT_HALF_LOW = -4.833646656726457e-17  # what the float64 above lacks
_PI_LOW = 1.2246467991473532e-16
_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)


# -- circular functions of half turns ------------------------------------------------------------
def _quarters(x: Term) -> tuple[Term, Term, Term]:
    """Sine and cosine of pi x less n quarter turns, and n; an infinity gives NaN."""
    n = (x * 2.0).apply("rint")
    r = n.fma(-0.5, x)
    angle = r * math.pi
    rest = r.fma(math.pi, -angle) + r * _PI_LOW
    sine, cosine = angle.apply("sin"), angle.apply("cos")
    turns = n.apply("frem", 4.0).convert("i32", "to_signed")
    return cosine.fma(rest, sine), (-sine).fma(rest, cosine), turns


def _sinpi(x: Term) -> Term:
    sine, cosine, n = _quarters(x)
    y = (n & 1).eq(0).where(sine, cosine)
    y = (n & 2).eq(0).where(y, -y)
    return y.eq(0.0).where(x * 0.0, y)


def _cospi(x: Term) -> Term:
    sine, cosine, n = _quarters(x)
    y = (n & 1).eq(0).where(cosine, sine)
    y = ((n + 1) & 2).eq(0).where(y, -y)
    return y.eq(0.0).where(0.0, y)


# -- the error function and the normal distribution ----------------------------------------------
def _exp_of_square(x: Term) -> Term:
    """exp(x^2), with what the square rounds off."""
    square = x * x
    power = square.apply("exp")
    rest = power * x.fma(x, -square)
    return power.eq(math.inf).where(power, power + rest)


def _erfcx(x: Term) -> Term:
    size = x.abs()
    bounded = size.apply("fminimum", 1e300)
    t = (bounded - 3.75) / (bounded + 3.75)
    y = horner(t, _ERFCX) / bounded.fma(2.0, 1.0)
    y = size.eq(math.inf).where(0.0, y)
    return x.lt(0.0).where(_exp_of_square(x) * 2.0 - y, y)


def _inverse_of_tail(p: Term) -> Term:
    """The y >= 0 with erfc(y) = p for p in (0, 1/2]: Newton's steps on log erfc(y) = log p."""
    log_p = p.apply("log")
    t = (-log_p + math.log(2)).apply("sqrt") * math.sqrt(2)
    y = (t - t.fma(0.27061, 2.30753) / t.fma(t.fma(0.04481, 0.99229), 1.0)) * _SQRT_HALF
    for _ in range(4):
        scaled = _erfcx(y)
        square = y * y
        low = y.fma(y, -square)
        gap = ((scaled.apply("log") - square) - log_p) - low
        y = y + gap * scaled / _TWO_OVER_ROOT_PI
    return y


def _inverse_near_zero(x: Term) -> Term:
    """The y with erf(y) = x for |x| <= 1/2: Newton's steps."""
    z = x * x
    y = x * horner(z, (0.8862269254527579, 0.2320136665346545, 0.12755617530559793, 0.0865521292))
    for _ in range(3):
        slope = (-(y * y)).apply("exp") * _TWO_OVER_ROOT_PI
        y = y - (y.apply("erf") - x) / slope
    return y


def _erfinv(x: Term) -> Term:
    size = x.abs()
    tail = _inverse_of_tail((-size + 1.0).apply("fmax", 2.0**-60)).signed_as(x)
    y = size.gt(0.5).where(tail, _inverse_near_zero(x))
    y = size.eq(1.0).where(x.like(math.inf).signed_as(x), y)
    return size.gt(1.0).where(math.nan, y)


def _erfcinv(x: Term) -> Term:
    upper = x.gt(1.0)
    p = upper.where(-x + 2.0, x)
    tail = _inverse_of_tail(p.apply("fmax", 5e-324))
    tail = upper.where(-tail, tail)
    y = p.gt(0.5).where(_inverse_near_zero(-x + 1.0), tail)
    y = p.eq(0.0).where(upper.where(x.like(-math.inf), math.inf), y)
    return (x.ge(0.0) & x.compare("ole", 2.0)).where(y, math.nan)


def _normcdf(x: Term) -> Term:
    """Half of erfc(-x / sqrt 2), with what the division rounds off."""
    a = x * -_SQRT_HALF
    rest = -(x.fma(_SQRT_HALF, a) + x * _SQRT_HALF_LOW)
    usual = a.apply("erfc") - rest * _TWO_OVER_ROOT_PI * (-(a * a)).apply("exp")
    return x.abs().gt(40.0).where(a.apply("erfc"), usual) * 0.5


def _normcdfinv(p: Term) -> Term:
    return _erfcinv(p * 2.0) * -math.sqrt(2) + 0.0


# -- modified Bessel functions -------------------------------------------------------------------
def _bessel_i(order: int, large: tuple[float, ...]) -> Meaning:
    """A power series, all of whose terms are positive, and exp(x) / sqrt(x) times a polynomial."""
    series = [
        1 / (4.0**k * math.factorial(k) * math.factorial(k + order) * 2**order)
        for k in range(_SERIES_TERMS)
    ]

    def meaning(x: Term) -> Term:
        size = x.abs()
        near = size.apply("fminimum", _BESSEL_SWITCH)
        small = horner(near * near, series)
        far = size.apply("fmaximum", _BESSEL_SWITCH)
        half = (far * 0.5).apply("exp")
        scaled = horner(far.like(2 * _BESSEL_SWITCH) / far - 1.0, large)
        y = scaled / far.apply("sqrt") * half * half
        y = size.eq(math.inf).where(size, y)
        if order:
            small = small * near
        y = size.gt(_BESSEL_SWITCH).where(y, small)
        return y.signed_as(x) if order else y

    return meaning


def _bessel_of_order(name: str) -> Meaning:
    return lambda n, x: n.lt(0).where(math.nan, Term(
        x.builder, x.builder.value(name, (n.apply("maxs", 0).value, x.value), x.type)
    ))  # fmt: skip


SPECIAL: dict[str, Meaning] = {
    "sinpi": fp64_inside(_sinpi),
    "cospi": fp64_inside(_cospi),
    "erfcx": fp64_inside(_erfcx),
    "erfinv": fp64_inside(_erfinv),
    "erfcinv": fp64_inside(_erfcinv),
    "normcdf": fp64_inside(_normcdf),
    "normcdfinv": fp64_inside(_normcdfinv),
    "cyl_bessel_i0": fp64_inside(_bessel_i(0, _I0_LARGE)),
    "cyl_bessel_i1": fp64_inside(_bessel_i(1, _I1_LARGE)),
    "jn": _bessel_of_order("jn"),
    "yn": _bessel_of_order("yn"),
}

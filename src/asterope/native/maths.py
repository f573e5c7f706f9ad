"""Vector maths: exponentials, logarithms and circular functions, the same bits on every CPU.

Each function of float32 is a range reduction and a polynomial in fused multiply-adds, within
1.5 units in the last place of the true value over its whole range (tests/unit/native). Float64,
and the functions that few kernels use, call the C library one lane at a time.
Polynomials: minimax fits of the reduced function, rounded to the working precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asterope.native.build import Val

__all__ = ["FUNCTIONS", "apply_function"]

_LN2_HI, _LN2_LO = 0.693359375, -2.12194440054690568e-4
_LOG2E = 1.4426950408889634
_EXP = (0.5, 0.16666512191295624, 0.0416661873459816, 0.008369598537683487, 0.0013951719738543)
_LN2 = 0.6931471805599453
_LN2_TAIL = _LN2 - 0.693147182464599609375
_EXP2 = (
    0.24022650718688965, 0.05550410971045494, 0.009618033654987812,
    0.0013333443785086274, 0.00015468214405700564, 1.531319685454946e-05,
)  # fmt: skip
_LOG = (
    0.3333331048488617, -0.24999986588954926, 0.20002226531505585, -0.16669251024723053,
    0.14218659698963165, -0.12384342402219772, 0.11872964352369308, -0.1178983673453331,
    0.0691542848944664,
)  # fmt: skip
_TANH = (
    -0.3333333134651184, 0.13333195447921753, -0.053945377469062805,
    0.021692607551813126, -0.008156280033290386, 0.002122745616361499,
)  # fmt: skip
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
_FAR = 1e6  # beyond this argument the C library reduces with more digits


def _poly(x: Val, coefficients: Sequence[float]) -> Val:
    """Evaluate sum c_i x^i by Horner's rule in fused multiply-adds."""
    total = x.fn.const(x.kind, coefficients[-1], x.lanes)
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total


def _times_power_of_two(x: Val, n: Val) -> Val:
    """Multiply by 2^n for an integer n in [-300, 300], rounding once (also into subnormals)."""
    half = n.sar(1)
    for part in (half, n - half):
        x = x * ((part + 127) << 23).bits_as("f32")
    return x


def _clamp(x: Val, low: float, high: float) -> Val:
    """Keep x in [low, high]; NaN stays NaN."""
    x = x.gt(high).where(high, x)
    return x.lt(low).where(low, x)


def _exp(x: Val) -> Val:
    x = _clamp(x, -105.0, 89.5)
    n = (x * _LOG2E).unary("roundeven")
    r = n.fma(-_LN2_HI, x)
    r = n.fma(-_LN2_LO, r)
    y = _poly(r, _EXP).fma(r * r, r) + 1.0
    return _times_power_of_two(y, n.to_int_inside("i32"))


def _exp2(x: Val) -> Val:
    x = _clamp(x, -152.0, 129.0)
    n = x.unary("roundeven")
    r = x - n
    tail = _poly(r, _EXP2).fma(r, _LN2_TAIL)
    y = tail.fma(r, r * _LN2) + 1.0
    return _times_power_of_two(y, n.to_int_inside("i32"))


def _split(x: Val) -> tuple[Val, Val]:
    """Write a positive finite x as m * 2^e with m in [sqrt(1/2), sqrt(2)); return m - 1, e."""
    tiny = x.lt(1.17549435e-38)
    bits = tiny.where(x * 2.0**23, x).bits_as("i32")
    shifted = bits - 0x3F3504F3
    e = shifted.sar(23)
    m = (bits - (e << 23)).bits_as("f32")
    exponent = tiny.where(e - 23, e).to_float("f32")
    return m - 1.0, exponent


def _log_edges(x: Val, y: Val) -> Val:
    """Put in what logarithms return at and below zero, at infinity and for NaN."""
    y = x.eq(float("inf")).where(x, y)
    y = x.eq(0.0).where(float("-inf"), y)
    return x.ge(0.0).where(y, float("nan"))


def _log(x: Val) -> Val:
    f, e = _split(x)
    y = _poly(f, _LOG) * f * f * f
    y = e.fma(_LN2_LO, y)
    y = (f * f).fma(-0.5, y)
    return _log_edges(x, e.fma(_LN2_HI, f + y))


def _log2(x: Val) -> Val:
    f, e = _split(x)
    y = (f * f).fma(-0.5, _poly(f, _LOG) * f * f * f)
    # log2(e) = 1 + 0.4427: adding f and y themselves first keeps the leading bits.
    rest = f.fma(0.44269504088896340736, y * 0.44269504088896340736)
    return _log_edges(x, ((rest + y) + f) + e)


def _circular(x: Val, shift: int) -> Val:
    """Sine (shift 0) or cosine (shift 1), reduced and evaluated in float64."""
    d = x.fext("f64")
    n = (d * 0.6366197723675814).unary("roundeven")
    r = d
    for part in _HALF_PI:
        r = n.fma(-part, r)
    z = r * r
    sine = _poly(z, _SIN).fma(z * r, r)
    cosine = _poly(z, _COS).fma(z * z, z.fma(-0.5, 1.0))
    quadrant = n.to_int("i64") + shift
    value = (quadrant & 1).ne(0).where(cosine, sine)
    near = (quadrant & 2).ne(0).where(-value, value).fext("f32")
    far = x.unary("fabs").gt(_FAR)
    fn = x.fn
    result = fn.slot("f32", x.lanes)
    fn.store(near, result)
    with fn.if_(far.any_lane()):
        fn.store(far.where(_by_lane("cos" if shift else "sin")(x), near), result)
    y = fn.load(result, "f32", x.lanes)
    return y if shift else x.eq(0.0).where(x, y)


def _tanh(x: Val) -> Val:
    size = x.unary("fabs")
    large = _one_minus_two_over(_exp(size + size) + 1.0)
    z = x * x
    small = _poly(z, _TANH).fma(z * x, x)
    return size.lt(0.625).where(small, large).minimum("copysign", x)


def _one_minus_two_over(x: Val) -> Val:
    two = x.fn.const(x.kind, 2.0, x.lanes)
    return -(two / x) + 1.0


def _by_lane(name: str) -> Callable[[Val], Val]:
    """Call a float64 function of the C library for each lane, rounding back at the end."""

    def emit(x: Val) -> Val:
        fn = x.fn
        if not x.lanes:
            return fn.call(name, (x.fext("f64"),), "f64").fext(x.kind)
        result = fn.undef(x.kind, x.lanes)
        for i in range(x.lanes):
            y = fn.call(name, (x.lane(i).fext("f64"),), "f64").fext(x.kind)
            result = result.with_lane(i, y)
        return result

    return emit


def _rsqrt(x: Val) -> Val:
    return x.fn.const(x.kind, 1.0, x.lanes) / x.unary("sqrt")


_FLOAT32: dict[str, Callable[[Val], Val]] = {
    "exp": _exp,
    "exp2": _exp2,
    "log": _log,
    "log2": _log2,
    "sin": lambda x: _circular(x, 0),
    "cos": lambda x: _circular(x, 1),
    "tanh": _tanh,
}
_EXACT = {
    "sqrt": "sqrt",
    "abs": "fabs",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "roundeven",
}
_LIBRARY = ("exp", "exp2", "log", "log2", "sin", "cos", "tanh", "erf", "log1p", "expm1", "log10")

FUNCTIONS = tuple(sorted({*_FLOAT32, *_EXACT, *_LIBRARY, "rsqrt"}))


def apply_function(name: str, x: Val) -> Val:
    """Emit one of `FUNCTIONS` on a float32 or float64 value of any number of lanes."""
    if name in _EXACT:
        return x.unary(_EXACT[name])
    if name == "rsqrt":
        return _rsqrt(x)
    if x.kind == "f32" and name in _FLOAT32:
        return _FLOAT32[name](x)
    return _by_lane(name)(x)

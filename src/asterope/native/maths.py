"""Vector maths: exponentials, logarithms and circular functions, the same bits on every CPU.

Each function of float32 is a range reduction and a polynomial in fused multiply-adds, within
1.5 units in the last place of the true value over its whole range (tests/unit/native); those that
are not here are in `wide_maths`. Float64, gamma and Bessel functions call the C library one lane
at a time.
Polynomials: minimax fits of the reduced function, rounded to the working precision.
"""

from __future__ import annotations

from collections.abc import Callable

from asterope.native.build import Val
from asterope.native.library_maths import LIBRARY, call_library
from asterope.native.wide_maths import WIDE, poly, sine_cosine

__all__ = ["BINARY_FUNCTIONS", "FUNCTIONS", "apply_function"]

_LN2_HI, _LN2_LO = 0.693359375, -2.12194440054690568e-4
_LOG2E = 1.4426950408889634
_EXP = (0.5, 0.16666512191295624, 0.0416661873459816, 0.008369598537683487, 0.0013951719738543)
_EXP2 = (
    0.6931471824645996, 0.24022644758224487, 0.055503349751234055,
    0.00961843691766262, 0.0013398875016719103, 0.00015353361959569156,
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
_FAR = 1e6  # beyond this argument the C library reduces with more digits


def _has_scaling(x: Val) -> bool:
    """Whether AVX-512's instructions for 2^n and for fractions work on such vectors."""
    return x.fn.isa.has_wide_masks and x.lanes == 16


def _times_power_of_two(x: Val, whole: Val) -> Val:
    """Multiply by 2^n for a whole n in [-300, 300], rounding once (also into subnormals)."""
    if _has_scaling(x):  # any n will do
        return _scaled(x, whole)
    n = whole.to_int_inside("i32")
    half = n.sar(1)
    for part in (half, n - half):
        x = x * ((part + 127) << 23).bits_as("f32")
    return x


def _scaled(x: Val, n: Val) -> Val:
    fn, name = x.fn, "llvm.x86.avx512.mask.scalef.ps.512"
    all_lanes, rounding = fn.const("i16", -1), fn.const("i32", 4)  # 4: as the thread has it
    return fn.call(name, (x, n, x, all_lanes, rounding), x.kind, x.lanes)


def _fraction(x: Val) -> Val:
    """Subtract the nearest whole number; of an infinity nothing is left."""
    fn, name = x.fn, "llvm.x86.avx512.mask.reduce.ps.512"
    nearest, all_lanes, rounding = fn.const("i32", 8), fn.const("i16", -1), fn.const("i32", 4)
    return fn.call(name, (x, nearest, x, all_lanes, rounding), x.kind, x.lanes)


def _clamp(x: Val, low: float, high: float) -> Val:
    """Keep x in [low, high]; NaN stays NaN."""
    x = x.gt(high).where(high, x)
    return x.lt(low).where(low, x)


def _exp(x: Val) -> Val:
    x = _clamp(x, -105.0, 89.5)
    n = (x * _LOG2E).unary("roundeven")
    r = n.fma(-_LN2_HI, x)
    r = n.fma(-_LN2_LO, r)
    y = poly(r, _EXP).fma(r * r, r) + 1.0
    return _times_power_of_two(y, n)


def _exp2(x: Val) -> Val:
    if _has_scaling(x):
        n = x.unary("roundeven")
        r = _fraction(x)
    else:
        x = _clamp(x, -152.0, 129.0)
        n = x.unary("roundeven")
        r = x - n
    return _times_power_of_two(poly(r, _EXP2).fma(r, 1.0), n)


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
    y = poly(f, _LOG) * f * f * f
    y = e.fma(_LN2_LO, y)
    y = (f * f).fma(-0.5, y)
    return _log_edges(x, e.fma(_LN2_HI, f + y))


def _log2(x: Val) -> Val:
    f, e = _split(x)
    y = (f * f).fma(-0.5, poly(f, _LOG) * f * f * f)
    # log2(e) = 1 + 0.4427: adding f and y themselves first keeps the leading bits.
    rest = f.fma(0.44269504088896340736, y * 0.44269504088896340736)
    return _log_edges(x, ((rest + y) + f) + e)


def _circular(x: Val, shift: int) -> Val:
    """Sine (shift 0) or cosine (shift 1), reduced and evaluated in float64."""
    sine, cosine, n = sine_cosine(x.fext("f64"))
    quadrant = n + shift
    value = (quadrant & 1).ne(0).where(cosine, sine)
    near = (quadrant & 2).ne(0).where(-value, value).fext("f32")
    y = _unless_far(x, near, "cos" if shift else "sin")
    return y if shift else x.eq(0.0).where(x, y)


def _unless_far(x: Val, near: Val, name: str) -> Val:
    """Take the C library's value where the argument is too large for our reduction."""
    far = x.unary("fabs").gt(_FAR)
    fn = x.fn
    result = fn.slot("f32", x.lanes)
    fn.store(near, result)
    with fn.if_(far.any_lane()):
        fn.store(far.where(call_library(name, x), near), result)
    return fn.load(result, "f32", x.lanes)


def _tanh(x: Val) -> Val:
    size = x.unary("fabs")
    large = _one_minus_two_over(_exp(size + size) + 1.0)
    z = x * x
    small = poly(z, _TANH).fma(z * x, x)
    return size.lt(0.625).where(small, large).minimum("copysign", x)


def _one_minus_two_over(x: Val) -> Val:
    two = x.fn.const(x.kind, 2.0, x.lanes)
    return -(two / x) + 1.0


def _rsqrt(x: Val) -> Val:
    return x.fn.const(x.kind, 1.0, x.lanes) / x.unary("sqrt")


def _cube_root(x: Val) -> tuple[Val, Val]:
    """Return the C library's cube root of float64, and what Newton's step adds to it."""
    root = call_library("cbrt", x)
    square = root * root
    rest = (-square).fma(root, x) - root.fma(root, -square) * root
    step = rest / (square * 3.0)
    return root, step.unary("fabs").cmp("olt", root.unary("fabs")).where(step, 0.0)


def _cbrt64(x: Val) -> Val:
    root, step = _cube_root(x)
    return step.eq(0.0).where(root, root + step)


def _rcbrt64(x: Val) -> Val:
    root, step = _cube_root(x)
    y = x.like(1.0) / root
    error = (-root).fma(y, 1.0) - step * y
    return error.is_nan().where(y, y.fma(error, y))


_CUBE_ROOTS = {"cbrt": _cbrt64, "rcbrt": _rcbrt64}
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
BINARY_FUNCTIONS = ("atan2", "pow", "jn", "yn")
FUNCTIONS = tuple(sorted({*_FLOAT32, *_EXACT, *LIBRARY, "rsqrt", "rcbrt"} - {*BINARY_FUNCTIONS}))


def apply_function(name: str, *args: Val) -> Val:
    """Emit a function of float32 or float64 values of any number of lanes.

    It is one of `FUNCTIONS`, or of `BINARY_FUNCTIONS`; the first operand of jn and yn is an i32.
    """
    x = args[-1]
    if name in _EXACT:
        return x.unary(_EXACT[name])
    if name == "rsqrt":
        return _rsqrt(x)
    if x.kind == "f32" and name in _FLOAT32:
        return _FLOAT32[name](x)
    if x.kind == "f32" and name in WIDE:
        near = WIDE[name](*[a.fext("f64") for a in args]).fext("f32")
        return _unless_far(x, near, name) if name == "tan" else near
    if name in _CUBE_ROOTS:
        return _CUBE_ROOTS[name](x)
    return call_library(name, *args)

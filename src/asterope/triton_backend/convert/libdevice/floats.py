"""What libdevice's functions that take floats apart, compare them or round them mean."""

from __future__ import annotations

import math

from asterope.triton_backend.convert.libdevice.terms import Meaning, Term, fp64_inside

__all__ = ["FLOATS", "PREDICATES"]

_MANTISSA = {32: 23, 64: 52}
_BIAS = {32: 127, 64: 1023}
_LOWEST = -(1 << 31)


def _next_after(x: Term, y: Term) -> Term:
    """The neighbour of x toward y: one code away from zero or toward it."""
    bits = x.bits()
    inward = x.lt(y) ^ x.gt(0.0)
    smallest = (y.bits() & (-1 << (x.type.bits - 1))) | 1
    moved = x.eq(0.0).where(smallest, inward.where(bits - 1, bits + 1)).as_float()
    moved = x.eq(y).where(y, moved)
    return x.compare("uno", y).where(x + y, moved)


def _round_half_away(x: Term) -> Term:
    whole = x.apply("trunc")
    away = whole + x.like(1.0).signed_as(x)
    return (x - whole).abs().ge(0.5).where(away, whole).signed_as(x)


def _positive_difference(x: Term, y: Term) -> Term:
    return x.compare("ule", y).where(x.compare("uno", y).where(x + y, 0.0), x - y)


def _exponent(x: Term) -> Term:
    """The exponent of a finite number other than zero, as an integer; subnormals are scaled up."""
    bits, fraction = x.type.bits, _MANTISSA[x.type.bits]
    small = x.abs().lt(2.0 ** (1 - _BIAS[bits]))
    scaled = small.where(x * 2.0**64, x)
    raw = (scaled.bits() >> fraction) & ((1 << (bits - 1 - fraction)) - 1)
    return small.where(raw - (_BIAS[bits] + 64), raw - _BIAS[bits])


def _logb(x: Term) -> Term:
    y = _exponent(x).convert(x.elem, "from_signed")
    y = x.eq(0.0).where(-math.inf, y)
    y = x.abs().eq(math.inf).where(math.inf, y)
    return x.is_nan().where(x, y)


def _ilogb(x: Term) -> Term:
    exponent = _exponent(x)
    y = exponent if exponent.elem == "i32" else exponent.convert("i32", "trunc")
    y = x.abs().eq(math.inf).where(-_LOWEST - 1, y)
    return x.compare("ueq", 0.0).where(_LOWEST, y)


def _power_of_two(n: Term) -> Term:
    """2^n in fp64 for an i32 in [-1022, 1023]."""
    return ((n.convert("i64", "sext") + 1023) << 52).as_float()


def _scale(x: Term, n: Term) -> Term:
    """Return x 2^n, rounded once: steps down keep 53 bits above the last one that may lose some."""
    n = n.apply("maxs", -2200).apply("mins", 2200)
    for _ in range(2):
        huge = n.gt(1023)
        x, n = huge.where(x * 2.0**1023, x), huge.where(n - 1023, n)
    for _ in range(2):
        tiny = n.lt(-1022)
        x, n = tiny.where(x * 2.0**-969, x), tiny.where(n + 969, n)
    return x * _power_of_two(n.apply("maxs", -1022).apply("mins", 1023))


def _remainder(x: Term, y: Term) -> Term:
    """Take from x the nearest multiple of y, of two as near the even one; no step rounds."""
    p = y.abs()
    r = x.abs().apply("frem", p + p)
    over_half = r.gt(p - r)
    once = r - p
    twice = once.ge(p - once).where(once - p, once)
    r = over_half.where(twice, r)
    return (r.bits() ^ (x.bits() & (-1 << 63))).as_float()


def _flag(holds: Term) -> Term:
    return holds.convert("i32", "zext")


def _is_finite(x: Term) -> Term:
    return _flag(x.abs().lt(math.inf))


# Both fp32 (with a trailing f) and fp64.
FLOATS: dict[str, Meaning] = {
    **{
        name: lambda x, op=op: x.apply(op)
        for name, op in (
            ("floor", "floor"), ("ceil", "ceil"), ("trunc", "trunc"), ("rint", "rint"),
            ("nearbyint", "rint"), ("fabs", "abs"),
        )
    },
    "copysign": lambda x, y: x.signed_as(y),
    "nextafter": _next_after,
    "round": _round_half_away,
    "llrint": lambda x: x.apply("rint").convert("i64", "to_signed"),
    "llround": lambda x: _round_half_away(x).convert("i64", "to_signed"),
    "fdim": _positive_difference,
    "fmin": lambda x, y: x.apply("fmin", y),
    "fmax": lambda x, y: x.apply("fmax", y),
    "logb": _logb,
    "ilogb": _ilogb,
    "ldexp": fp64_inside(_scale),
    "scalbn": fp64_inside(_scale),
    "fmod": lambda x, y: x.apply("frem", y),
    "remainder": fp64_inside(_remainder),
    "fma": lambda x, y, z: x.fma(y, z),
}  # fmt: skip
PREDICATES: dict[str, Meaning] = {
    "isnanf": lambda x: _flag(x.is_nan()), "isnand": lambda x: _flag(x.is_nan()),
    "isinff": lambda x: _flag(x.abs().eq(math.inf)),
    "isinfd": lambda x: _flag(x.abs().eq(math.inf)),
    "finitef": _is_finite, "isfinited": _is_finite,
    "signbitf": lambda x: _flag(x.bits().lt(0)), "signbitd": lambda x: _flag(x.bits().lt(0)),
}  # fmt: skip

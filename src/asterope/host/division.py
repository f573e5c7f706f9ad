"""Vectors divided by one number, without a divider for every element.

A divider takes 16 cycles for 16 numbers where a multiplier takes one. With 1/d as y + z, which is
exact to twice as many digits, q = x y + x z is less than one unit in the last place off x/d. Then
q + y (x - d q) is x/d correctly rounded (Markstein, IBM J. R&D 34 (1990)): the bits are the
divider's. That holds as long as nothing underflows or overflows on the way, so what is outside of
the limits below, zeros but +0 among it, goes to the divider; so do negative divisors, of which x z
would take the sign from a quotient that is zero.
"""

from __future__ import annotations

from asterope.native import Val

__all__ = ["divide"]

# Exponents in float32's code: 2^-100 <= |x| < 2^100, 2^-24 <= d < 2^24.
_X_LIMITS = (27 << 23, 227 << 23)
_D_LIMITS = (103 << 23, 151 << 23)


def divide(x: Val, d: Val) -> Val:
    """Return x / d, each lane rounded once; `d` may be a scalar."""
    pays = x.kind == "f32" and x.fn.isa.has_wide_masks and x.lanes and not d.lanes
    if not pays or d.ref[0] != "%":
        return x / d
    fn = x.fn
    bits = x.bits_as("i32")
    is_hard = (bits.ne(0) & _is_outside(bits & 0x7FFFFFFF, _X_LIMITS)).any_lane()
    result = fn.slot(x.kind, x.lanes)
    with fn.if_else(is_hard | _is_outside(d.bits_as("i32"), _D_LIMITS)) as otherwise:
        fn.store(x / d, result)
        otherwise()
        one = d.like(1.0)
        y = one / d
        z = y.fma(-d, one) * y
        q = x.fma(y, x * z)
        fn.store(q.fma(-d, x).fma(y, q), result)
    return fn.load(result, x.kind, x.lanes)


def _is_outside(code: Val, limits: tuple[int, int]) -> Val:
    """Whether a number that is not negative, by its code, is outside of a range."""
    least, end = limits
    return (code - least).cmp("uge", end - least)

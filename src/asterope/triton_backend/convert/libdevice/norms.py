"""What libdevice's lengths of vectors mean: no overflow inside, and one rounding's error."""

from __future__ import annotations

import functools
import math

from asterope.triton_backend.convert.libdevice.terms import Meaning, Term, fp64_inside

__all__ = ["NORMS"]

_EXPONENT = 0x7FF << 52


def _sum_of_squares(sizes: list[Term]) -> tuple[Term, Term]:
    """Add squares, keeping what each step rounds off: the sum is high + low."""
    high = low = sizes[0].like(0.0)
    for a in sizes:
        square = a * a
        low = low + a.fma(a, -square)
        total = high + square
        part = total - high
        low = low + ((high - (total - part)) + (square - part))
        high = total
    return high, low


def _scaled(sizes: list[Term]) -> tuple[list[Term], Term]:
    """Divide by the power of two below the largest; return it too, kept away from the extremes."""
    largest = functools.reduce(lambda a, b: a.apply("fmax", b), sizes)
    power = (largest.bits() & _EXPONENT).as_float()
    power = power.apply("fmax", 2.0**-1000).apply("fmin", 2.0**1000)
    return [a / power for a in sizes], power


def _special(sizes: list[Term], usual: Term, at_infinity: float) -> Term:
    """An infinite side makes the length infinite, whatever the others; then NaN makes it NaN."""
    infinite = functools.reduce(lambda a, b: a | b, [a.eq(math.inf) for a in sizes])
    total = functools.reduce(lambda a, b: a + b, sizes)
    return infinite.where(at_infinity, total.is_nan().where(total, usual))


def _length(*sides: Term) -> Term:
    sizes = [x.abs() for x in sides]
    scaled, power = _scaled(sizes)
    high, low = _sum_of_squares(scaled)
    root = high.apply("sqrt")
    rest = (-root).fma(root, high) + low
    exact = root + rest / (root + root)
    usual = high.eq(0.0).where(0.0, exact) * power
    return _special(sizes, usual, math.inf)


def _reciprocal_length(*sides: Term) -> Term:
    sizes = [x.abs() for x in sides]
    scaled, power = _scaled(sizes)
    high, low = _sum_of_squares(scaled)
    root = high.apply("sqrt")
    y = root.like(1.0) / root
    rest = (-root).fma(root, high) + low
    # 1 - y^2 (high + low), from the errors of the root and of the division.
    error = (-root).fma(y, 1.0) * 2.0 - rest * y * y
    exact = y + y * error * 0.5
    usual = high.eq(0.0).where(math.inf, exact) / power
    return _special(sizes, usual, 0.0)


NORMS: dict[str, Meaning] = {
    **dict.fromkeys(("hypot", "norm3d", "norm4d"), fp64_inside(_length)),
    **dict.fromkeys(("rhypot", "rnorm3d", "rnorm4d"), fp64_inside(_reciprocal_length)),
}

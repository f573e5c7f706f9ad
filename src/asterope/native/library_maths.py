"""Functions of the C library, called for one lane after the other."""

from __future__ import annotations

from collections.abc import Sequence

from asterope.native.build import Val

__all__ = ["LIBRARY", "call_library"]

# Functions of float64; every C library on Linux and macOS has them under these names.
LIBRARY = (
    "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "cbrt", "erf", "erfc", "lgamma",
    "tgamma", "j0", "j1", "y0", "y1", "atan2", "pow", "jn", "yn",
)  # fmt: skip


def call_library(name: str, *args: Val) -> Val:
    """Call a float64 function of the C library for each lane, rounding back at the end.

    Integer operands are passed as they are.
    """
    x = args[-1]
    if not x.lanes:
        return _call_one(name, args)
    result = x.fn.undef(x.kind, x.lanes)
    for i in range(x.lanes):
        result = result.with_lane(i, _call_one(name, [a.lane(i) for a in args]))
    return result


def _call_one(name: str, args: Sequence[Val]) -> Val:
    x = args[-1]
    wide = [a.fext("f64") if a.is_float else a for a in args]
    return x.fn.call(name, wide, "f64").fext(x.kind)

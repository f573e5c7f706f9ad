"""Arithmetic rounded up, down or to zero, from exact fractions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.ir.program import Op

__all__ = ["directed"]

Array = npt.NDArray[Any]
Float = Any  # np.float32 or np.float64

_NEAREST: dict[str, Callable[..., Any]] = {
    "fadd": np.add, "fsub": np.subtract, "fmul": np.multiply, "fdiv": np.divide, "sqrt": np.sqrt,
    "fma": lambda a, b, c: c if np.isfinite([a, b]).all() and not np.isfinite(c) else a * b + c,
}  # fmt: skip
_EXACT: dict[str, Callable[..., Fraction]] = {
    "fadd": lambda a, b: a + b, "fsub": lambda a, b: a - b, "fmul": lambda a, b: a * b,
    "fdiv": lambda a, b: a / b, "fma": lambda a, b, c: a * b + c,
}  # fmt: skip


_TERMS: dict[str, Callable[..., tuple[Float, Float]]] = {
    "fadd": lambda a, b: (a, b), "fsub": lambda a, b: (a, -b), "fma": lambda a, b, c: (a * b, c),
}  # fmt: skip


def directed(op: Op, *args: Array) -> Array:
    """Apply `of` to each element, rounded as `rounding` says."""
    of, rounding = op.attrs["of"], op.attrs["rounding"]
    flat = zip(*(a.reshape(-1) for a in args), strict=True)
    values = [_one(of, rounding, list(numbers)) for numbers in flat]
    return np.array(values, args[0].dtype).reshape(args[0].shape)


def _one(of: str, rounding: str, args: list[Float]) -> Float:
    """Compute one element; infinities, NaN and poles are the same in every rounding."""
    near = _NEAREST[of](*args)
    finite = all(np.isfinite(a) for a in args)
    if not finite or (of == "fdiv" and args[1] == 0) or (of == "sqrt" and args[0] <= 0):
        return near
    if of == "sqrt":
        square = Fraction(float(args[0]))
        return _rounded(rounding, near, 1, lambda r: _sign(r * abs(r) - square))
    exact = _EXACT[of](*[Fraction(float(a)) for a in args])
    if exact == 0:
        return _zero(of, rounding, args)
    return _rounded(rounding, _nearest(exact, near), _sign(exact), lambda r: _sign(r - exact))


def _nearest(exact: Fraction, like: Float) -> Float:
    try:
        return np.asarray(float(exact)).astype(like.dtype)[()]
    except OverflowError:
        return np.asarray(math.inf if exact > 0 else -math.inf, like.dtype)[()]


def _sign(x: Fraction) -> int:
    return (x > 0) - (x < 0)


def _rounded(rounding: str, near: Float, sign: int, compare: Callable[[Fraction], int]) -> Float:
    """Find the float beside an exact value, to which `compare` compares a fraction."""
    above = rounding == "up" or (rounding == "toward_zero" and sign < 0)
    side = 1 if above else -1
    goal = np.asarray(math.inf * side, near.dtype)

    def is_beyond(x: Float) -> bool:
        return bool(x == goal) or (np.isfinite(x) and compare(Fraction(float(x))) * side >= 0)

    x = near
    while not is_beyond(x):
        x = np.nextafter(x, goal)
    while is_beyond(back := np.nextafter(x, -goal)):
        x = back
    return np.copysign(x, np.asarray(sign, x.dtype))


def _zero(of: str, rounding: str, args: list[Float]) -> Float:
    """Return the zero that terms add up to: where they cancel, down gives -0."""
    near = _NEAREST[of](*args)
    if rounding != "down" or of not in _TERMS:
        return near
    cancel = any(t != 0 or np.signbit(t) for t in _TERMS[of](*args))
    return -np.abs(near) if cancel else near

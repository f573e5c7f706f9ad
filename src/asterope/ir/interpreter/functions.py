"""Mathematical functions in float64, as NumPy, Python and the C library define them."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FUNCTIONS"]

Array = npt.NDArray[Any]


def _one_by_one(f: Callable[..., float]) -> Callable[..., Array]:
    return np.vectorize(f, otypes=[np.float64])


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("m"))


def _of_c(name: str, *operands: Any) -> Callable[..., Array]:
    """Look a function up in the C library when it is first called."""

    def call(*args: float) -> float:
        function = _c_library()[name]
        function.restype, function.argtypes = ctypes.c_double, operands
        return float(function(*args))

    return _one_by_one(call)


def _cube_root(x: float) -> float:
    """Choose the best of the library's cube root and its neighbours."""
    root = math.cbrt(x)
    return _best(root, lambda y: Fraction(y) ** 3 - Fraction(x)) if math.isfinite(x) else root


def _reciprocal_cube_root(x: float) -> float:
    if x == 0 or not math.isfinite(x):
        return float(1.0 / np.cbrt(x))
    return _best(1.0 / math.cbrt(x), lambda y: Fraction(y) ** 3 * Fraction(x) - 1)


def _best(near: float, error: Callable[[float], Fraction]) -> float:
    reach = np.arange(-4, 5) * np.spacing(near)
    return float(min((near + reach).tolist(), key=lambda y: abs(error(y))))


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "cbrt": _one_by_one(_cube_root), "rcbrt": _one_by_one(_reciprocal_cube_root),
    "erf": _one_by_one(math.erf), "erfc": _one_by_one(math.erfc),
    "atan2": np.arctan2, "pow": np.power,
    **{name: _of_c(name, ctypes.c_double) for name in ("lgamma", "tgamma", "j0", "j1", "y0", "y1")},
    **{name: _of_c(name, ctypes.c_int32, ctypes.c_double) for name in ("jn", "yn")},
}  # fmt: skip

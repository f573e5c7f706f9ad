"""Element codes to numbers and back: the definition, by table and search."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt

from asterope.errors import FormatError
from asterope.formats.stochastic import check_seed, uniform32
from asterope.formats.table import ElementFormat, element

__all__ = [
    "Overflow",
    "Rounding",
    "as_float32",
    "check_encode",
    "check_rounding",
    "check_values",
    "decode",
    "encode",
]

Rounding = Literal["nearest_even", "stochastic", "toward_zero"]
Overflow = Literal["saturate", "special"]

_INPUT_DTYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def check_values(x: npt.ArrayLike, *, where: str = "x") -> npt.NDArray[Any]:
    """Return an array of float32, float16 or bfloat16, which float32 holds exactly.

    Raises: FormatError for any other type: a silent second rounding would change codes.
    """
    x = np.asarray(x)
    if x.dtype not in _INPUT_DTYPES:
        raise FormatError(
            f"values are {x.dtype}; float32, float16 or bfloat16 is needed",
            where=where,
            hint="convert first, for example x.astype(np.float32)",
        )
    return x


def as_float32(x: npt.ArrayLike, *, where: str = "x") -> npt.NDArray[np.float32]:
    """Return the same numbers as float32.

    Raises: FormatError; see `check_values`.
    """
    return check_values(x, where=where).astype(np.float32)


@cache
def _values(fmt: ElementFormat) -> npt.NDArray[np.float32]:
    return np.array([fmt.value(code) for code in range(fmt.num_codes)], np.float32)


@cache
def _magnitudes(fmt: ElementFormat) -> npt.NDArray[np.float64]:
    """Return the magnitudes of codes 0..max_code, and the one that would come next."""
    finite = np.array([fmt.value(code) for code in range(fmt.max_code + 1)], np.float64)
    return np.append(finite, 2 * finite[-1] - finite[-2])


def decode(codes: npt.NDArray[Any], fmt: str | ElementFormat) -> npt.NDArray[np.float32]:
    """Return the numbers that codes stand for; every format here fits float32 exactly.

    Shapes: codes [...], one unpacked code per item; result the same.
    Raises: FormatError for a code the format does not have.
    """
    fmt = element(fmt)
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise FormatError(f"codes are {codes.dtype}; integers are needed", where=fmt.name)
    outside = (codes < 0) | (codes > fmt.num_codes - 1)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise FormatError(
            f"code {int(codes[index])} is outside 0..{fmt.num_codes - 1}",
            where=f"{fmt.name} codes{list(index)}",
            hint="a packed array has to be unpacked, a signed one viewed as unsigned",
        )
    if fmt.bits == 32:
        return codes.astype(np.uint32).view(np.float32)
    values: npt.NDArray[np.float32] = _values(fmt)[codes]
    return values


def check_rounding(rounding: str, seed: int | None) -> None:
    """Check a rounding mode and its seed.

    Raises: FormatError for an unknown mode, or stochastic rounding without a usable seed.
    """
    if rounding not in get_args(Rounding):
        raise FormatError(
            f"there is no rounding named {rounding!r}",
            where="rounding",
            hint=f"the roundings are {', '.join(get_args(Rounding))}",
        )
    if rounding != "stochastic":
        return
    if seed is None:
        raise FormatError(
            "stochastic rounding needs a seed",
            where="seed",
            hint="the same seed gives the same codes, for example seed=0",
        )
    check_seed(seed)


def check_encode(
    x: npt.ArrayLike,
    fmt: str | ElementFormat,
    *,
    rounding: Rounding,
    overflow: Overflow,
    seed: int | None,
) -> tuple[npt.NDArray[Any], ElementFormat]:
    """Check the arguments of `encode` and return the values and the format.

    Raises: FormatError.
    """
    fmt = element(fmt)
    check_rounding(rounding, seed)
    if overflow not in get_args(Overflow):
        raise FormatError(
            f"there is no overflow mode named {overflow!r}",
            where="overflow",
            hint=f"the modes are {', '.join(get_args(Overflow))}",
        )
    if fmt.specials == "scale":
        raise FormatError(
            "a scale is not rounded to nearest: its code follows from a scale rule",
            where=fmt.name,
            hint="use scale_codes(amax, element, rule)",
        )
    return check_values(x), fmt


def _round(
    magnitude: npt.NDArray[np.float64], fmt: ElementFormat, rounding: Rounding, seed: int | None
) -> npt.NDArray[np.int64]:
    """Return the code of each rounded magnitude; max_code + 1 stands for overflow."""
    grid = _magnitudes(fmt)
    lower = np.searchsorted(grid, magnitude, side="right") - 1
    lower = np.minimum(lower, fmt.max_code)
    # Neighbours are a power of two apart, so the subtraction and the division are exact.
    fraction = (magnitude - grid[lower]) / (grid[lower + 1] - grid[lower])
    if rounding == "nearest_even":
        up = (fraction > 0.5) | ((fraction == 0.5) & (lower % 2 == 1))
    elif rounding == "toward_zero":
        reaches_lowest = (fraction >= 1) & (fmt.specials == "integer")
        up = np.isinf(magnitude) | reaches_lowest
    else:
        assert seed is not None
        indices = np.arange(magnitude.size, dtype=np.uint64).reshape(magnitude.shape)
        up = uniform32(seed, indices) < fraction * 2.0**32
    rounded: npt.NDArray[np.int64] = lower + up
    return rounded


def encode(
    x: npt.NDArray[Any],
    fmt: str | ElementFormat,
    *,
    rounding: Rounding = "nearest_even",
    overflow: Overflow = "saturate",
    seed: int | None = None,
) -> npt.NDArray[Any]:
    """Return the codes of numbers, rounded.

    - Nearest takes the even code of two equally near. Past the largest finite value the format is
      continued by one step, so that a value rounds to overflow exactly when IEEE 754 says so.
    - Stochastic goes up when `uniform32(seed, flat index)` < fraction x 2^32, where fraction is the
      place between the two neighbours: the expected value is the input to within 2^-32 of the gap.
    - Toward zero never leaves the finite range, except from infinity.
    - Overflow and infinity `saturate` to the largest finite value, or become `special`: infinity
      where the format has it, else NaN, else the largest finite value.
    - NaN gives the format's NaN; the sign of zero and NaN is kept where the format has one.
    - Integers are two's complement with the full range, so int8 saturates to -128 and 127.
    - fp32 keeps all bits as they are.

    Shapes: x [...]; result the same, one unpacked code per item.
    Raises: FormatError for NaN in a format without it (the first place is named), for e8m0, whose
    codes depend on a scale rule (`scale.py`), and for wrong options.
    """
    values, fmt = check_encode(x, fmt, rounding=rounding, overflow=overflow, seed=seed)
    x = values.astype(np.float32)
    if fmt.bits == 32:
        return x.view(np.uint32)
    is_nan = np.isnan(x)
    if is_nan.any() and not fmt.has_nan:
        index = [int(i) for i in np.argwhere(is_nan)[0]]
        raise FormatError(
            "the value is NaN and the format has no NaN",
            where=f"{fmt.name} x{index}",
            hint="quantize() marks the scale of a block with NaN instead",
        )
    negative = np.signbit(x)
    magnitude = np.where(is_nan, np.float32(0), np.abs(x)).astype(np.float64)
    index_codes = _round(magnitude, fmt, rounding, seed)
    return _signed_codes(index_codes, negative, is_nan, fmt, overflow)


def _signed_codes(
    codes: npt.NDArray[np.int64],
    negative: npt.NDArray[np.bool_],
    is_nan: npt.NDArray[np.bool_],
    fmt: ElementFormat,
    overflow: Overflow,
) -> npt.NDArray[Any]:
    if fmt.specials == "integer":
        codes = np.where(negative, -codes, np.minimum(codes, fmt.max_code))
        return (codes % fmt.num_codes).astype(fmt.code_dtype)
    too_large = codes > fmt.max_code
    codes = np.minimum(codes, fmt.max_code)
    if overflow == "special" and fmt.has_inf:
        codes = np.where(too_large, fmt.inf_code, codes)
    elif overflow == "special" and fmt.has_nan:
        is_nan = is_nan | too_large
    if fmt.specials == "fnuz":
        codes = np.where(negative & (codes > 0), codes + fmt.sign_code, codes)
        return np.where(is_nan, fmt.nan_code, codes).astype(fmt.code_dtype)
    if fmt.has_nan:
        codes = np.where(is_nan, fmt.nan_code, codes)
    return np.where(negative, codes + fmt.sign_code, codes).astype(fmt.code_dtype)

"""Round columns one after another, each by what those before left: GPTQ's inner loop, compiled."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from asterope.formats import ElementFormat, decode, encode
from asterope.formats import element as element_named

__all__ = ["load_column_loop", "round_columns"]

_Floats = npt.NDArray[np.float32]
_Side = tuple[_Floats, _Floats, npt.NDArray[np.uint8]]

_ROWS = 256
"""Rows whose errors in one block of columns stay in the second-level cache."""


def round_columns(
    left: _Floats, scales: _Floats, factor: _Floats, element: ElementFormat
) -> tuple[npt.NDArray[np.uint8], _Floats]:
    """Return codes of C columns and the errors that those to come make up for.

    Columns lie as rows here: `left` is what they are, without what earlier blocks left, and is
    overwritten. Each is rounded to nearest after it made up for those before, by the factor's
    entries above its diagonal.

    Shapes: left and scales [C, N]; factor [C, C]; results [C, N].
    """
    codes, errors = np.empty(left.shape, np.uint8), np.empty_like(left)
    above, below = _sides(element)
    _round_columns(left, scales, factor, above, below, codes, errors)
    return codes, errors


def load_column_loop() -> None:
    """Load the compiled loop and what runs it, 60 MB: before the memory of a phase is measured."""
    one = np.ones((1, 1), np.float32)
    round_columns(one.copy(), one, one, element_named("e2m1"))


@cache
def _sides(element: ElementFormat) -> tuple[_Side, _Side]:
    """Return numbers from zero up, and from minus zero down: magnitudes, limits, codes.

    A magnitude beyond `limits[i]` rounds past `magnitudes[i]`; ties go to even places, as codes do.
    """
    values = decode(np.arange(element.num_codes).astype(element.code_dtype), element)
    values = values[np.isfinite(values)]
    return _side(values[values >= 0], 1, element), _side(values[values <= 0], -1, element)


def _side(values: _Floats, sign: int, element: ElementFormat) -> _Side:
    magnitudes = np.unique(np.abs(values))
    middles = (magnitudes[1:] + magnitudes[:-1]) / np.float32(2)  # exact: few bits
    middles[1::2] = np.nextafter(middles[1::2], np.float32(0))  # from an odd place a tie goes up
    return magnitudes, middles, encode(np.copysign(magnitudes, np.float32(sign)), element)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _round_columns(
    left: Any, scales: Any, factor: Any, above: Any, below: Any, codes: Any, errors: Any
) -> None:
    num_columns, num_rows = left.shape
    for first in range(0, num_rows, _ROWS):
        last = min(first + _ROWS, num_rows)
        for j in range(num_columns):
            column = left[j, first:last]
            for i in range(j):
                share, error = factor[i, j], errors[i, first:last]
                for r in range(last - first):
                    column[r] -= share * error[r]
            for r in range(last - first):
                scale = scales[j, first + r]
                wanted = column[r] / scale
                magnitudes, limits, of = below if np.signbit(wanted) else above
                place, end = 0, len(limits)
                while place < end:
                    middle = (place + end) // 2
                    if abs(wanted) > limits[middle]:
                        place = middle + 1
                    else:
                        end = middle
                value = magnitudes[place] if wanted > 0 else -magnitudes[place]
                codes[j, first + r] = of[place]
                errors[j, first + r] = (column[r] - value * scale) / factor[j, j]

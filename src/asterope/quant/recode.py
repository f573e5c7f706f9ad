"""Codes of six and four bits as the e4m3 codes of the same numbers, and back."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from asterope.formats import ElementFormat, decode, encode

__all__ = ["from_e4m3", "to_e4m3"]

Codes = npt.NDArray[np.uint8]


@cache
def _table(element: ElementFormat) -> Codes:
    """Return the e4m3 code of every code; e4m3 holds e2m3 and e1m2 exactly, signed zeros too."""
    values = decode(np.arange(element.num_codes, dtype=np.uint8), element)
    codes: Codes = encode(values, "e4m3").astype(np.uint8)
    assert np.array_equal(decode(codes, "e4m3"), values)
    return codes


def to_e4m3(codes: Codes, element: ElementFormat) -> Codes:
    """Return the e4m3 codes of the numbers that codes of `element` stand for."""
    return _table(element)[codes]


def from_e4m3(codes: Codes, element: ElementFormat) -> Codes:
    """Return the codes of `element`: the inverse of `to_e4m3`, defined for what it gives."""
    table = _table(element)
    inverse = np.zeros(256, np.uint8)
    inverse[table] = np.arange(element.num_codes, dtype=np.uint8)
    return inverse[codes]

"""Element types: how Triton, NumPy and torch call them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

__all__ = ["ELEMENTS", "FLOATS", "FP8", "INTEGERS", "Element"]


@dataclass(frozen=True)
class Element:
    """An element type; `kind` is b(ool), i(nteger), u(nsigned), f(loat) or 8 (fp8).

    `whole` is the largest number up to which all whole numbers are representable.
    """

    name: str
    kind: str
    dtype: np.dtype
    torch: str
    whole: int = 0

    @property
    def bits(self):
        return 1 if self.kind == "b" else 8 * self.dtype.itemsize

    @property
    def is_integer(self):
        return self.kind in "iu"


def _table():
    yield Element("int1", "b", np.dtype(np.bool_), "bool")
    for bits in (8, 16, 32, 64):
        for kind in ("int", "uint"):
            name = f"{kind}{bits}"
            yield Element(name, kind[0], np.dtype(name), name)
    yield Element("float16", "f", np.dtype(np.float16), "float16", 1 << 11)
    yield Element("bfloat16", "f", np.dtype(ml_dtypes.bfloat16), "bfloat16", 1 << 8)
    yield Element("float32", "f", np.dtype(np.float32), "float32", 1 << 24)
    yield Element("float64", "f", np.dtype(np.float64), "float64", 1 << 53)
    yield Element("float8e4nv", "8", np.dtype(ml_dtypes.float8_e4m3fn), "float8_e4m3fn", 1 << 4)
    yield Element("float8e5", "8", np.dtype(ml_dtypes.float8_e5m2), "float8_e5m2", 1 << 3)


ELEMENTS = {e.name: e for e in _table()}
INTEGERS = [e for e in ELEMENTS.values() if e.is_integer]
FLOATS = [e for e in ELEMENTS.values() if e.kind == "f"]
FP8 = [e for e in ELEMENTS.values() if e.kind == "8"]

"""A kernel that runs examples of one op on arrays."""

from __future__ import annotations

import numpy as np

from asterope.ir import INTEGERS, Type, dtype_of
from ir_builder import Writer

__all__ = ["Case", "contents"]


class Case:
    """A kernel under construction: loads from x0, x1, ..., stores to y0, y1, ..."""

    def __init__(self):
        self.writer = Writer()
        self.arrays = []

    def load(self, elem, shape, seed=0):
        name = f"x{len(self.arrays)}"
        self.writer.param(name, f"ptr<{elem}>")
        self.arrays.append(contents(elem, int(np.prod(shape)), seed + len(self.arrays)))
        return self.writer.load(name, shape)

    def store(self, value):
        name = f"y{len(self.arrays)}"
        self.writer.param(name, f"ptr<{value.type.elem}>")
        self.arrays.append(np.zeros(value.type.num_elements, dtype_of(value.type)))
        self.writer.store(name, value)


def contents(elem, count, seed):
    rng = np.random.default_rng(seed)
    dtype = dtype_of(Type(elem))
    if elem == "i1":
        return rng.random(count) < 0.5
    raw = rng.integers(0, 256, count * dtype.itemsize, dtype=np.uint8).view(dtype)
    if elem in INTEGERS:
        edges = np.array([0, 1, -1, 8 * dtype.itemsize, np.iinfo(dtype).min, 7]).astype(dtype)
        return np.where(rng.random(count) < 0.5, rng.choice(edges, count), raw)
    usual = rng.standard_normal(count).astype(np.float32).astype(dtype)
    specials = np.array([0.0, -0.0, np.inf, -np.inf, np.nan]).astype(dtype)
    kind = rng.random(count)
    return np.where(kind < 0.3, raw, np.where(kind < 0.5, rng.choice(specials, count), usual))

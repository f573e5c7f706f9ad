"""A random kernel with the arrays and numbers it is run on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from asterope.ir import INTEGERS, Type, dtype_of

__all__ = ["SLICE", "Array", "Generated"]

SLICE = 512  # elements of each array that belong to one program


@dataclass
class Array:
    """An array parameter: read, read and written, or only written (then perhaps inexact)."""

    name: str
    elem: str
    role: str
    exact: bool = True


@dataclass
class Generated:
    """A kernel with arguments for it, in the order of its parameters."""

    kernel: object
    grid: tuple
    arrays: list = field(default_factory=list)
    scalars: list = field(default_factory=list)
    seed: int = 0
    tame: bool = True
    alias: bool = False

    def arguments(self):
        """Make arrays and numbers; with `alias` two arrays of one element are one array."""
        rng = np.random.default_rng(self.seed)
        count = SLICE * int(np.prod(self.grid))
        made = {a.name: _content(rng, a.elem, count, self.tame) for a in self.arrays}
        if self.alias:
            first = {}
            for a in self.arrays:
                if a.exact:
                    made[a.name] = first.setdefault(a.elem, made[a.name])
        numbers = dict(self.scalars)
        return [numbers[p.name] if p.name in numbers else made[p.name] for p in self.kernel.params]

    def is_exact(self):
        """Tell for each array whether the format defines its bits."""
        return [a.exact for a in self.arrays]


def _content(rng, elem, count, tame):
    dtype = dtype_of(Type(elem))
    if elem == "i1":
        return rng.random(count) < 0.5
    if elem in INTEGERS:
        info = np.iinfo(dtype)
        x = rng.integers(info.min, info.max, count, dtype, endpoint=True)
        edges = np.array([0, 1, 2, 7, -1, info.min, info.max], dtype)
        return np.where(rng.random(count) < 0.4, rng.choice(edges, count), x)
    x = rng.standard_normal(count).astype(np.float32).astype(dtype)
    if not tame:
        bits = rng.integers(0, 256, count * dtype.itemsize, dtype=np.uint8).view(dtype)
        specials = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan]).astype(dtype)
        kind = rng.random(count)
        x = np.where(kind < 0.3, bits, np.where(kind < 0.45, rng.choice(specials, count), x))
    return x

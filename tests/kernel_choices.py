"""Decisions of the kernel generator, drawn and shrunk by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from generated_kernel import SLICE

__all__ = ["Choices"]


class Choices:
    """Decisions, each an integer that hypothesis draws and shrinks towards 0."""

    def __init__(self, draw):
        self.draw = draw

    def below(self, stop):
        return self.draw(st.integers(0, stop - 1))

    def one_of(self, options):
        options = list(options)
        return options[self.below(len(options))]

    def chance(self, percent):
        return self.below(100) >= 100 - percent

    def weighted(self, weights):
        return self.one_of([name for name, weight in weights.items() for _ in range(weight)])

    def layout(self, shape, *, unique):
        """Return strides and the first offset of a block that stays inside a slice."""
        strides = [int(np.prod(shape[d + 1 :])) for d in range(len(shape))]
        kind = self.one_of(["row", "column", "reversed", "gaps", "repeated"])
        if kind == "column":
            strides = [int(np.prod(shape[:d])) for d in range(len(shape))]
        elif kind == "gaps" and int(np.prod(shape)) * 2 <= SLICE:
            strides = [2 * s for s in strides]
        elif kind == "reversed" and shape:
            strides[self.below(len(shape))] *= -1
        elif kind == "repeated" and shape and not unique:
            strides[self.below(len(shape))] = 0
        steps = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
        low, high = sum(min(s, 0) for s in steps), sum(max(s, 0) for s in steps)
        room = SLICE - 1 - (high - low)
        return strides, -low + (self.below(min(room, 40) + 1) if self.chance(50) else 0)

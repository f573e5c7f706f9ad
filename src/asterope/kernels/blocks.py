"""A product, and how it is cut into blocks and placed in the chip's memories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["LARGE_GROUP", "Blocks", "Choice", "Operand"]

LARGE_GROUP = 8
"""Blocks of rows that neighbouring programs work on, where nothing speaks for fewer."""
Operand = Literal["x", "w", "y"]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Block sizes along M, N and K, the tile order, and the buffers of the pipeline.

    With a split, K is cut into that many parts, whose sums are then added in order. Usually a
    program's sums stay in its scratchpad (`stationary` is "y"); where "x" or "w" does, all of K is
    one block, and a program walks over `walk` blocks of the other operand. What is `pinned` stays
    in CSRAM while the rest passes through.
    """

    m: int
    n: int
    k: int
    group: int
    stages: int
    split: int = 1
    stationary: Operand = "y"
    walk: int = 1
    pinned: Operand | None = None

    @property
    def is_placed(self) -> bool:
        """Whether it is not the usual: sums stay in TSRAM, nothing is pinned, groups are large."""
        return self.stationary != "y" or self.pinned is not None or self.group < LARGE_GROUP

    @property
    def span_m(self) -> int:
        """Rows of the result that one program computes."""
        return self.m * (self.walk if self.stationary == "w" else 1)

    @property
    def span_n(self) -> int:
        """Columns of the result that one program computes."""
        return self.n * (self.walk if self.stationary == "x" else 1)

    def policy(self, operand: str) -> str:
        """Return how loads of an operand ask to be treated, in Triton's words."""
        return "evict_last" if self.pinned == operand else ""

    def part_depth(self, k: int) -> int:
        """Return how much of K one part sums: whole blocks."""
        return math.ceil(math.ceil(k / self.k) / self.split) * self.k

    def parts(self, k: int) -> int:
        """Return how many parts there are, none of them empty."""
        return max(1, math.ceil(k / self.part_depth(k))) if k else 1


@dataclass(frozen=True, slots=True)
class Choice:
    """A product that blocks are chosen for: [m, k] x [k, n] with elements of so many bits.

    `k_step` divides the K block. With scales, one byte for each `scale_group` elements of K, these
    are read in runs of their own; where scales are numbers of a row for each `scale_step` elements,
    operands and scales are loaded so much of K at a time. Rows of `experts`, each with a weight
    [k, n] of its own, are taken to be spread over them at random.
    """

    m: int
    n: int
    k: int
    a_bits: int
    b_bits: int
    k_step: int = 32
    scale_group: int = 0
    experts: int = 0
    scale_step: int = 0

"""Rows that are sorted by expert, as the products of experts take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import triton

from asterope.errors import ShapeError

__all__ = ["ExpertRows", "Spread", "num_experts"]


@dataclass(frozen=True, slots=True, eq=False)
class ExpertRows:
    """Say which rows are whose: those of expert e are starts[e] to starts[e + 1].

    Shapes: starts [E + 1], int32, from 0 to the number of rows.
    """

    starts: torch.Tensor

    def __post_init__(self) -> None:
        if self.starts.dim() != 1 or self.starts.dtype != torch.int32 or len(self.starts) < 2:
            raise ShapeError(
                f"are {self.starts.dtype} {list(self.starts.shape)}, not int32 [experts + 1]",
                where="starts of experts",
            )

    def __len__(self) -> int:
        """Return how many experts there are."""
        return len(self.starts) - 1

    def check(self, kernel: str, rows: int, outputs: int) -> int:
        """Check that experts share the outputs of a stack of weights; return those of each.

        Raises: ShapeError.
        """
        if outputs % len(self):
            raise ShapeError(f"{len(self)} experts do not share {outputs} outputs", where=kernel)
        starts = self.starts.tolist()
        if starts[0] != 0 or starts[-1] != rows or starts != sorted(starts):
            raise ShapeError(
                f"do not go from 0 to {rows} rows", where=f"starts of experts, {kernel}"
            )
        return outputs // len(self)

    def most_blocks(self, rows: int, block: int) -> int:
        """Return how many blocks of so many rows there are at most, each of one expert."""
        return min(rows, len(self)) + max(rows - len(self), 0) // block


def num_experts(experts: ExpertRows | None) -> int:
    """Return how many experts there are, 0 where a product has none."""
    return 0 if experts is None else len(experts)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a product's kernel is told of the experts that its rows are of, if they are of any."""

    row_blocks: int
    args: tuple[torch.Tensor | None, int | None]
    constants: Mapping[str, int]

    @classmethod
    def of(cls, experts: ExpertRows | None, rows: int, block: int) -> Spread:
        """Return what a kernel needs for blocks of so many rows."""
        if experts is None:
            return cls(triton.cdiv(rows, block), (None, None), {"EXPERTS": 0, "WIDTH": 1})
        count, width = len(experts), triton.next_power_of_2(len(experts))
        blocks = experts.most_blocks(rows, block)
        return cls(blocks, (experts.starts, blocks), {"EXPERTS": count, "WIDTH": width})

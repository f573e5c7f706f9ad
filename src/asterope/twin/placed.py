"""A linear layer in its place on a timeline: what it launches is filed under that name."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asterope.kernels import ExpertRows
from asterope.llm import Linear
from asterope.runtime import Timeline
from asterope.twin.active import with_active_flop
from asterope.twin.exchange import Exchange

__all__ = ["Placed"]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A linear layer whose launches the timeline files under its place in the model."""

    inner: Linear
    place: str
    timeline: Timeline
    exchange: Exchange

    @property
    def num_bytes(self) -> int:
        """Bytes of the layer's weights."""
        return self.inner.num_bytes

    def apply(self, x: torch.Tensor, *, experts: ExpertRows | None = None) -> torch.Tensor:
        """Launch the layer under its place, and note what chips exchange after it."""
        launches = self.timeline.launches
        self.timeline.tag, first = self.place, len(launches)
        try:
            made = self.inner.apply(x, experts=experts)
        finally:
            self.timeline.tag = ""
        if experts is None:
            self.exchange.after(self.place, made, self.timeline)
        else:
            flop = 2 * x.shape[0] * x.shape[1] * made.shape[1]
            launches[first:] = with_active_flop(launches[first:], flop)
        return made

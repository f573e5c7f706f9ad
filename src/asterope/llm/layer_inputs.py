"""What the inputs of each place of a layer are like on a text, expert by expert."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from asterope.kernels import ExpertRows
from asterope.llm.layers import Layer, Linear
from asterope.llm.model import Model
from asterope.llm.pieces import fused_pieces
from asterope.llm.states import States
from asterope.quant import InputSums

__all__ = ["MIN_EXPERT_TOKENS", "LayerInputs", "layer_inputs"]

MIN_EXPERT_TOKENS = 128
"""An expert that fewer tokens reach is calibrated on all tokens of its layer."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerInputs:
    """The sums over inputs: at each place one for the layer, or one for each of its experts.

    `few_tokens` names experts that too few tokens reached, with their number; their sums are over
    all tokens of the layer, as if the router had sent them all.
    """

    sums: dict[str, list[InputSums]]
    few_tokens: dict[str, int]


def layer_inputs(model: Model, index: int, layer: Layer, batches: Sequence[States]) -> LayerInputs:
    """Run a layer on all batches for its inputs.

    Cost: one pass; a second one where an expert sees too few tokens.
    """
    units = fused_pieces(model.config.at(index))

    def empty(place: str, expert: int = 0) -> InputSums:
        name, _, width, _ = units[place][expert][0]
        return InputSums(width, name=f"model.layers.{index}.{name}")

    def run(watch: Callable[[str, Linear], Linear]) -> None:
        watched = layer.with_linears(watch)
        for batch in batches:
            batch.copy().advance(model, index, watched)

    sums = {place: [empty(place, e) for e in range(len(rows))] for place, rows in units.items()}
    run(lambda place, inner: _Watched(inner, sums[place].__getitem__))
    if layer.router is None:
        return LayerInputs(sums=sums, few_tokens={})
    few = {e: s.num_tokens for e, s in enumerate(sums["down"]) if s.num_tokens < MIN_EXPERT_TOKENS}
    if few:
        of_all = InputSums.total(sums["gate_up"])
        for expert in few:
            sums["gate_up"][expert] = of_all
            sums["down"][expert] = empty("down", expert)
        run(
            lambda place, inner: (
                _OfAll(inner, {e: sums["down"][e] for e in few}, layer.gated)
                if place == "gate_up"
                else inner
            )
        )
    named = {sums["down"][e].name.rpartition(".")[0]: count for e, count in few.items()}
    return LayerInputs(sums=sums, few_tokens=named)


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    """A linear layer that adds its inputs up, each expert's apart."""

    inner: Linear
    sums_of: Callable[[int], InputSums]

    @property
    def num_bytes(self) -> int:
        return self.inner.num_bytes

    def apply(self, x: torch.Tensor, *, experts: ExpertRows | None = None) -> torch.Tensor:
        starts = [0, len(x)] if experts is None else experts.starts.tolist()
        for expert, (start, stop) in enumerate(itertools.pairwise(starts)):
            self.sums_of(expert).add(x[start:stop])
        return self.inner.apply(x, experts=experts)


@dataclass(frozen=True, slots=True, eq=False)
class _OfAll:
    """The first layer of experts: some of them are shown the rows of all, for what they give."""

    inner: Linear
    sums: dict[int, InputSums]
    gated: Callable[[torch.Tensor], torch.Tensor]

    @property
    def num_bytes(self) -> int:
        return self.inner.num_bytes

    def apply(self, x: torch.Tensor, *, experts: ExpertRows | None = None) -> torch.Tensor:
        assert experts is not None
        for expert, sums in self.sums.items():
            starts = torch.zeros_like(experts.starts)
            starts[expert + 1 :] = len(x)
            sums.add(self.gated(self.inner.apply(x, experts=ExpertRows(starts))))
        return self.inner.apply(x, experts=experts)

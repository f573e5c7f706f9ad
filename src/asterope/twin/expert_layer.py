"""The time of one layer of experts on a chip: routing, both products, and the way back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from asterope import sim
from asterope.chips import Chip
from asterope.kernels import ExpertRows, silu_mul
from asterope.llm import Linear, Router
from asterope.runtime import Timeline, simulate
from asterope.twin.by_operator import experts_by_operators
from asterope.twin.exchange import Exchange
from asterope.twin.placed import Placed

__all__ = ["ExpertLayer", "time_expert_layer"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExpertLayer:
    """A router and the experts behind it, their weights one below another, without values."""

    router: Router
    gate_up: Linear
    down: Linear
    hidden_size: int


def time_expert_layer(
    layer: ExpertLayer, chip: Chip, *, tokens: int, max_events: int = 0
) -> Timeline:
    """Return the launches of a layer of experts for so many tokens, at the chip's best fidelity.

    Tokens are spread over experts as the router assumes. Those of the layer's products have their
    place as their tag: router, gate_up or down.
    """
    fidelity = chip.fidelities[-1]
    played: sim.Fidelity = "tile" if fidelity == "tile" else "roofline"
    x = torch.empty((tokens, layer.hidden_size), dtype=torch.bfloat16, device="meta")
    with simulate(chip, values=False, fidelity=played, max_events=max_events) as timeline:
        alone = Exchange(chip, 1, fidelity)
        linear = Placed(layer.router.linear, "router", timeline, alone)
        gate_up = Placed(layer.gate_up, "gate_up", timeline, alone)
        down = Placed(layer.down, "down", timeline, alone)

        def experts(rows: torch.Tensor, of: ExpertRows) -> torch.Tensor:
            return down.apply(silu_mul(gate_up.apply(rows, experts=of)), experts=of)

        dataclasses.replace(layer.router, linear=linear).run(x, experts)
    if fidelity == "operator":
        places = {"router": layer.router.linear, "gate_up": layer.gate_up, "down": layer.down}
        timeline.launches[:] = experts_by_operators(
            timeline.launches, layer.router, places, chip, tokens
        )
    return timeline

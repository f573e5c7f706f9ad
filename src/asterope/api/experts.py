"""One layer of experts on a chip: its time, and the mappings of its products."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asterope.api.launched import grids_in_words, lowest_clock_hz, parts_s
from asterope.api.mapping import MappingTime
from asterope.api.operation import OperationTime
from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.kernels import Choice, Routing, considered, watched_choices
from asterope.llm import EXPERT_LOADS, ExpertLoads, PlainLinear, Router
from asterope.operators import check_sizes
from asterope.quant import QuantizedLinear, Scheme
from asterope.runtime import Timeline
from asterope.twin import ExpertLayer, time_expert_layer
from asterope.units import PS_PER_S

__all__ = [
    "ExpertMapping",
    "ExpertsShape",
    "ExpertsTime",
    "experts_launches",
    "experts_mappings",
    "time_experts",
]

_PRODUCTS = ("gate_up", "down")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertsShape:
    """A layer of experts: each token goes to `top_k` of them; activations are bf16.

    `loads` says how tokens are spread over experts (`llm.ExpertLoads`).

    Raises: ConfigError for sizes below one, more experts a token than there are, or no such spread.
    """

    tokens: int
    hidden: int
    intermediate: int
    experts: int
    top_k: int
    loads: ExpertLoads = "random"

    def __post_init__(self) -> None:
        check_sizes(
            tokens=self.tokens, hidden=self.hidden, intermediate=self.intermediate,
            experts=self.experts, top_k=self.top_k,
        )  # fmt: skip
        if self.top_k > self.experts:
            what = f"a token cannot go to {self.top_k} of {self.experts} experts"
            raise ConfigError(what, where="experts")
        if self.loads not in EXPERT_LOADS:
            raise ConfigError(
                f"there is no {self.loads!r}", where="expert_loads",
                hint=f"use {' or '.join(EXPERT_LOADS)}",
            )  # fmt: skip

    @property
    def flop(self) -> int:
        """Floating-point operations of the tokens' experts, the router's left out."""
        return 6 * self.tokens * self.top_k * self.hidden * self.intermediate

    def layer(self, scheme: Scheme) -> ExpertLayer:
        """Return the layer without values, its experts quantized, its router in bf16.

        Raises: ShapeError if the format's blocks do not divide the sizes.
        """
        router = torch.empty((self.experts, self.hidden), dtype=torch.bfloat16, device="meta")
        return ExpertLayer(
            router=Router(
                linear=PlainLinear(router), num_experts=self.experts,
                routing=Routing(top_k=self.top_k, normalized=True), loads=self.loads,
            ),
            gate_up=QuantizedLinear.empty(
                2 * self.experts * self.intermediate, self.hidden, scheme, experts=self.experts
            ),
            down=QuantizedLinear.empty(
                self.experts * self.hidden, self.intermediate, scheme, experts=self.experts
            ),
            hidden_size=self.hidden,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertsTime(OperationTime):
    """The time and energy of a layer of experts on one chip; `used` experts have tokens."""

    tokens: int
    used: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertMapping(MappingTime):
    """One way to cut a product of the experts, `gate_up` or `down`, with the layer's time."""

    product: str


def time_experts(chip: Chip, shape: ExpertsShape, scheme: Scheme) -> ExpertsTime:
    """Time a layer of experts from the router's product to the weighted sum of what they give.

    A chip whose inside is described runs the library's own kernels; a calibrated one is timed by
    operators; others have the roofline.

    Raises: ShapeError if the format's blocks do not divide the sizes.
    """
    timeline = experts_launches(chip, shape, scheme)
    time_s, parts = timeline.time_s, parts_s(timeline)
    amounts: dict[str, int] = {}
    for launch in timeline.launches:
        for name, flop in launch.result.flop.items():
            amounts[name] = amounts.get(name, 0) + flop
    rate = max(amounts, key=lambda name: amounts[name])
    loads = shape.layer(scheme).router.assumed_loads(shape.tokens)
    return ExpertsTime(
        chip=f"{chip.name}:{chip.profile}", timed_by=chip.fidelities[-1], time_s=time_s,
        tokens=shape.tokens, used=int((loads > 0).sum()), flop=shape.flop,
        hbm_bytes=sum(launch.result.hbm_bytes for launch in timeline.launches), rate=rate,
        peak_share=shape.flop / time_s / chip.peak_flop_per_s[rate],
        bound_by=max(parts, key=lambda name: parts[name]), parts=parts,
        mapping=grids_in_words(timeline), energy_j=timeline.energy_j,
        energy_parts_j=timeline.energy_parts_j(), clock_hz=lowest_clock_hz(timeline),
        throttled_s=timeline.throttled_ps / PS_PER_S,
    )  # fmt: skip


def experts_launches(
    chip: Chip, shape: ExpertsShape, scheme: Scheme, *, max_events: int = 0
) -> Timeline:
    """Return the launches of a layer of experts as a timeline.

    `max_events` keeps that many macro-instructions of each launch.

    Raises: as `time_experts`.
    """
    return time_expert_layer(shape.layer(scheme), chip, tokens=shape.tokens, max_events=max_events)


def experts_mappings(
    chip: Chip, shape: ExpertsShape, scheme: Scheme, *, most: int = 4
) -> list[ExpertMapping]:
    """Return the mappings of both products of the least estimated time, each's fastest first.

    The list is empty for a chip whose inside is not described.

    Raises: as `time_experts`.
    """
    if chip.tile is None:
        return []
    with watched_choices() as choices:
        experts_launches(chip, shape, scheme)
    asked = [choice for choice in choices if isinstance(choice, Choice) and choice.experts]
    return [
        mapping
        for product, choice in zip(_PRODUCTS, asked, strict=True)
        for mapping in _mappings_of(product, choice, chip, shape, scheme, most)
    ]


def _mappings_of(
    product: str, choice: Choice, chip: Chip, shape: ExpertsShape, scheme: Scheme, most: int
) -> list[ExpertMapping]:
    loads = shape.layer(scheme).router.assumed_loads(shape.tokens).tolist()
    found = []
    for i, each in enumerate(considered(chip, choice)[:most]):
        with watched_choices(instead=each.blocks, of=choice):
            timeline = experts_launches(chip, shape, scheme)
        of_product = [x.result for x in timeline.launches if x.tag == product]
        played = max(of_product, key=lambda result: result.total_flop)
        blocks = each.blocks
        rows = sum(-(-load // blocks.m) for load in loads)
        found.append(
            ExpertMapping(
                product=product, block_m=blocks.m, block_n=blocks.n, block_k=blocks.k,
                stages=blocks.stages, split=1, programs=rows * -(-choice.n // blocks.n),
                estimated_s=each.cycles / chip.inside().clock_hz, time_s=timeline.time_s,
                hbm_bytes=played.hbm_bytes, bound_by=played.bound_by, is_chosen=not i,
            )
        )  # fmt: skip
    return sorted(found, key=lambda mapping: mapping.time_s)

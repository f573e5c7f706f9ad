"""The time of one model step on a chip: the model's own forward pass, launch by launch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from asterope import sim
from asterope.chips import FIDELITIES, Chip, Fidelity
from asterope.errors import ConfigError
from asterope.llm import ExpertLoads, Layer, Linear, Model, Sharing, shard, with_scales
from asterope.runtime import TimedLaunch, Timeline, listeners, simulate
from asterope.triton_backend.ahead import load_ahead
from asterope.twin.by_operator import StepShape, timed_by_operators
from asterope.twin.exchange import Exchange
from asterope.twin.fold import Unfolding, fold
from asterope.twin.overlap import Overlap, Part, check_overlap, halves, take_turns
from asterope.twin.placed import Placed

__all__ = [
    "Memory",
    "Phase",
    "StepTime",
    "memory_of",
    "time_step",
]

Phase = Literal["decode", "prefill"]
_SOME_SCALE = 0.5  # one that is not 1, as a calibrated cache has


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a model with its KV cache takes of a chip's memory, in bytes."""

    weight_bytes: int
    kv_bytes: int
    capacity_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights and KV cache."""
        return self.weight_bytes + self.kv_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits, with nothing set aside for activations."""
        return self.total_bytes <= self.capacity_bytes

    @property
    def chips_needed(self) -> int:
        """The least number of chips whose memory holds it."""
        return -(-self.total_bytes // self.capacity_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """One step of a batch on one chip, or on `chips` of them that share its layers.

    A decode step makes one token for each sequence; a prefill reads `new_tokens` of each.
    `breakdown_ps` splits the time by what bound it and adds up to it; `energy_parts_j` splits the
    energy, that of all chips, by what it is spent on. The power limit made the step `throttled_ps`
    longer. Collectives ran for `hidden_ps` beside kernels, which is in no other time. Operations,
    bytes, shares, launches and memory are those of one chip.
    """

    phase: Phase
    chip: str
    fidelity: str
    model: str
    scheme: str
    chips: int
    batch: int
    context: int
    new_tokens: int
    time_s: float
    energy_j: float | None
    energy_parts_j: Mapping[str, float]
    breakdown_ps: Mapping[str, int]
    throttled_ps: int
    flop: int
    hbm_bytes: int
    peak_share: float
    bandwidth_share: float
    launches: tuple[TimedLaunch, ...]
    memory: Memory
    hidden_ps: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes, over the batch."""
        return self.batch * self.new_tokens

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of the whole batch."""
        return self.num_tokens / self.time_s

    @property
    def joules_per_token(self) -> float | None:
        """Energy for each token."""
        return None if self.energy_j is None else self.energy_j / self.num_tokens

    @property
    def bound_by(self) -> str:
        """What most of the time went into."""
        return max(self.breakdown_ps, key=lambda name: self.breakdown_ps[name])

    def by_kernel(self) -> dict[str, tuple[int, float]]:
        """Return how often each kernel was launched, and its seconds in all, longest first."""
        totals: dict[str, tuple[int, float]] = {}
        for timed in self.launches:
            count, seconds = totals.get(timed.name, (0, 0.0))
            totals[timed.name] = (count + 1, seconds + timed.result.time_s)
        return dict(sorted(totals.items(), key=lambda item: -item[1][1]))


def memory_of(model: Model, chip: Chip, *, batch: int, context: int) -> Memory:
    """Return what the weights and a KV cache of batch x context tokens take."""
    per_token = model.config.kv_bytes_per_token(model.kv_bits / 8)
    return Memory(
        weight_bytes=model.weight_bytes,
        kv_bytes=per_token * batch * context,
        capacity_bytes=chip.hbm.capacity_bytes,
    )


@torch.inference_mode()
def time_step(  # noqa: PLR0913 - a step is a phase, a batch, a context and where it runs
    model: Model,
    chip: Chip,
    *,
    phase: Phase = "decode",
    batch: int = 1,
    context: int = 1024,
    fidelity: Fidelity = "tile",
    tensor_parallel: int = 1,
    expert_parallel: int = 1,
    expert_loads: ExpertLoads = "random",
    overlap: Overlap = "none",
    max_events: int = 0,
    on_launch: Callable[[TimedLaunch], None] | None = None,
) -> StepTime:
    """Time one step of a model on a chip without computing it; the model needs no weights.

    With `tensor_parallel` so many chips share each layer (`llm.shard`) and exchange what
    `twin.exchange` says. With `expert_parallel` so many share the experts; groups of
    `tensor_parallel` of them attend to their own sequences of the batch, and the time is that of a
    chip that has most of everything. With an `overlap` of `halves` two halves of the step take
    turns, so that one computes while the other exchanges (`twin.overlap`).

    A decode step appends one token to sequences of `context` - 1; a prefill reads `context` tokens
    at once. The launches are those of the model's own forward pass; those of a linear layer have
    its place in the model as their tag: qkv, output, router, gate_up, down or head. Which experts
    see a token is not computed but assumed: `expert_loads` (`llm.ExpertLoads`), alike in all
    layers.

    Raises: ConfigError if there is no such phase, spread or overlap, batch or context are outside
    their limits, or chips cannot share the model; ChipError if the chip is not described for the
    fidelity.
    """
    if phase not in get_args(Phase):
        raise ConfigError(
            f"there is no phase {phase!r}",
            where="phase",
            hint=f"use {' or '.join(get_args(Phase))}",
        )
    if fidelity not in FIDELITIES:
        raise ConfigError(
            f"there is no fidelity {fidelity!r}",
            where="fidelity",
            hint=f"use {' or '.join(FIDELITIES)}",
        )
    if batch < 1:
        raise ConfigError(f"{batch} is below 1", where="batch")
    if not 2 <= context <= model.config.max_context:
        raise ConfigError(
            f"{context} is outside 2..{model.config.max_context}", where="context",
            hint="the limit is the model's max_position_embeddings",
        )  # fmt: skip
    sharing = Sharing(tensor=tensor_parallel, expert=expert_parallel)
    check_overlap(overlap, sharing.chips)
    whole = Part(batch=batch, context=context, new_tokens=1 if phase == "decode" else context)
    part_of_model = shard(_alike(model.on_meta()), tensor_parallel, expert_parallel)
    on = _Place(part_of_model, chip, sharing, fidelity, expert_loads, max_events, on_launch)
    hidden_ps, timeline = 0, Timeline(chip)
    if overlap == "none":
        timeline.launches[:] = on.launches(whole)
    else:
        launches, hidden_ps = take_turns(*(on.launches(part) for part in halves(whole)))
        timeline.launches[:] = launches
    flop = sum(t.result.total_flop for t in timeline.launches)
    peak_s = sum(
        amount / chip.peak_flop_per_s[name]
        for t in timeline.launches
        for name, amount in t.result.flop.items()
    )
    moved = sum(t.result.hbm_bytes for t in timeline.launches)
    time_s, energy_j = timeline.time_s, timeline.energy_j
    return StepTime(
        phase=phase, chip=f"{chip.name}:{chip.profile}", fidelity=fidelity, model=model.name,
        scheme=model.described, chips=sharing.chips,
        batch=batch, context=context, new_tokens=whole.new_tokens, hidden_ps=hidden_ps,
        time_s=time_s, energy_j=None if energy_j is None else sharing.chips * energy_j,
        energy_parts_j={k: sharing.chips * v for k, v in timeline.energy_parts_j().items()},
        breakdown_ps=timeline.breakdown_ps(), throttled_ps=timeline.throttled_ps,
        flop=flop, hbm_bytes=moved, peak_share=peak_s / time_s,
        bandwidth_share=moved / chip.hbm.bandwidth_bytes_per_s / time_s,
        launches=tuple(timeline.launches),
        memory=memory_of(part_of_model, chip, batch=sharing.sequences(batch), context=context),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where and how parts of a step are timed: one chip's share of the model, and the rest."""

    model: Model
    chip: Chip
    sharing: Sharing
    fidelity: Fidelity
    expert_loads: ExpertLoads
    max_events: int
    on_launch: Callable[[TimedLaunch], None] | None

    def launches(self, part: Part) -> list[TimedLaunch]:
        """Time what a chip runs of a part of a step."""
        model, batch = self.model, self.sharing.sequences(part.batch)
        shape = StepShape(batch=batch, context=part.context, new_tokens=part.new_tokens)
        if model.config.experts is not None:
            model = model.with_expert_loads(self.expert_loads, part.batch * part.new_tokens)
        exchange = Exchange(self.chip, self.sharing.tensor, self.fidelity)
        played: sim.Fidelity = "tile" if self.fidelity == "tile" else "roofline"
        load_ahead()
        is_heard = bool(listeners())  # whoever else listens is told of every launch
        with simulate(
            self.chip, values=False, fidelity=played, max_events=self.max_events
        ) as timeline:
            timeline.on_progress = self.on_launch
            _run(model, shape, timeline, exchange, folds=not is_heard)
        found = timeline.launches
        if self.fidelity == "operator":
            found = list(timed_by_operators(found, model, self.chip, shape))
        return [t for t in found if part.is_last or t.tag != "head"]


def _alike(model: Model) -> Model:
    """Return a model whose layers all have the same scales of the cache: no time is in them."""
    if model.cache_format.largest is None:
        return model
    scales = [(_SOME_SCALE, _SOME_SCALE)] * len(model.layers)
    return with_scales(model, model.cache_format, scales)


def _run(
    model: Model, shape: StepShape, timeline: Timeline, exchange: Exchange, *, folds: bool
) -> None:
    """Put the launches of a forward pass on a timeline; with `folds`, run equal layers once."""
    run, order = fold(model) if folds else (model, tuple(range(len(model.layers))))
    unfolding = Unfolding(order, timeline)
    cache = run.new_cache(shape.batch, shape.context)
    cache.length = shape.context - shape.new_tokens
    tokens = torch.empty((shape.batch, shape.new_tokens), dtype=torch.int64, device="meta")
    _placed(run, timeline, exchange).forward(
        tokens, cache, last_only=True, between_layers=unfolding.between_layers
    )


def _placed(model: Model, timeline: Timeline, exchange: Exchange) -> Model:
    """Return the model with the same layers, each of which says where it is."""

    def place(name: str, inner: Linear) -> Placed:
        return Placed(inner, name, timeline, exchange)

    def placed(layer: Layer) -> Layer:
        router = layer.router
        if router is not None:
            router = dataclasses.replace(
                router, linear=place("router", router.linear),
                sends=lambda name, num_bytes, chips: exchange.among(
                    chips or exchange.chips, name, num_bytes, "experts", timeline
                ),
            )  # fmt: skip
        return dataclasses.replace(layer.with_linears(place), router=router)

    layers = [placed(layer) for layer in model.layers]
    return dataclasses.replace(model, layers=layers, head=place("head", model.head))

"""Time a model on chips, price the steps, and say what the figures rest on."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from asterope import chips, operators
from asterope.api.language_model import LanguageModel
from asterope.api.pricing import Pricing
from asterope.api.progress import Progress, silent
from asterope.api.rows import (
    assumption_rows,
    break_even_row,
    chip_facts,
    chip_label,
    cost_row,
    memory_fit,
    model_facts,
    step_row,
)
from asterope.api.timed import counted_energy_j, events_per_launch
from asterope.chips import FIDELITIES, Chip, Fidelity
from asterope.cost import Assumptions, Cost, cost_of_step
from asterope.errors import ConfigError
from asterope.llm import EXPERT_LOADS, ExpertLoads, ModelConfig, Sharing
from asterope.report import BreakEven, CostRow, Estimate, MemoryFit, Step
from asterope.runtime import TimedLaunch, write_trace
from asterope.twin import Overlap, Phase, StepTime, check_overlap, time_step
from asterope.units import si

__all__ = ["EstimateOptions", "estimate"]

_DEFAULT_MAX_CONTEXT = 4096
_Row = TypeVar("_Row", Step, CostRow)


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateOptions:
    """Say on what a model is timed and how it is priced.

    `fidelity` None times a chip at each one it is described for. `context` None is the model's own,
    4096 at most. A prefill reads `prefill_batch` prompts. `tensor_parallel` chips share each layer,
    of every kind of chip; `expert_parallel` chips the experts, in groups of the former that have
    sequences of their own. Tokens are spread over experts as `expert_loads` says. `overlap` is what
    runs while chips exchange.

    Raises: ConfigError naming the option that is outside its limits.
    """

    chip: str = "maia200"
    compare: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ("decode", "prefill")
    batch: int = 32
    prefill_batch: int = 1
    context: int | None = None
    fidelity: Fidelity | None = None
    tensor_parallel: int = 1
    expert_parallel: int = 1
    expert_loads: ExpertLoads = "random"
    overlap: Overlap = "none"
    pricing: Pricing = field(default_factory=Pricing)

    def __post_init__(self) -> None:
        for name in ("batch", "prefill_batch", "tensor_parallel", "expert_parallel"):
            value = getattr(self, name)
            if not 1 <= value <= 1 << 20:
                raise ConfigError(f"{value} is outside 1..{1 << 20}", where=name)
        check_overlap(self.overlap, self.sharing.chips)  # raises if they cannot share
        if self.expert_loads not in EXPERT_LOADS:
            raise ConfigError(
                f"there is no {self.expert_loads!r}", where="expert_loads",
                hint=f"use {' or '.join(EXPERT_LOADS)}",
            )  # fmt: skip

    @property
    def sharing(self) -> Sharing:
        """How chips share the model."""
        return Sharing(tensor=self.tensor_parallel, expert=self.expert_parallel)

    def chips(self) -> tuple[Chip, ...]:
        """Return the chosen chip and those to compare it with, each once.

        Raises: ChipError for a chip that does not exist, or a chosen one that is not described for
        the fidelity asked for.
        """
        found = [chips.get(self.chip)]
        if self.fidelity == "tile":
            found[0].inside()
        elif self.fidelity == "operator":
            operators.achieved(found[0])
        for name in self.compare:
            chip = chips.get(name)
            if chip not in found:
                found.append(chip)
        return tuple(found)

    def context_of(self, model: LanguageModel) -> int:
        """Return the context to simulate.

        Raises: ConfigError if the model does not have it.
        """
        limit = model.config.max_context
        context = min(_DEFAULT_MAX_CONTEXT, limit) if self.context is None else self.context
        if not 2 <= context <= limit:
            raise ConfigError(
                f"{context} is outside 2..{limit}", where="context",
                hint="the limit is the model's max_position_embeddings",
            )  # fmt: skip
        return context


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timed:
    """One step on one chip, as simulated and as a row; `cost` is None where none is asked for."""

    chip: Chip
    step: StepTime
    row: Step
    cost: Cost | None


def estimate(
    model: LanguageModel,
    options: EstimateOptions,
    *,
    baseline: LanguageModel | None = None,
    priced: bool = True,
    trace: Path | None = None,
    progress: Progress = silent,
) -> Estimate:
    """Time and price the steps of a model, and those of a baseline on the first chip.

    `trace` writes a Perfetto trace of the first chip's steps, one after the other.

    Raises: ChipError for a chip that does not exist, or whose inside is asked for and not public;
    ConfigError for a context that the model does not have, or a chip without price; OutputError if
    the trace cannot be written.
    """
    found = options.chips()
    context = options.context_of(model)
    assumed = {chip: options.pricing.of(chip) for chip in found} if priced else {}
    timer = _Timer(options=options, context=context, assumed=assumed, progress=progress)
    num_steps = len(options.phases)
    kept = 0
    if trace is not None:
        kept = events_per_launch(model.config.num_layers, num_steps=num_steps)
    timed = [
        one
        for chip in found
        for one in timer.times(
            model, chip, _fidelities(chip, options.fidelity, chosen=chip is found[0]), kept
        )
    ]
    finest = _fidelities(found[0], options.fidelity, chosen=True)[-1:]
    before = list(timer.times(baseline, found[0], finest)) if baseline is not None else []
    if trace is not None:
        _write_trace(trace, found[0], timed)
    memory = tuple(
        memory_fit(
            model.model, chip, batch=options.batch, context=context,
            sharing=options.sharing,
        )
        for chip in found
    )  # fmt: skip
    steps = _in_order(t.row for t in (*timed, *before))
    return Estimate(
        model=model_facts(model.model, model.source.config, model.source.where),
        scheme=model.model.scheme or "unquantized",
        chips=tuple(chip_facts(chip) for chip in found),
        steps=steps,
        memory=memory,
        costs=_in_order(cost_row(t.row, t.cost) for t in (*timed, *before) if t.cost is not None),
        break_even=_break_even(found[0], timed),
        assumptions=tuple(assumption_rows(found, _decode_costs(timed))),
        notes=(*_experts_note(model.config, options), *_notes(found, steps, memory, options)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timer:
    """Times steps, all under the same options."""

    options: EstimateOptions
    context: int
    assumed: Mapping[Chip, Assumptions]
    progress: Progress

    def times(
        self,
        model: LanguageModel,
        chip: Chip,
        fidelities: Sequence[Fidelity],
        max_events: int = 0,
    ) -> Iterator[_Timed]:
        """Time each phase at each fidelity, the closed form first: it counts the launches.

        Until they are counted, progress is reported with a total of 0.
        """
        for phase in self.options.phases:
            report = functools.partial(self.progress, f"simulate {phase} on {chip_label(chip)}")
            listener = _listener(report, 0)
            for fidelity in fidelities:
                step = time_step(
                    model.model, chip, phase=phase, context=self.context, fidelity=fidelity,
                    batch=self.options.batch if phase == "decode" else self.options.prefill_batch,
                    tensor_parallel=self.options.tensor_parallel,
                    expert_parallel=self.options.expert_parallel,
                    expert_loads=self.options.expert_loads, overlap=self.options.overlap,
                    max_events=max_events, on_launch=listener,
                )  # fmt: skip
                listener = _listener(report, len(step.launches))
                yield self._priced(chip, step)

    def _priced(self, chip: Chip, step: StepTime) -> _Timed:
        assumptions = self.assumed.get(chip)
        cost = None if assumptions is None else _cost(chip, step, assumptions)
        return _Timed(chip=chip, step=step, row=step_row(step, chip), cost=cost)


def _fidelities(chip: Chip, asked: Fidelity | None, *, chosen: bool) -> tuple[Fidelity, ...]:
    """Return the fidelities to time a chip at, the coarsest first.

    The chosen chip gets what is asked for in any case, and with it the error that says why not; a
    chip beside it that is not described for that gets its finest.
    """
    described = chip.fidelities
    if asked is None:
        return described
    return (asked,) if chosen or asked in described else described[-1:]


def _listener(report: Callable[[int, int], None], total: int) -> Callable[[TimedLaunch], None]:
    done = itertools.count(1)
    return lambda _: report(next(done), total)


def _cost(chip: Chip, step: StepTime, assumptions: Assumptions) -> Cost:
    return cost_of_step(
        chip, tokens=step.num_tokens, step_s=step.time_s, num_chips=step.chips,
        energy_j=counted_energy_j(step), assumptions=assumptions,
    )  # fmt: skip


def _write_trace(path: Path, chip: Chip, timed: Sequence[_Timed]) -> None:
    """Write the finest steps of the chip, one after the other."""
    launches = []
    start_ps = 0
    finest = {t.step.phase: t.step for t in timed if t.chip is chip}
    for step in finest.values():
        for launch in step.launches:
            name = f"{step.phase} {launch.tag or ''} {launch.name}".replace("  ", " ")
            launches.append((name, start_ps + launch.start_ps, launch.result))
        start_ps += step.launches[-1].start_ps + step.launches[-1].result.time_ps
    write_trace(path, chip, launches)


def _in_order(rows: Iterable[_Row]) -> tuple[_Row, ...]:
    """Put decode before prefill, and the finest time of each before coarser ones."""

    def place(row: _Row) -> tuple[str, int]:
        return row.phase, -FIDELITIES.index(row.fidelity)

    return tuple(sorted(rows, key=place))


def _decode_costs(timed: Sequence[_Timed]) -> dict[str, Cost]:
    """Return the cost of each chip at its finest, of its first phase."""
    costs: dict[str, Cost] = {}
    for one in timed:
        if one.cost is not None and one.row.phase == timed[0].row.phase:
            costs[one.row.chip] = one.cost
    return costs


def _break_even(chip: Chip, timed: Sequence[_Timed]) -> tuple[BreakEven, ...]:
    """Set the chosen chip against each other one: roofline by roofline, finest by finest."""
    finest = {t.row.chip: t.row.fidelity for t in timed}  # the last of each is the finest
    own = [(t.row, t.cost) for t in timed if t.chip is chip]
    others = [(t.row, t.cost) for t in timed if t.chip is not chip]

    def is_pair(mine: Step, other: Step) -> bool:
        both = (mine.fidelity, other.fidelity)
        alike = both in (("roofline", "roofline"), (finest[mine.chip], finest[other.chip]))
        return alike and mine.phase == other.phase

    return tuple(
        break_even_row(mine, cost, other, other_cost)
        for mine, cost in own
        for other, other_cost in others
        if cost is not None and other_cost is not None and is_pair(mine, other)
    )


_SPREADS: Mapping[ExpertLoads, str] = {
    "random": "taken to pick them at random, as with an untrained router",
    "even": "taken to be spread evenly over them",
}


def _experts_note(config: ModelConfig, options: EstimateOptions) -> Iterator[str]:
    """Say what is assumed of the loads of experts."""
    if config.experts is not None:
        yield (
            f"Each layer has {config.experts.count} experts, {config.experts.top_k} of them for a"
            f" token. Which ones is not computed: tokens are {_SPREADS[options.expert_loads]}"
            " (`--expert-loads`)."
        )
        if options.expert_parallel > 1:
            yield (
                f"{options.expert_parallel} chips share the experts, and times are those of the one"
                " that has most rows; the others are counted as if they worked as long. Rows are"
                " sent in 16 bits, once for each expert."
            )


def _notes(
    found: Sequence[Chip], steps: Sequence[Step], memory: Sequence[MemoryFit],
    options: EstimateOptions,
) -> Iterator[str]:  # fmt: skip
    """Say what a reader must know to read the figures right."""
    shares = "expert-parallel" if options.expert_parallel > 1 else "tensor-parallel"
    for fit in memory:
        if not fit.fits:
            share = "the model" if fit.num_chips == 1 else "its share of the model"
            yield (
                f"{fit.chip} cannot hold {share}: it takes {fit.chips_needed} chips."
                " Times and costs are those of chips with enough memory; "
                f"`--{shares} {2 * fit.num_chips}` shares the model out."
            )
    for step in steps:
        if step.throttled_s:
            yield (
                f"{step.chip} would draw more than its TDP in a {step.phase} step: a lower clock"
                f" makes it {step.throttled_s / step.time_s:.1%} of its time longer."
            )
        if step.hidden_s:
            yield (
                f"{step.chip}, {step.phase}: two halves of the step take turns, and"
                f" {si(step.hidden_s, 's')} of what they exchange is hidden behind kernels"
                " (`--overlap`). Neither is slower for it, by assumption."
            )
    calibrated = [chip.name for chip in found if chip.tile is None and chip.achieved is not None]
    if calibrated:
        yield (
            f"{' and '.join(calibrated)}: times of operators in closed form, calibrated on measured"
            " A100 and H100 (docs/explanation/fidelity.md has the errors). Energy beside them is"
            " that of the TDP, an upper bound."
        )
    if found[0].tile is not None and any(c.tile is None and c.achieved is None for c in found):
        yield (
            "Chips without a described inside or calibrated operators are timed by the roofline:"
            " the least time that their maker's peaks allow, which no kernel beats and few come"
            " near. Compare them with the"
            f" roofline of {chip_label(found[0])}, not with its tile-level time. Energy beside a"
            " roofline is that of the TDP, an upper bound."
        )
    if any(step.phase == "decode" and step.bound_by == "launch" for step in steps):
        yield (
            "Most of a decode step is launch overhead: what a chip has of the model is too small to"
            " fill it, and its cost says little about larger ones."
        )

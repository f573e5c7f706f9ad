"""A simulated step as users hold it: speed, energy, price, trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asterope.chips import Chip
from asterope.cost import Assumptions, Cost, cost_of_step
from asterope.runtime import write_trace
from asterope.twin import StepTime

__all__ = ["Run", "counted_energy_j", "events_per_launch"]

_MAX_TRACE_EVENTS = 60_000
_LAUNCHES_PER_LAYER = 13
_EVENTS_PER_LAUNCH = (20, 5_000)


def events_per_launch(num_layers: int, *, num_steps: int) -> int:
    """Return how many macro-instructions of a launch a trace keeps, so that browsers open it."""
    low, high = _EVENTS_PER_LAUNCH
    return max(low, min(high, _MAX_TRACE_EVENTS // (_LAUNCHES_PER_LAYER * num_layers * num_steps)))


def counted_energy_j(step: StepTime) -> float | None:
    """Return the energy of a step where it was counted; the roofline assumes the TDP."""
    return step.energy_j if step.fidelity == "tile" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One step of a model on a chip, and what it costs under its assumptions."""

    step: StepTime
    chip: Chip
    assumptions: Assumptions

    @property
    def time_s(self) -> float:
        """The time of the step."""
        return self.step.time_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of the whole batch."""
        return self.step.tokens_per_s

    @property
    def bound_by(self) -> str:
        """What most of the time went into."""
        return self.step.bound_by

    @property
    def cost(self) -> Cost:
        """What a million tokens cost.

        Raises: ConfigError if the chip has no price and the assumptions give none.
        """
        return cost_of_step(
            self.chip,
            tokens=self.step.num_tokens,
            step_s=self.step.time_s,
            num_chips=self.step.chips,
            energy_j=counted_energy_j(self.step),
            assumptions=self.assumptions,
        )

    @property
    def usd_per_mtok(self) -> float:
        """US dollars per million tokens."""
        return self.cost.usd_per_mtok

    def to_perfetto(self, path: str | Path) -> None:
        """Write a trace that ui.perfetto.dev opens: every launch, and the first instructions of it.

        Raises: OutputError if the file cannot be written.
        """
        launches = [(timed.name, timed.start_ps, timed.result) for timed in self.step.launches]
        write_trace(Path(path), self.chip, launches)

"""Collectives that run beside kernels: two halves of a step take turns on every chip.

While the chips exchange what one half has computed, they compute the other. A chip runs one kernel
at a time and is in one collective at a time, each in the order of the halves; kernels and
collectives do not slow each other down. The halves are of the sequences in a decode step, and of
the tokens in a prefill, whose second half attends to the first. Weights are read for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, get_args

from asterope import operators
from asterope.errors import ConfigError
from asterope.runtime import TimedLaunch
from asterope.sim import Result

__all__ = ["OVERLAPS", "Overlap", "Part", "check_overlap", "halves", "take_turns"]

Overlap = Literal["none", "halves"]
"""What runs beside a collective: nothing, or the kernels of the step's other half."""
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)
_LINKS = "network"
_Round = tuple[list[TimedLaunch], TimedLaunch | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of a step: sequences of all chips, the tokens each has at its end, how many are new.

    `is_last` says that the next tokens are wanted of it.
    """

    batch: int
    context: int
    new_tokens: int
    is_last: bool = True


def check_overlap(overlap: str, chips: int) -> None:
    """Refuse an overlap that does not exist, or one chip that has nothing to overlap.

    Raises: ConfigError.
    """
    if overlap not in OVERLAPS:
        raise ConfigError(
            f"there is no overlap {overlap!r}", where="overlap",
            hint=f"use {' or '.join(OVERLAPS)}",
        )  # fmt: skip
    if overlap != "none" and chips == 1:
        raise ConfigError(
            "one chip exchanges nothing that could overlap",
            where="overlap",
            hint="share the model among chips: tensor_parallel or expert_parallel",
        )


def halves(step: Part) -> tuple[Part, Part]:
    """Cut a step in two: a decode step by its sequences, a prefill by its tokens.

    Raises: ConfigError for a decode step of one sequence.
    """
    if step.new_tokens > 1:
        first = -(-step.new_tokens // 2)
        before = step.context - step.new_tokens
        return (
            dataclasses.replace(step, context=before + first, new_tokens=first, is_last=False),
            dataclasses.replace(step, new_tokens=step.new_tokens - first),
        )
    if step.batch < 2:
        raise ConfigError(
            "a decode step of one sequence has no halves", where="overlap", hint="use none"
        )
    first = -(-step.batch // 2)
    return (
        dataclasses.replace(step, batch=first),
        dataclasses.replace(step, batch=step.batch - first),
    )


def take_turns(
    first: Sequence[TimedLaunch], second: Sequence[TimedLaunch]
) -> tuple[list[TimedLaunch], int]:
    """Return the launches of both halves in the order they run, and the time that is hidden.

    Both have the same collectives, but for those at the end of a half whose logits nobody needs. Of
    a collective stays the time for which no kernel runs, which comes before the kernels that waited
    for it; the rest, in picoseconds, is hidden.
    """
    ran: list[TimedLaunch] = []
    clock = _Clock()
    pending: list[TimedLaunch | None] = [None, None]
    ready = [0, 0]
    none: _Round = ([], None)
    for turn in zip_longest(_rounds(first), _rounds(second), fillvalue=none):
        for half, (kernels, collective) in enumerate(turn):
            clock.wait(pending[half], ready[half], ran)
            clock.compute_ps += sum(k.result.time_ps for k in kernels)
            ran += kernels
            pending[half] = collective
            if collective is not None:
                ready[half] = clock.exchange(collective.result.time_ps)
    for half in sorted(range(2), key=lambda h: ready[h]):
        clock.wait(pending[half], ready[half], ran)
    start_ps, placed = 0, []
    for launch in ran:
        placed.append(dataclasses.replace(launch, start_ps=start_ps))
        start_ps += launch.result.time_ps
    whole = sum(t.result.time_ps for half in (first, second) for t in half)
    return placed, whole - start_ps


@dataclass(slots=True)
class _Clock:
    """When a chip is done with its kernels, and with its collectives."""

    compute_ps: int = 0
    links_ps: int = 0

    def exchange(self, time_ps: int) -> int:
        """Begin a collective after the kernels so far; return when it is done."""
        self.links_ps = max(self.links_ps, self.compute_ps) + time_ps
        return self.links_ps

    def wait(self, collective: TimedLaunch | None, ready_ps: int, ran: list[TimedLaunch]) -> None:
        """Wait for a collective, if there is one, and note how long nothing else ran."""
        if collective is None:
            return
        waited_ps = max(0, ready_ps - self.compute_ps)
        self.compute_ps += waited_ps
        ran.append(dataclasses.replace(collective, result=_shortened(collective.result, waited_ps)))


def _rounds(launches: Sequence[TimedLaunch]) -> Iterator[_Round]:
    """Yield the kernels up to each collective, and that; at last those after the last one."""
    kernels: list[TimedLaunch] = []
    for launch in launches:
        if launch.name in operators.COLLECTIVES:
            yield kernels, launch
            kernels = []
        else:
            kernels.append(launch)
    yield kernels, None


def _shortened(result: Result, time_ps: int) -> Result:
    """Return a collective that takes part of its time alone: it sends as much as before.

    Beside a kernel the chip's clock and leakage are the kernel's.
    """
    share = time_ps / result.time_ps if result.time_ps else 1.0
    parts = {
        name: joules * (1.0 if name == _LINKS else share)
        for name, joules in result.energy_parts_j.items()
    }
    busy = {
        name: min(1.0, part / share) if share else 0.0 for name, part in result.occupancy.items()
    }
    return dataclasses.replace(
        result, time_ps=time_ps, roofline_ps=min(time_ps, result.roofline_ps),
        breakdown_ps={_LINKS: time_ps} if time_ps else {}, occupancy=busy, energy_parts_j=parts,
        energy_j=None if result.energy_j is None else sum(parts.values()),
    )  # fmt: skip

"""Time the launches of a piece of code: `with simulate(chip) as timeline:`."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.runtime.arrays import Array, Grid
from asterope.runtime.launch import Launch, listen, listeners, only, stop_listening
from asterope.runtime.perfetto import write_trace
from asterope.runtime.remembered import Remembered
from asterope.sim import FIDELITIES, Fidelity, Region, Result, own_memory_error, simulate_launch
from asterope.units import PS_PER_S

__all__ = ["TimedLaunch", "Timeline", "current_timeline", "simulate", "time_aside"]

_CANONICAL = 1 << 44
_MOST_CONTENT = 1 << 22
"""Bytes of arrays that decide a kernel's way, up to which results are remembered by them."""
_remembered = Remembered(room=1 << 17)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedLaunch:
    """One launch and its time; `start_ps` counts from the beginning of the timeline."""

    name: str
    grid: tuple[int, int, int]
    start_ps: int
    result: Result
    tag: str = ""


@dataclass(eq=False)
class Timeline:
    """Launches in order on one chip, one after the other.

    Equal launches (same kernel, grid, numbers, same arrays shared among the pointers, and equal
    content of those that decide where a kernel goes) are simulated once, and those that an earlier
    timeline of an equal chip saw are mostly remembered.
    `wants_values` says whether kernels also compute.
    """

    chip: Chip
    fidelity: Fidelity = "tile"
    wants_values: bool = True
    max_events: int = 0
    lines: bool = False
    launches: list[TimedLaunch] = field(default_factory=list)
    tag: str = ""
    on_progress: Callable[[TimedLaunch], None] | None = None
    _known: dict[Any, Result] = field(default_factory=dict)

    def on_launch(self, launch: Launch) -> None:
        """Time a launch."""
        self.note(launch.kernel.name, launch.grid, self._result(launch), self.tag)

    def repeat(self, launches: Sequence[TimedLaunch]) -> None:
        """Note launches of this timeline once more, after all others."""
        for timed in launches:
            self.note(timed.name, timed.grid, timed.result, timed.tag)

    def note(self, name: str, grid: Grid, result: Result, tag: str) -> None:
        """Put a launch, or what takes time without being one, after all others."""
        timed = TimedLaunch(name=name, grid=grid, start_ps=self.time_ps, result=result, tag=tag)
        self.launches.append(timed)
        if self.on_progress:
            self.on_progress(timed)

    def _result(self, launch: Launch) -> Result:
        program = launch.kernel.time_program
        if not program.reads_memory:
            exists = all(a.exists for a in launch.args if isinstance(a, Array))
            return self._remembered_result(launch, _canonical(launch), b"", has_memory=exists)
        _refuse_overlap(launch)
        deciding = _deciding(launch)
        exists = all(array.exists for array in deciding)
        regions = [
            Region(a.address, a.start, a.end) if isinstance(a, Array) else a for a in launch.args
        ]
        size = sum(array.end - array.start for array in deciding)
        if not exists or size > _MOST_CONTENT or program.written_back:
            return self._simulate(launch, regions, has_memory=exists)
        content = hashlib.blake2b()
        for array in deciding:
            content.update(ctypes.string_at(array.start, array.end - array.start))
        return self._remembered_result(launch, regions, content.digest(), has_memory=exists)

    def _remembered_result(
        self, launch: Launch, args: Sequence[Region | int | float], content: bytes, *,
        has_memory: bool,
    ) -> Result:  # fmt: skip
        """Simulate a launch unless an equal one was; `content` digests what decides its way."""
        key = (launch.kernel.text, launch.grid, tuple(_canonical(launch)), content)
        if key not in self._known:
            terms = (self.chip, self.fidelity, self.max_events, self.lines)
            result = _remembered.get((terms, key))
            if result is None:
                result = self._simulate(launch, args, has_memory=has_memory)
                _remembered.keep((terms, key), result)
            self._known[key] = result
        return self._known[key]

    def _simulate(
        self, launch: Launch, args: Sequence[Region | int | float], *, has_memory: bool
    ) -> Result:
        return simulate_launch(
            launch.kernel.time_program, launch.grid, args, self.chip,
            fidelity=self.fidelity, has_memory=has_memory, max_events=self.max_events,
            lines=self.lines,
        )  # fmt: skip

    @property
    def time_ps(self) -> int:
        """The time of all launches."""
        if not self.launches:
            return 0
        last = self.launches[-1]
        return last.start_ps + last.result.time_ps

    @property
    def time_s(self) -> float:
        """The time of all launches in seconds."""
        return self.time_ps / PS_PER_S

    @property
    def energy_j(self) -> float | None:
        """The energy of all launches, None where the chip has no power figure."""
        parts = [timed.result.energy_j for timed in self.launches]
        return None if any(p is None for p in parts) else sum(p for p in parts if p is not None)

    @property
    def throttled_ps(self) -> int:
        """How much longer the launches took because the power limit lowered the clock."""
        return sum(timed.result.throttled_ps for timed in self.launches)

    def breakdown_ps(self) -> dict[str, int]:
        """Add up the launches' critical paths; the sum is `time_ps`."""
        total: dict[str, int] = {}
        for timed in self.launches:
            for name, ps in timed.result.breakdown_ps.items():
                total[name] = total.get(name, 0) + ps
        return total

    def energy_parts_j(self) -> dict[str, float]:
        """Add up what the launches' energy is spent on; the sum is `energy_j`, where known."""
        total: dict[str, float] = {}
        for timed in self.launches:
            for name, joules in timed.result.energy_parts_j.items():
                total[name] = total.get(name, 0.0) + joules
        return total

    def to_perfetto(self, path: str | Path) -> None:
        """Write a trace that ui.perfetto.dev opens; needs `max_events` > 0 for instructions.

        Raises: OutputError if the file cannot be written.
        """
        write_trace(Path(path), self.chip, [(t.name, t.start_ps, t.result) for t in self.launches])


def _deciding(launch: Launch) -> list[Array]:
    """Return the arrays in which a kernel reads its way; all, if it is not known which."""
    indices = launch.kernel.time_program.deciding
    args = launch.args if min(indices) < 0 else [launch.args[i] for i in indices]
    return [arg for arg in args if isinstance(arg, Array)]


def _refuse_overlap(launch: Launch) -> None:
    """Refuse a launch whose way depends on an array that it writes under another name.

    Fine are names through which the time reading repeats all writes.

    Raises: KernelError with the line of the load that decides.
    """
    program = launch.kernel.time_program
    for reads, line in program.deciding.items():
        for writes in program.written:
            repeated = writes in program.written_back and writes in program.deciding
            if min(reads, writes) < 0 or repeated:
                continue
            a, b = launch.args[reads], launch.args[writes]
            if (
                isinstance(a, Array)
                and isinstance(b, Array)
                and a.start < b.end
                and b.start < a.end
            ):
                raise own_memory_error(line)


def _canonical(launch: Launch) -> list[int | float]:
    """Give arrays addresses that depend only on which pointers are equal."""
    places: dict[tuple[int, int], int] = {}
    args: list[int | float] = []
    for arg in launch.args:
        if isinstance(arg, Array):
            base = places.setdefault((arg.start, arg.end), (len(places) + 1) * _CANONICAL)
            args.append(base + arg.address - arg.start)
        else:
            args.append(arg)
    return args


@contextmanager
def simulate(
    chip: Chip,
    *,
    values: bool = True,
    fidelity: Fidelity = "tile",
    max_events: int = 0,
    lines: bool = False,
) -> Iterator[Timeline]:
    """Time every kernel launched inside the block on `chip`.

    With `values=False` nothing is computed, and tensors may be on the meta device. `max_events`
    keeps that many macro-instructions of each launch for `Timeline.to_perfetto`; `lines` splits
    each launch's critical path by source line (`Result.lines`).

    Raises: ConfigError for an unknown fidelity.
    """
    if fidelity not in FIDELITIES:
        names = " or ".join(FIDELITIES)
        raise ConfigError(
            f"there is no fidelity {fidelity!r}", where="fidelity", hint=f"use {names}"
        )
    timeline = Timeline(chip, fidelity, values, max_events, lines)
    listen(timeline)
    try:
        yield timeline
    finally:
        stop_listening(timeline)


def current_timeline() -> Timeline | None:
    """Return the timeline of the innermost `simulate` block around the caller, if there is one."""
    return next((t for t in reversed(listeners()) if isinstance(t, Timeline)), None)


@contextmanager
def time_aside(timeline: Timeline, fidelity: Fidelity | None = None) -> Iterator[Timeline]:
    """Time launches as a timeline would, without its noting them and without computing values.

    What a choice between kernels costs is no part of the program that is timed. One that must not
    depend on the timeline's fidelity is made at another.
    """
    fidelity = fidelity or timeline.fidelity
    known = timeline._known if fidelity == timeline.fidelity else {}
    aside = Timeline(timeline.chip, fidelity, wants_values=False, _known=known)
    with only(aside):
        yield aside

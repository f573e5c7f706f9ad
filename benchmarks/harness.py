"""Time things against each other: interleaved rounds, paired ratios, medians with their spread."""

from __future__ import annotations

import gc
import json
import math
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asterope.native import best_isa, num_cores, write_atomically

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Summarise repeated measurements: the median, the smallest and the largest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        median, low, high = map(_digits, (self.median, self.low, self.high))
        return f"{median} ({low}-{high})"


def _digits(value: float) -> str:
    """Write three digits, or all before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def spread(values: Iterable[float]) -> Spread:
    """Return the median, smallest and largest of some measurements."""
    ordered = sorted(values)
    return Spread(median=statistics.median(ordered), low=ordered[0], high=ordered[-1])


def _seconds(run: Callable[[], object], calls: int) -> float:
    """Return the seconds of one call, from several in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def time_rounds(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 9,
    min_s: float = 0.05,
    pause_s: float = 0.05,
) -> dict[str, list[float]]:
    """Return the seconds a call of each function takes, in each round.

    A round times every function in turn, every other round backwards, so that what else the
    machine does falls on all of them alike. A timing has as many calls as fill `min_s`. The pause
    before it lets worker threads of the one before, which spin for a while, go to sleep. The
    garbage collector waits meanwhile.
    """
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = _calls_that_fill(run, min_s)
    times: dict[str, list[float]] = {name: [] for name in runs}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for index in range(rounds):
            for name in list(runs)[:: -1 if index % 2 else 1]:
                time.sleep(pause_s)
                times[name].append(_seconds(runs[name], calls[name]))
    finally:
        if was_enabled:
            gc.enable()
    return times


def _calls_that_fill(run: Callable[[], object], min_s: float) -> int:
    """Count the calls that take so long by the fastest of some: the first may wake threads."""
    fastest, spent = math.inf, 0.0
    while spent < min_s:
        once = _seconds(run, 1)
        fastest, spent = min(fastest, once), spent + once
    return max(1, math.ceil(min_s / fastest))


def speedup(ours_s: Sequence[float], theirs_s: Sequence[float]) -> Spread:
    """Return how many times faster ours is, from the two times of each round."""
    return spread(theirs / ours for ours, theirs in zip(ours_s, theirs_s, strict=True))


def rate(amount: float, times_s: Sequence[float]) -> Spread:
    """Return an amount per second, for each round's time."""
    return spread(amount / t for t in times_s)


def cpu_name() -> str:
    """Return what the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        return found[1].strip()
    return platform.processor() or platform.machine()


def environment(packages: Sequence[str]) -> dict[str, str]:
    """Return what a reader needs to know about where numbers come from."""
    found = {
        "CPU": cpu_name(),
        "instruction set": best_isa().name,
        "threads": str(num_cores()),
        "Python": platform.python_version(),
    }
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A table of results."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a benchmark says: to people in `sections`, to machines in `data`."""

    theme: str
    title: str
    notes: str
    sections: Sequence[Section]
    data: Any
    packages: Sequence[str]
    command: str

    def markdown(self) -> str:
        """Write the result file."""
        where = ", ".join(f"{name} {value}" for name, value in environment(self.packages).items())
        parts = [f"# {self.title}", self.notes.strip()]
        for section in self.sections:
            parts += [f"## {section.title}", markdown_table(section.header, section.rows)]
        return "\n\n".join([*parts, where, f"`{self.command}`"]) + "\n"


def publish(report: Report, *, as_json: bool, write: bool) -> None:
    """Print a report as tables or JSON; write it to results/ if asked, by CPU and month."""
    if as_json:
        print(json.dumps(report.data, indent=2))
    else:
        console = Console(width=max(Console().width, 150))
        for section in report.sections:
            table = Table(*section.header, title=section.title)
            for row in section.rows:
                table.add_row(*row)
            console.print(table)
    if write:
        cpu = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
        machine = f"{cpu}-{best_isa().name}"
        path = RESULTS / f"{report.theme}_{machine}_{datetime.now(UTC):%Y%m}.md"
        write_atomically(path, report.markdown().encode())
        Console(stderr=True).print(f"wrote {path}")

"""What a script's kernel launches took, launch by launch and line by line of their source."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from asterope.report.data import LineShare, TracedLaunch
from asterope.report.numbers import count, percent, seconds, size
from asterope.report.terminal import new_table
from asterope.units import si

__all__ = ["launch_tables"]

_MOST_LAUNCHES, _MOST_LINES = 40, 12


def launch_tables(launches: Sequence[TracedLaunch], chip: str) -> list[RenderableType]:
    """Return the launches in order, and for each kernel its lines by their share of the time."""
    total_s = sum(launch.time_s for launch in launches)
    title = f"{count(len(launches))} launches, {seconds(total_s)} on {chip}"
    table = new_table(
        title, "kernel", "grid", ">time", ">share", ">HBM", ">above roofline", ">power", "bound by"
    )
    for launch in launches[:_MOST_LAUNCHES]:
        above = launch.time_s / launch.roofline_s if launch.roofline_s else 0.0
        table.add_row(
            launch.kernel, "x".join(map(str, launch.grid)), seconds(launch.time_s),
            percent(launch.time_s / total_s), size(launch.hbm_bytes),
            f"{above:,.1f}x" if above else "", _power(launch), launch.bound_by,
        )  # fmt: skip
    rest = launches[_MOST_LAUNCHES:]
    if rest:
        took = sum(launch.time_s for launch in rest)
        share = percent(took / total_s)
        table.add_row(f"{count(len(rest))} more", "", seconds(took), share, "", "", "", "")
    tables: list[RenderableType] = [table]
    for kernel in dict.fromkeys(launch.kernel for launch in launches):
        lines = _added_up([launch for launch in launches if launch.kernel == kernel])
        if lines:
            tables.append(_line_table(kernel, lines))
    return tables


def _power(launch: TracedLaunch) -> str:
    """Write the mean power, and the clock where the power limit lowered it."""
    if launch.energy_j is None or not launch.time_s:
        return ""
    clock = f" at {si(launch.clock_hz, 'Hz')}" if launch.throttled_s and launch.clock_hz else ""
    return f"{count(launch.energy_j / launch.time_s)} W{clock}"


def _added_up(launches: Sequence[TracedLaunch]) -> list[LineShare]:
    """Add up equal work on one line, of several launches of one kernel, the longest first."""
    found: dict[tuple[str, str, str], float] = {}
    for launch in launches:
        for line in launch.lines:
            key = (line.loc.rpartition(":")[0], line.engine, line.work)
            found[key] = found.get(key, 0.0) + line.time_s
    lines = [LineShare(loc=k[0], engine=k[1], work=k[2], time_s=s) for k, s in found.items()]
    return sorted(lines, key=lambda line: -line.time_s)


def _line_table(kernel: str, lines: Sequence[LineShare]) -> RenderableType:
    total_s = sum(line.time_s for line in lines)
    table = new_table(
        f"{kernel}: the critical path by line", ">share", "line", "engine", "work", "source"
    )
    for line in lines[:_MOST_LINES]:
        file, number = _place(line.loc)
        source = linecache.getline(file, number).strip() if file else ""
        place = f"{Path(file).name}:{number}" if file else ""
        share = percent(line.time_s / total_s)
        table.add_row(share, place, line.engine, line.work, Text(source))
    if len(lines) > _MOST_LINES:
        rest = sum(line.time_s for line in lines[_MOST_LINES:])
        table.add_row(percent(rest / total_s), "other lines", "", "", "")
    return table


def _place(loc: str) -> tuple[str, int]:
    """Split `file:line`."""
    file, _, line = loc.rpartition(":")
    return (file, int(line)) if line.isdigit() else ("", 0)

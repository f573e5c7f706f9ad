"""What a single operation shows: its time on each chip, what that went into, a trace and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from asterope.chips import Chip
from asterope.cli.options import command_line
from asterope.cli.output import say
from asterope.errors import ConfigError
from asterope.report import launch_page, new_table, plain, write_page
from asterope.units import si

if TYPE_CHECKING:
    from asterope.api import MappedTime, OperationTime
    from asterope.runtime import Timeline

__all__ = ["Wanted", "described", "draw"]

_TRACED_EVENTS = 1 << 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to show of an operation, and the files to write."""

    is_explained: bool
    as_json: bool
    trace: Path | None
    report: Path | None


def draw(
    chip: Chip, launches: Callable[[int], Timeline], title: str, phase: str, wanted: Wanted
) -> None:
    """Write the trace and the page that are wanted; `launches` keeps so many instructions of each.

    Raises: ConfigError if the chip has no instructions to show.
    """
    from asterope import api

    if wanted.trace is None and wanted.report is None:
        return

    if chip.tile is None:
        raise ConfigError(
            f"the inside of {chip.name} is not public, so there are no instructions to show",
            where="--report" if wanted.trace is None else "--trace", hint="use --chip maia200",
        )  # fmt: skip
    if wanted.trace is not None:
        timeline = launches(_TRACED_EVENTS)
        timeline.to_perfetto(wanted.trace)
        say(f"trace: {wanted.trace.absolute()} (open it at ui.perfetto.dev)")
    if wanted.report is not None:
        timeline = launches(api.PAGE_EVENTS)
        page = api.launch_report(timeline, title, phase=phase, command=command_line())
        write_page(launch_page(page), wanted.report)
        say(f"report: {wanted.report.absolute()}")


def described(
    title: str, found: Sequence[OperationTime], sizes: str,
    explained: Sequence[Sequence[tuple[str, MappedTime]]] | None,
) -> tuple[list[dict[str, Any]], list[RenderableType]]:  # fmt: skip
    """Return what an operation takes on each chip, as rows of JSON and as tables.

    `explained` has the mappings on each chip by their `sizes`, None where they are not wanted.
    """
    rows, tables = [dict(plain(time)) for time in found], [times(title, found)]
    if explained is not None:
        for row, time, mappings in zip(rows, found, explained, strict=True):
            row["mappings"] = plain([mapping for _, mapping in mappings])
            tables += [*parts_of(time), *mappings_of(sizes, mappings)]
    return rows, tables


def times(title: str, found: Sequence[OperationTime]) -> RenderableType:
    """Show one line for each chip."""
    table = new_table(
        title, "chip", ">time", ">rate", "in", ">of peak", ">HBM", ">energy", ">power", "bound by",
        "timed by",
    )  # fmt: skip
    for time in found:
        table.add_row(
            time.chip, si(time.time_s, "s"), si(time.flop / time.time_s, "flop/s"), time.rate,
            f"{time.peak_share:.1%}", si(time.hbm_bytes / time.time_s, "B/s"), *_energy(time),
            time.bound_by, time.timed_by,
        )  # fmt: skip
    return table


def _energy(time: OperationTime) -> tuple[str, str]:
    if time.energy_j is None:
        return "", ""
    return si(time.energy_j, "J"), f"{time.energy_j / time.time_s:.0f} W"


def parts_of(time: OperationTime) -> list[RenderableType]:
    """Show what time and energy went into; each list adds up to its total."""
    shown: list[RenderableType] = [f"{time.chip}: {time.mapping}"]
    if time.clock_hz is not None and time.throttled_s:
        slower = si(time.throttled_s, "s")
        shown.append(f"the TDP lowers the clock to {si(time.clock_hz, 'Hz')}: {slower} longer")
    shown.append(_shares("time", time.parts, "s", time.time_s))
    if time.energy_j:
        shown.append(_shares("energy", time.energy_parts_j, "J", time.energy_j))
    return shown


def _shares(name: str, parts: Mapping[str, float], unit: str, total: float) -> RenderableType:
    table = new_table("", "part", f">{name}", ">share")
    for part, amount in sorted(parts.items(), key=lambda part: -part[1]):
        if amount:
            table.add_row(part, si(amount, unit), f"{amount / total:.1%}")
    return table


def mappings_of(sizes: str, found: Sequence[tuple[str, MappedTime]]) -> list[RenderableType]:
    """Show blocks of the least estimated time with their sizes, the fastest as simulated first."""
    if not found:
        return []
    table = new_table(
        "Blocks that were considered", "", f">{sizes}", ">stages", ">split", ">programs",
        ">estimated", ">simulated", ">HBM", "bound by",
    )  # fmt: skip
    for blocks, each in found:
        table.add_row(
            "chosen" if each.is_chosen else "", blocks, str(each.stages), str(each.split),
            f"{each.programs:,}", si(each.estimated_s, "s"), si(each.time_s, "s"),
            si(each.hbm_bytes, "B"), each.bound_by,
        )  # fmt: skip
    return [table]

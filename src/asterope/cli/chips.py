"""`asterope chips`, `asterope chips show` and `asterope chips sensitivity`."""

from __future__ import annotations

from typing import Annotated

import typer

from asterope import chips
from asterope.chips import Chip, FigureRow
from asterope.cli.errors import need_torch
from asterope.cli.options import AsJson
from asterope.cli.output import is_terminal, progress_bars, show, write, write_json
from asterope.report import new_table, plain
from asterope.units import GB, si

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")


@app.callback()
def list_chips(context: typer.Context, as_json: AsJson = False) -> None:
    """List the chips: peaks, memory, power, and whether their inside is described.

    Example: `asterope chips`
    """
    if context.invoked_subcommand is not None:
        return
    found = [chips.get(name) for name in chips.names()]
    if as_json:
        write_json([_summary(chip) for chip in found])
        return
    table = new_table(
        "", "name", "vendor", "profiles", "launch", ">fp4", ">fp8", ">bf16 [flop/s]", ">HBM",
        ">HBM [B/s]", ">TDP", "timed by",
    )  # fmt: skip
    for chip in found:
        table.add_row(*_cells(chip))
    show([table])


def _cells(chip: Chip) -> list[str]:
    peaks = [chip.peak_flop_per_s.get(name) for name in ("fp4", "fp8", "bf16")]
    tdp_w = chip.power.tdp_w
    return [
        chip.name,
        chip.vendor,
        ", ".join(chips.profiles(chip.name)),
        chip.launch,
        *("" if peak is None else si(peak, "").strip() for peak in peaks),
        f"{chip.hbm.capacity_bytes / GB:.0f} GB",
        si(chip.hbm.bandwidth_bytes_per_s, "").strip(),
        "" if tdp_w is None else f"{tdp_w:.0f} W",
        ", ".join(reversed(chip.fidelities)),
    ]


def _summary(chip: Chip) -> dict[str, object]:
    return {
        "name": chip.name,
        "vendor": chip.vendor,
        "profiles": list(chips.profiles(chip.name)),
        "launch": chip.launch,
        "peak_flop_per_s": dict(chip.peak_flop_per_s),
        "hbm_bytes": chip.hbm.capacity_bytes,
        "hbm_bytes_per_s": chip.hbm.bandwidth_bytes_per_s,
        "tdp_w": chip.power.tdp_w,
        "has_tiles": chip.tile is not None,
    }


@app.command("show")
def show_chip(
    name: Annotated[str, typer.Argument(help="Name, name:profile, or a TOML file.")],
    toml: Annotated[
        bool, typer.Option("--toml", help="Write TOML, to change: the form of what-if files.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every figure of a chip with its unit, source and confidence.

    Into a file or a pipe it writes TOML, which --chip reads again.

    Example: `asterope chips show maia200 > mine.toml`
    """
    chip = chips.get(name)
    if as_json:
        head = {"name": chip.name, "vendor": chip.vendor, "profile": chip.profile}
        write_json({**head, "figures": [plain(row) for row in chips.figures(chip)]})
    elif toml or not is_terminal():
        write(chips.dumps_toml(chip))
    else:
        table = new_table(
            f"{chip.name}, profile {chip.profile}, by {chip.vendor}",
            "figure", ">value", "unit", "confidence", "source and remarks",
        )  # fmt: skip
        for row in chips.figures(chip):
            table.add_row(row.path, _value(row), row.unit, str(row.confidence), _origin(row))
        show([table])


@app.command("sensitivity")
def show_sensitivity(
    name: Annotated[str, typer.Argument(help="Name, name:profile, or a TOML file.")] = "maia200",
    factor: Annotated[
        float, typer.Option(metavar="F", help="Vary each figure to its F-th part and its F-fold.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Vary each figure that is not public, and show how much predicted times change.

    The figures are those that are assumed or calibrated and that the tile simulation uses; the
    times are of large products in three formats, one of few rows, attention of a decode step, and
    an elementwise kernel. The most telling figure comes first.

    Example: `asterope chips sensitivity maia200 --factor 1.5`
    """
    need_torch("chips sensitivity")
    from asterope import api

    chip = chips.get(name)
    with progress_bars() as progress:
        found = api.vary_figures(chip, factor=factor, progress=progress)
    if as_json:
        write_json([{**plain(one), "effect": one.effect} for one in found])
        return
    predictions = list(found[0].changes) if found else []
    table = new_table(
        f"{chip.name}, profile {chip.profile}: change of time with less / with more of a figure",
        "figure", ">less", ">value", ">more", "unit", *(f">{p}" for p in predictions),
    )  # fmt: skip
    for one in found:
        values = (f"{value:,.6g}" for value in (one.low, one.value, one.high))
        changes = (" / ".join(map(_percent, one.changes[p])) for p in predictions)
        table.add_row(one.figure, *values, one.unit, *changes)
    show([table])


def _percent(change: float | None) -> str:
    """Write a relative change; nothing below a thousandth, a dash where it is not possible."""
    if change is None:
        return "-"
    return "0" if abs(change) < 0.001 else f"{100 * change:+.1f}%"


def _value(row: FigureRow) -> str:
    if isinstance(row.value, float):
        return f"{row.value:g}"
    return f"{row.value:,}" if type(row.value) is int else str(row.value)


def _origin(row: FigureRow) -> str:
    return f"{row.source}; {row.note}" if row.note else row.source

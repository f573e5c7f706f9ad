"""`asterope chips` and `asterope chips show`."""

from __future__ import annotations

from typing import Annotated

import typer

from asterope import chips
from asterope.chips import Chip, FigureRow
from asterope.cli.options import AsJson
from asterope.cli.output import is_terminal, show, write, write_json
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
        "tile, roofline" if chip.tile is not None else "roofline",
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


def _value(row: FigureRow) -> str:
    if isinstance(row.value, float):
        return f"{row.value:g}"
    return f"{row.value:,}" if type(row.value) is int else str(row.value)


def _origin(row: FigureRow) -> str:
    return f"{row.source}; {row.note}" if row.note else row.source

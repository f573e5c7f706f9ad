"""`asterope chips power`: what chips draw at their peaks, and flop a second for each watt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import RenderableType

from asterope import chips
from asterope.chips import Chip, PeakPower
from asterope.cli.options import AsJson
from asterope.cli.output import show, write_json
from asterope.errors import ChipError
from asterope.report import new_table, plain
from asterope.units import TFLOPS

__all__ = ["show_power"]


def show_power(
    name: Annotated[
        str, typer.Argument(help="Name, name:profile, or a TOML file.")
    ] = "maia200:headline",
    as_json: AsJson = False,
) -> None:
    """Show what a chip draws at the peak of each format, by component, and its efficiency.

    At the peak every tensor unit is busy, operands come from SRAM at the full rate, and memory
    streams at the bandwidth that kernels reach. Where the energy of events is not described, a chip
    is taken to draw its TDP.

    Example: `asterope chips power maia200:headline`
    """
    chip = chips.get(name)
    found = chips.peak_power(chip)
    if not found:
        raise ChipError("is not public, so there is no efficiency", where="power.tdp_w")
    if as_json:
        head = {"name": chip.name, "profile": chip.profile, "tdp_w": chip.power.tdp_w}
        write_json({**head, "peaks": [_as_json(peak) for peak in found]})
    else:
        show([_table(chip, found)])


def _as_json(peak: PeakPower) -> dict[str, object]:
    return {**plain(peak), "power_w": peak.power_w, "flop_per_j": peak.flop_per_j}


def _table(chip: Chip, found: Sequence[PeakPower]) -> RenderableType:
    parts = list(found[0].parts_w)
    table = new_table(
        f"{chip.name}:{chip.profile}, watts at its peaks",
        "format", ">TFLOP/s", *(f">{part}" for part in parts), ">together", ">TFLOP/W",
        ">claimed",
    )  # fmt: skip
    for peak in found:
        claimed = peak.claimed_flop_per_j
        table.add_row(
            peak.format, f"{peak.peak_flop_per_s / TFLOPS:,.0f}",
            *(f"{peak.parts_w[part]:.1f}" for part in parts), f"{peak.power_w:.1f}",
            f"{peak.flop_per_j / TFLOPS:.2f}",
            "" if claimed is None else f"{claimed / TFLOPS:.1f}",
        )  # fmt: skip
    return table

"""The roofline against power: watts, and operations for each joule, over arithmetic intensity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from asterope.report.chart_parts import (
    MUTED,
    Figure,
    decades,
    formats_of,
    layout,
    marks,
    multiplied,
)
from asterope.report.data import ChipFacts, LaunchGroup, Timed
from asterope.report.numbers import amount, count, percent
from asterope.units import si

__all__ = ["power_at", "power_figures"]

_POINTS = 80


def power_at(chip: ChipFacts, element: str, intensity: float) -> tuple[float, float]:
    """Return flop a second and watts at the roof of a format, within the TDP.

    At the roof one of the tensor engines and HBM, at the bandwidth that kernels reach, is busy all
    the time. Where that draws more than the TDP, both go slower; what a lower voltage saves is left
    out.
    """
    roof = chip.power_roofs[element]
    flop_per_s = min(chip.peak_flop_per_s[element], intensity * chip.hbm_effective_bytes_per_s)
    joules = roof.flop_j + roof.hbm_byte_j / intensity
    watts = roof.static_w + flop_per_s * joules
    if chip.tdp_w is None or watts <= chip.tdp_w:
        return flop_per_s, watts
    return max(0.0, chip.tdp_w - roof.static_w) / joules, chip.tdp_w


def power_figures(chip: ChipFacts, timed: Sequence[Timed]) -> dict[str, Figure]:
    """Return launches under the power and the efficiency of a chip's roofs.

    There are none where the energy of events is not described, or nothing was counted.
    """
    counted = [t for t in timed if t.fidelity == "tile" and t.energy_j]
    formats = [name for name in formats_of(chip, counted) if name in chip.power_roofs]
    if not counted or not formats:
        return {}
    groups = [g for t in counted for g in _drawing(t)]
    intensities = [g.total_flop / g.hbm_bytes for g in groups]
    ridge = chip.peak_flop_per_s[formats[-1]] / chip.hbm_effective_bytes_per_s
    low, high = min([*intensities, 1.0]) / 2, max([*intensities, ridge]) * 4
    steps = [low * (high / low) ** (i / _POINTS) for i in range(_POINTS + 1)]
    x = {
        "type": "log", "title": "arithmetic intensity [flop per byte of HBM]",
        "range": [math.log10(low), math.log10(high)], **decades(low, high, ""),
    }  # fmt: skip
    return {
        "Power": _watts(chip, formats, counted, steps, x),
        "Efficiency": _efficiency(chip, formats, counted, steps, x),
    }


def _marks(timed: Timed, height: Callable[[LaunchGroup], float]) -> Figure:
    # Two charts stand side by side: beside a mark there is no room.
    sides = ("bottom center", "top center")
    return marks(timed, height, _describe, groups=_drawing(timed), sides=sides)


def _drawing(timed: Timed) -> list[LaunchGroup]:
    return [g for g in multiplied(timed) if g.energy_j]


def _watts(
    chip: ChipFacts, formats: Sequence[str], timed: Sequence[Timed], steps: Sequence[float],
    x: Figure,
) -> Figure:  # fmt: skip
    data = [
        _line(name, steps, [power_at(chip, name, i)[1] for i in steps], "W") for name in formats
    ]
    notes = [_note(name, steps[-1], power_at(chip, name, steps[-1])[1]) for name in formats[-1:]]
    top = max(
        [*(max(line["y"]) for line in data), *(_power_w(g) for t in timed for g in _drawing(t))]
    )
    if chip.tdp_w is not None:
        top = max(top, chip.tdp_w)
        data.append({
            "type": "scatter", "mode": "lines", "x": [steps[0], steps[-1]],
            "y": [chip.tdp_w, chip.tdp_w], "hoverinfo": "text", "text": f"TDP {chip.tdp_w:g} W",
            "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
        })  # fmt: skip
        notes.append({
            "x": math.log10(steps[0]), "y": chip.tdp_w, "xanchor": "left", "yanchor": "bottom",
            "showarrow": False, "text": f"TDP {count(chip.tdp_w)} W",
        })  # fmt: skip
    data += [_marks(t, _power_w) for t in timed]
    y = {"title": "power [W]", "range": [0, 1.12 * top], "automargin": True}
    return {"data": data, "layout": layout(380, xaxis=x, yaxis=y, annotations=notes)}


def _efficiency(
    chip: ChipFacts, formats: Sequence[str], timed: Sequence[Timed], steps: Sequence[float],
    x: Figure,
) -> Figure:  # fmt: skip
    data, notes = [], []
    for name in formats:
        roofs = [power_at(chip, name, i) for i in steps]
        found = [flop_per_s / watts for flop_per_s, watts in roofs]
        data.append(_line(name, steps, found, "flop/J"))
        notes.append(_note(f"{name} {si(found[-1], 'flop/J')}", steps[-1], math.log10(found[-1])))
    lowest = min(
        [*(line["y"][0] for line in data), *(_flop_per_j(g) for t in timed for g in _drawing(t))]
    )
    highest = max(line["y"][-1] for line in data)
    data += [_marks(t, _flop_per_j) for t in timed]
    y = {
        "type": "log", "title": "efficiency [flop/J]", "automargin": True,
        **decades(lowest, highest, "flop/J"),
    }  # fmt: skip
    return {"data": data, "layout": layout(380, xaxis=x, yaxis=y, annotations=notes)}


def _line(name: str, x: Sequence[float], y: Sequence[float], unit: str) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "hoverinfo": "text",
        "text": [f"{name} at the roof: {si(value, unit)}" for value in y],
        "line": {"color": MUTED, "width": 2},
    }  # fmt: skip


def _note(text: str, x: float, y: float) -> Figure:
    return {
        "x": math.log10(x), "y": y, "xanchor": "right", "yanchor": "bottom", "showarrow": False,
        "text": text,
    }  # fmt: skip


def _power_w(group: LaunchGroup) -> float:
    return (group.energy_j or 0.0) / group.time_s


def _flop_per_j(group: LaunchGroup) -> float:
    return group.total_flop / group.energy_j if group.energy_j else 0.0


def _describe(group: LaunchGroup, share: float) -> str:
    return (
        f"<b>{group.label}</b>, {group.launches} launches, {percent(share)} of the time"
        f"<br>{count(_power_w(group))} W, {si(_flop_per_j(group), 'flop/J')}"
        f" at {amount(group.total_flop / group.hbm_bytes)} flop/B"
    )

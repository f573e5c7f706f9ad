"""What charts share: colours, the frame, decades of a scale, a mark for each group of launches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from asterope.report.data import ChipFacts, LaunchGroup, Timed
from asterope.units import si

__all__ = [
    "ACCENT",
    "BOUND_COLOURS",
    "ENERGY_COLOURS",
    "MUTED",
    "PHASE_MARKS",
    "Figure",
    "decades",
    "formats_of",
    "layout",
    "marks",
    "multiplied",
    "time_unit",
]

Figure = dict[str, Any]

ACCENT, MUTED = "#3b7dd8", "#98a4b3"
BOUND_COLOURS = {
    "tensor": "#3b7dd8", "vector": "#8a63d2", "hbm": "#e07b39", "csram": "#e3b341",
    "noc": "#c2902f", "tile port": "#a8623a", "tsram": "#7a9e4b", "latency": "#98a4b3",
    "issue": "#c9d1d9", "launch": "#5d6b7a", "network": "#4b9c8e",
}  # fmt: skip
ENERGY_COLOURS = {
    "tensor": "#3b7dd8", "vector": "#8a63d2", "reshaper": "#b79ae8", "hbm": "#e07b39",
    "csram": "#e3b341", "noc": "#c2902f", "tsram": "#a8623a", "clock": "#5d6b7a",
    "leakage": "#98a4b3", "network": "#4b9c8e",
}  # fmt: skip
PHASE_MARKS = {"decode": ("circle", "#e07b39"), "prefill": ("diamond", "#3b7dd8")}
_LABELLED_SHARE = 0.08


def layout(height: int, **more: Any) -> Figure:
    """Return the frame of a chart, its height in pixels."""
    return {
        "height": height, "margin": {"l": 10, "r": 20, "t": 10, "b": 46}, "bargap": 0.35,
        "showlegend": False, "hoverlabel": {"align": "left"}, **more,
    }  # fmt: skip


def decades(low: float, high: float, unit: str) -> Figure:
    """Return ticks at powers of ten, written with SI prefixes."""
    values = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    texts = [si(v, unit) if unit else f"{v:g}" for v in values]
    return {"tickmode": "array", "tickvals": values, "ticktext": texts}


def time_unit(longest_s: float) -> tuple[float, str]:
    """Return the factor from seconds to the unit in which a time is 1 or more, and the unit."""
    for scale, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if longest_s * scale >= 1:
            return scale, unit
    return 1e9, "ns"


def multiplied(timed: Timed) -> list[LaunchGroup]:
    """Return the groups with work of the tensor engines on data of HBM: they have an intensity."""
    return [g for g in timed.groups if g.total_flop and g.hbm_bytes and g.time_s]


def formats_of(chip: ChipFacts, timed: Sequence[Timed]) -> list[str]:
    """Return the formats that were multiplied in, the slowest first; the slowest if none was."""
    peaks = chip.peak_flop_per_s
    found = {name for t in timed for g in multiplied(t) for name in g.flop} & peaks.keys()
    return sorted(found or {min(peaks, key=lambda f: peaks[f])}, key=lambda f: peaks[f])


def marks(
    timed: Timed,
    height: Callable[[LaunchGroup], float],
    describe: Callable[[LaunchGroup, float], str],
    *,
    groups: Sequence[LaunchGroup] | None = None,
    sides: Sequence[str] = ("middle right", "middle left"),
) -> Figure:
    """Return a mark for each group: its intensity against what `height` says, its share as size.

    `groups` are those to mark, all that multiply if left out; labels take the `sides` by turns.
    """
    groups = multiplied(timed) if groups is None else groups
    symbol, colour = PHASE_MARKS.get(timed.phase, ("circle", ACCENT))
    shares = [g.time_s / timed.time_s for g in groups]
    return {
        "type": "scatter", "mode": "markers+text", "name": f"{timed.phase}, {timed.fidelity}",
        "x": [g.total_flop / g.hbm_bytes for g in groups],
        "y": [height(g) for g in groups],
        "marker": {"symbol": symbol, "color": colour, "opacity": 0.85,
                   "size": [8 + 22 * share**0.5 for share in shares],
                   "line": {"width": 1, "color": "white"}},
        "text": [
            g.label if share >= _LABELLED_SHARE else ""
            for g, share in zip(groups, shares, strict=True)
        ],
        "textposition": _by_turns([height(g) for g in groups], sides), "textfont": {"size": 11},
        "hovertext": [describe(g, s) for g, s in zip(groups, shares, strict=True)],
        "hoverinfo": "text",
    }  # fmt: skip


def _by_turns(heights: Sequence[float], sides: Sequence[str]) -> list[str]:
    """Put labels on each side by turns, from the lowest mark up, so that neighbours differ."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    found = {index: sides[rank % len(sides)] for rank, index in enumerate(order)}
    return [found[index] for index in range(len(heights))]

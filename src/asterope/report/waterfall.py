"""Waterfalls: what a time or an energy is made of, part after part, to the total."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from asterope.report.chart_parts import BOUND_COLOURS, ENERGY_COLOURS, MUTED, Figure, layout
from asterope.report.data import Timed
from asterope.report.numbers import percent
from asterope.units import si

__all__ = ["waterfall_figures"]

_LEAST_SHARE = 0.002
_ROOM = 0.55


def waterfall_figures(timed: Timed) -> dict[str, Figure]:
    """Return the waterfall of the time by what bound it, and of the energy where it was counted."""
    found = {"Time, by what bound it": _waterfall(timed.breakdown_s, "s", BOUND_COLOURS)}
    if timed.fidelity == "tile" and timed.energy_j:
        parts = timed.energy_parts_j
        found["Energy, by what it went into"] = _waterfall(parts, "J", ENERGY_COLOURS)
    return found


def _waterfall(parts: Mapping[str, float], unit: str, colours: Mapping[str, str]) -> Figure:
    """Return bars from the largest part down, each from where the one above ends, and the total."""
    total = sum(parts.values())
    shown = _folded(parts, total)
    starts = itertools.accumulate((amount for _, amount in shown), initial=0.0)
    rows = [(name, amount, start) for (name, amount), start in zip(shown, starts, strict=False)]
    rows.append(("total", total, 0.0))
    texts = [
        f"{si(amount, unit)}" + (f", {percent(amount / total)}" if name != "total" else "")
        for name, amount, _ in rows
    ]
    words = _words(rows, texts, total)
    bars = {
        "type": "bar", "orientation": "h", "y": [f"{name} " for name, _, _ in rows],
        "x": [amount for _, amount, _ in rows], "base": [start for _, _, start in rows],
        "marker": {"color": [colours.get(name, MUTED) for name, _, _ in rows]},
        "text": texts, "hoverinfo": "y+text",
        # What has no room beside its bar stands in it, in a colour that plotly picks to be read.
        "textposition": ["none" if text else "inside" for text in words["text"]],
        "insidetextanchor": "start", "constraintext": "none", "textangle": 0,
    }  # fmt: skip
    return {"data": [bars, words], "layout": _frame(len(rows), total)}


def _words(rows: Sequence[tuple[str, float, float]], texts: Sequence[str], total: float) -> Figure:
    """Write the figures of each bar beside it where there is room; "" for those that have none."""
    at, sides, shown = [], [], []
    for (_, amount, start), text in zip(rows, texts, strict=True):
        end = start + amount
        is_right, is_left = end <= _ROOM * total, start >= (1 - _ROOM) * total
        at.append(end if is_right else start)
        sides.append("middle right" if is_right else "middle left")
        shown.append(f" {text} " if is_right or is_left else "")
    return {
        "type": "scatter", "mode": "text", "x": at, "y": [f"{name} " for name, _, _ in rows],
        "text": shown, "textposition": sides, "hoverinfo": "skip", "cliponaxis": False,
    }  # fmt: skip


def _frame(num_rows: int, total: float) -> Figure:
    frame = layout(
        30 + 30 * num_rows,
        xaxis={"range": [0, total or 1.0], "showticklabels": False, "showgrid": False},
        yaxis={"automargin": True, "autorange": "reversed", "dtick": 1, "showgrid": False},
    )
    frame["margin"] |= {"b": 6}
    return frame


def _folded(parts: Mapping[str, float], total: float) -> list[tuple[str, float]]:
    """Return the parts from the largest down, those too small to see as one."""
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    shown = [part for part in ordered if part[1] > _LEAST_SHARE * total]
    rest = sum(amount for _, amount in ordered[len(shown) :])
    return [*shown, ("others", rest)] if rest else shown

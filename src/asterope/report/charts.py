"""The charts of the page, as plotly figures: plain data, no colours of paper or ink.

The page's script gives text and grid the colours of the light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from asterope.report.data import AccuracyRow, ChipFacts, Estimate, LaunchGroup, Step
from asterope.report.numbers import (
    amount,
    bits,
    energy_per_mtok,
    percent,
    ratio_change,
    seconds,
    usd,
)
from asterope.units import si

__all__ = [
    "BOUND_COLOURS",
    "MUTED",
    "PHASE_MARKS",
    "accuracy_figures",
    "comparison_figures",
    "roofline_figure",
    "roofs",
    "time_figure",
]

Figure = dict[str, Any]

ACCENT, MUTED = "#3b7dd8", "#98a4b3"
BOUND_COLOURS = {
    "tensor": "#3b7dd8", "vector": "#8a63d2", "hbm": "#e07b39", "csram": "#e3b341",
    "noc": "#c2902f", "tile port": "#a8623a", "latency": "#98a4b3", "issue": "#c9d1d9",
    "launch": "#5d6b7a",
}  # fmt: skip
PHASE_MARKS = {"decode": ("circle", "#e07b39"), "prefill": ("diamond", "#3b7dd8")}
_MAX_BARS = 10
_LABELLED_SHARE = 0.08
_ROW_PX, _LINE_PX = 18, 12


def _layout(height: int, **more: Any) -> Figure:
    return {
        "height": height, "margin": {"l": 10, "r": 20, "t": 10, "b": 46}, "bargap": 0.35,
        "showlegend": False, "hoverlabel": {"align": "left"}, **more,
    }  # fmt: skip


def _bar_chart(
    labels: Sequence[str], values: Sequence[float], texts: Sequence[str], colours: Sequence[str],
    *, is_hatched: Sequence[bool] = (),
) -> Figure:  # fmt: skip
    """Return bars from top to bottom, each with its value written at its end instead of an axis."""
    hatches = ["/" if hatched else "" for hatched in is_hatched]
    bars = {
        "type": "bar", "orientation": "h", "x": list(values), "y": [f"{name} " for name in labels],
        "text": list(texts), "textposition": "outside", "cliponaxis": False, "hoverinfo": "y+text",
        "marker": {"color": list(colours), "pattern": {"shape": hatches, "solidity": 0.25}},
    }  # fmt: skip
    high, low = max([*values, 0.0]), min([*values, 0.0])
    lines = 1 + max((name.count("<br>") for name in labels), default=0)
    layout = _layout(
        24 + (_ROW_PX + _LINE_PX * lines) * len(values),
        xaxis={"range": [1.4 * low, high or 1.0], "showticklabels": False, "showgrid": False,
               "zeroline": True},
        yaxis={"automargin": True, "autorange": "reversed", "dtick": 1, "showgrid": False},
    )  # fmt: skip
    # What is written at the end of the longest bar stands in the margin.
    layout["margin"] |= {"r": 76, "b": 6}
    return {"data": [bars], "layout": layout}


def accuracy_figures(rows: Sequence[AccuracyRow]) -> dict[str, Figure]:
    """Return what each format does to perplexity and to the distribution, most bits on top."""
    formats = sorted((r for r in rows if not r.is_original), key=lambda r: -r.bits_per_weight)
    labels = [f"{r.format} · {bits(r.bits_per_weight)} bits" for r in formats]
    colours = [ACCENT if r.is_chosen else MUTED for r in formats]
    return {
        "Change of perplexity": _bar_chart(
            labels, [r.perplexity_ratio - 1 for r in formats],
            [ratio_change(r.perplexity_ratio) for r in formats], colours,
        ),
        "KL divergence from the original [nats a token]": _bar_chart(
            labels, [r.kl for r in formats], [amount(r.kl, 2) for r in formats], colours
        ),
    }  # fmt: skip


def comparison_figures(found: Estimate, phase: str) -> dict[str, Figure]:
    """Return speed, energy and dollars of a phase on each chip; assumed prices are hatched."""
    rows = [c for c in found.costs if c.phase == phase]
    own = (found.chip.name, found.scheme)
    labels = [
        f"{c.chip}<br>{c.fidelity}{'' if c.scheme == found.scheme else ', ' + c.scheme}"
        for c in rows
    ]
    colours = [ACCENT if (c.chip, c.scheme) == own else MUTED for c in rows]
    return {
        "Tokens a second": _bar_chart(
            labels, [c.tokens_per_s for c in rows],
            [si(c.tokens_per_s, "").strip() for c in rows], colours,
        ),
        "Energy of a million tokens": _bar_chart(
            labels, [c.joules_per_token for c in rows],
            [energy_per_mtok(c.joules_per_token) for c in rows], colours,
        ),
        "US dollars a million tokens": _bar_chart(
            labels, [c.usd_per_mtok for c in rows], [usd(c.usd_per_mtok) for c in rows], colours,
            is_hatched=[c.price_is_assumed for c in rows],
        ),
    }  # fmt: skip


def _folded(groups: Sequence[LaunchGroup]) -> list[tuple[str, int, Mapping[str, float]]]:
    """Return label, launches and seconds by bound of the longest groups, the others as one."""
    shown = [(g.label, g.launches, g.bound_s) for g in groups[:_MAX_BARS]]
    rest = groups[_MAX_BARS:]
    if rest:
        together: dict[str, float] = {}
        for group in rest:
            for bound, took in group.bound_s.items():
                together[bound] = together.get(bound, 0.0) + took
        shown.append(("others", sum(g.launches for g in rest), together))
    return shown


def time_figure(step: Step) -> Figure:
    """Return where the time of a step goes: a bar a kernel, split by what bound it."""
    rows = _folded(step.groups)[::-1]
    labels = [f"{label} " for label, _, _ in rows]
    found = {bound for _, _, parts in rows for bound in parts}
    scale, unit = _time_unit(step.groups[0].time_s)
    data = [
        {
            "type": "bar", "orientation": "h", "name": bound, "y": labels,
            "x": [parts.get(bound, 0.0) * scale for _, _, parts in rows],
            "marker": {"color": BOUND_COLOURS.get(bound, MUTED)},
            "text": [
                f"{seconds(parts.get(bound, 0.0))} of {bound},"
                f" {percent(parts.get(bound, 0.0) / step.time_s)} of the step, {launches} launches"
                for _, launches, parts in rows
            ],
            "textposition": "none", "hoverinfo": "y+text",
        }
        for bound in (*BOUND_COLOURS, *sorted(found - BOUND_COLOURS.keys()))
        if bound in found
    ]  # fmt: skip
    totals = [sum(parts.values()) for _, _, parts in rows]
    shares: Figure = {
        "type": "scatter", "mode": "text", "x": [t * scale for t in totals], "y": labels,
        "text": [f" {percent(t / step.time_s)}" for t in totals], "textposition": "middle right",
        "hoverinfo": "skip", "cliponaxis": False,
    }  # fmt: skip
    layout = _layout(
        62 + 26 * len(rows), barmode="stack", yaxis={"automargin": True, "dtick": 1},
        xaxis={"title": f"time in one {step.phase} step [{unit}]", "rangemode": "nonnegative"},
    )  # fmt: skip
    layout["margin"] |= {"r": 60}
    return {"data": [*data, shares], "layout": layout}


def _time_unit(longest_s: float) -> tuple[float, str]:
    for scale, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if longest_s * scale >= 1:
            return scale, unit
    return 1e9, "ns"


def roofline_figure(chip: ChipFacts, steps: Sequence[Step]) -> Figure:
    """Return launches under the roofs of a chip: flop a byte against flop a second."""
    points = [(s, g) for s in steps for g in s.groups if g.total_flop and g.hbm_bytes]
    intensities = [g.total_flop / g.hbm_bytes for _, g in points]
    formats = sorted(
        {f for _, g in points for f in g.flop} & chip.peak_flop_per_s.keys(),
        key=lambda f: chip.peak_flop_per_s[f],
    ) or [min(chip.peak_flop_per_s, key=lambda f: chip.peak_flop_per_s[f])]
    top = chip.peak_flop_per_s[formats[-1]]
    ridge = top / chip.hbm_effective_bytes_per_s
    low, high = min([*intensities, 1.0]) / 2, max([*intensities, ridge]) * 4
    lowest = min([*(g.total_flop / g.time_s for _, g in points), top]) / 2
    data = [*_slopes(chip, low, top)]
    for name in formats:
        peak = chip.peak_flop_per_s[name]
        data.append({
            "type": "scatter", "mode": "lines", "x": [peak / chip.hbm_bytes_per_s, high],
            "y": [peak, peak], "line": {"color": MUTED, "width": 2}, "hoverinfo": "text",
            "text": f"{name} peak: {si(peak, 'flop/s')}",
        })  # fmt: skip
    data += [_marks(s, [g for t, g in points if t is s]) for s in steps]
    layout = _layout(
        460,
        xaxis={"type": "log", "title": "arithmetic intensity [flop per byte of HBM]",
               "range": [math.log10(low), math.log10(high)], **_decades(low, high, "")},
        yaxis={"type": "log", "title": "achieved [flop/s]", "automargin": True,
               **_decades(lowest, top, "flop/s")},
        annotations=[
            {"x": math.log10(high), "y": math.log10(chip.peak_flop_per_s[name]), "xanchor": "right",
             "yanchor": "bottom", "showarrow": False,
             "text": f"{name} {si(chip.peak_flop_per_s[name], 'flop/s')}"}
            for name in formats
        ],
    )  # fmt: skip
    return {"data": data, "layout": layout}


def _decades(low: float, high: float, unit: str) -> Figure:
    """Return ticks at powers of ten, written with SI prefixes."""
    values = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    texts = [si(v, unit) if unit else f"{v:g}" for v in values]
    return {"tickmode": "array", "tickvals": values, "ticktext": texts}


def roofs(chip: ChipFacts) -> dict[str, tuple[float, str]]:
    """Return the bandwidths of HBM with the dash of their line: its maker's, and what is reached.

    Kernels may reach less than the maker's; where they do not, there is one.
    """
    found = {f"HBM, maker's: {si(chip.hbm_bytes_per_s, 'B/s')}": (chip.hbm_bytes_per_s, "solid")}
    reached = chip.hbm_effective_bytes_per_s
    if reached < chip.hbm_bytes_per_s:
        found[f"HBM, reached by kernels: {si(reached, 'B/s')}"] = (reached, "dot")
    return found


def _slopes(chip: ChipFacts, low: float, top: float) -> list[Figure]:
    return [
        {
            "type": "scatter", "mode": "lines", "name": name, "hoverinfo": "name",
            "x": [low, top / rate], "y": [low * rate, top],
            "line": {"color": MUTED, "width": 2, "dash": dash},
        }
        for name, (rate, dash) in roofs(chip).items()
    ]  # fmt: skip


def _marks(step: Step, groups: Sequence[LaunchGroup]) -> Figure:
    symbol, colour = PHASE_MARKS.get(step.phase, ("circle", ACCENT))
    shares = [g.time_s / step.time_s for g in groups]
    return {
        "type": "scatter", "mode": "markers+text", "name": f"{step.phase}, {step.fidelity}",
        "x": [g.total_flop / g.hbm_bytes for g in groups],
        "y": [g.total_flop / g.time_s for g in groups],
        "marker": {"symbol": symbol, "color": colour, "opacity": 0.85,
                   "size": [8 + 22 * share**0.5 for share in shares],
                   "line": {"width": 1, "color": "white"}},
        "text": [
            g.label if share >= _LABELLED_SHARE else ""
            for g, share in zip(groups, shares, strict=True)
        ],
        "textposition": _sides(groups), "textfont": {"size": 11},
        "hovertext": [_describe(g, s) for g, s in zip(groups, shares, strict=True)],
        "hoverinfo": "text",
    }  # fmt: skip


def _sides(groups: Sequence[LaunchGroup]) -> list[str]:
    """Put labels left and right by turns, from the slowest mark up, so that neighbours differ."""
    order = sorted(range(len(groups)), key=lambda i: groups[i].total_flop / groups[i].time_s)
    sides = {index: ("middle right", "middle left")[rank % 2] for rank, index in enumerate(order)}
    return [sides[index] for index in range(len(groups))]


def _describe(group: LaunchGroup, share: float) -> str:
    speed = si(group.total_flop / group.time_s, "flop/s")
    intensity = amount(group.total_flop / group.hbm_bytes)
    work = f"{si(group.total_flop, 'flop')}, {si(group.hbm_bytes, 'B')} of HBM"
    return (
        f"<b>{group.label}</b>, {group.launches} launches, {percent(share)} of the step"
        f"<br>{speed} at {intensity} flop/B<br>{work}, {seconds(group.time_s)}"
    )

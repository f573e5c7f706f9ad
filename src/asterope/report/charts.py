"""Charts of speed, accuracy and cost, as plotly figures: no colours of paper or ink.

The page's script gives text and grid the colours of the light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from asterope.report.chart_parts import (
    ACCENT,
    BOUND_COLOURS,
    MUTED,
    Figure,
    decades,
    formats_of,
    layout,
    marks,
    multiplied,
    time_unit,
)
from asterope.report.data import AccuracyRow, ChipFacts, Estimate, LaunchGroup, Timed
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
    "accuracy_figures",
    "comparison_figures",
    "roofline_figure",
    "roofs",
    "time_figure",
]

_MAX_BARS = 10
_ROW_PX, _LINE_PX = 18, 12


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
    shape = layout(
        24 + (_ROW_PX + _LINE_PX * lines) * len(values),
        xaxis={"range": [1.4 * low, high or 1.0], "showticklabels": False, "showgrid": False,
               "zeroline": True},
        yaxis={"automargin": True, "autorange": "reversed", "dtick": 1, "showgrid": False},
    )  # fmt: skip
    # What is written at the end of the longest bar stands in the margin.
    shape["margin"] |= {"r": 76, "b": 6}
    return {"data": [bars], "layout": shape}


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


def time_figure(step: Timed) -> Figure:
    """Return where the time of a step goes: a bar a kernel, split by what bound it."""
    rows = _folded(step.groups)[::-1]
    labels = [f"{label} " for label, _, _ in rows]
    found = {bound for _, _, parts in rows for bound in parts}
    scale, unit = time_unit(step.groups[0].time_s)
    data = [
        {
            "type": "bar", "orientation": "h", "name": bound, "y": labels,
            "x": [parts.get(bound, 0.0) * scale for _, _, parts in rows],
            "marker": {"color": BOUND_COLOURS.get(bound, MUTED)},
            "text": [
                f"{seconds(parts.get(bound, 0.0))} of {bound},"
                f" {percent(parts.get(bound, 0.0) / step.time_s)} of all, {launches} launches"
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
    shape = layout(
        62 + 26 * len(rows), barmode="stack", yaxis={"automargin": True, "dtick": 1},
        xaxis={"title": f"time [{unit}]", "rangemode": "nonnegative"},
    )  # fmt: skip
    shape["margin"] |= {"r": 60}
    return {"data": [*data, shares], "layout": shape}


def roofline_figure(chip: ChipFacts, steps: Sequence[Timed]) -> Figure:
    """Return launches under the roofs of a chip: flop a byte against flop a second."""
    points = [g for s in steps for g in multiplied(s)]
    intensities = [g.total_flop / g.hbm_bytes for g in points]
    formats = formats_of(chip, steps)
    top = chip.peak_flop_per_s[formats[-1]]
    ridge = top / chip.hbm_effective_bytes_per_s
    low, high = min([*intensities, 1.0]) / 2, max([*intensities, ridge]) * 4
    lowest = min([*(g.total_flop / g.time_s for g in points), top]) / 2
    data = [*_slopes(chip, low, top)]
    for name in formats:
        peak = chip.peak_flop_per_s[name]
        data.append({
            "type": "scatter", "mode": "lines", "x": [peak / chip.hbm_bytes_per_s, high],
            "y": [peak, peak], "line": {"color": MUTED, "width": 2}, "hoverinfo": "text",
            "text": f"{name} peak: {si(peak, 'flop/s')}",
        })  # fmt: skip
    data += [marks(s, _speed, _describe) for s in steps]
    shape = layout(
        460,
        xaxis={"type": "log", "title": "arithmetic intensity [flop per byte of HBM]",
               "range": [math.log10(low), math.log10(high)], **decades(low, high, "")},
        yaxis={"type": "log", "title": "achieved [flop/s]", "automargin": True,
               **decades(lowest, top, "flop/s")},
        annotations=[
            {"x": math.log10(high), "y": math.log10(chip.peak_flop_per_s[name]), "xanchor": "right",
             "yanchor": "bottom", "showarrow": False,
             "text": f"{name} {si(chip.peak_flop_per_s[name], 'flop/s')}"}
            for name in formats
        ],
    )  # fmt: skip
    return {"data": data, "layout": shape}


def _speed(group: LaunchGroup) -> float:
    return group.total_flop / group.time_s


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


def _describe(group: LaunchGroup, share: float) -> str:
    speed = si(group.total_flop / group.time_s, "flop/s")
    intensity = amount(group.total_flop / group.hbm_bytes)
    work = f"{si(group.total_flop, 'flop')}, {si(group.hbm_bytes, 'B')} of HBM"
    return (
        f"<b>{group.label}</b>, {group.launches} launches, {percent(share)} of the time"
        f"<br>{speed} at {intensity} flop/B<br>{work}, {seconds(group.time_s)}"
    )

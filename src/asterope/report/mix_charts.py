"""Charts of mixed precision: what is lost against speed and bytes, and where it is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from asterope.report.chart_parts import ACCENT, MUTED, Figure, layout
from asterope.report.mix_data import MixReport, MixRow
from asterope.report.mix_tables import by_format, place_names
from asterope.report.numbers import amount, percent, ratio_change, seconds, size, speed, usd

__all__ = ["heat_figures", "pareto_figures"]

_FORMAT = "#e07b39"
_KINDS: Mapping[str, tuple[str, str, str, str]] = {
    "mix": ("mixes", "lines+markers", "circle", ACCENT),
    "one format": ("one format everywhere", "markers+text", "diamond", _FORMAT),
    "original": ("original", "markers+text", "square", MUTED),
}
"""Legend, mode, symbol and colour of each kind of model."""
_ROW_PX = 24


def pareto_figures(rows: Sequence[MixRow]) -> dict[str, Figure]:
    """Return the change of perplexity against tokens a second, and against bytes of weights."""
    return {
        "Perplexity against speed": _pareto(rows, lambda row: row.tokens_per_s, "tokens a second"),
        "Perplexity against weights in memory": _pareto(
            rows, lambda row: row.weight_bytes / 1e6, "weights [MB]"
        ),
    }


def _pareto(rows: Sequence[MixRow], taken: Callable[[MixRow], float], title: str) -> Figure:
    data = []
    for kind, (name, mode, symbol, colour) in _KINDS.items():
        own = sorted((row for row in rows if row.kind == kind), key=taken)
        data.append({
            "type": "scatter", "mode": mode, "name": name,
            "x": [taken(row) for row in own],
            "y": [100 * (row.perplexity_ratio - 1) for row in own],
            "marker": {"symbol": symbol, "color": colour, "size": 11,
                       "line": {"width": 1, "color": "white"}},
            "line": {"color": colour, "width": 1, "dash": "dot"},
            "text": [row.name for row in own], "textposition": "top center",
            "textfont": {"size": 11}, "cliponaxis": False,
            "hovertext": [_describe(row) for row in own], "hoverinfo": "text",
        })  # fmt: skip
    shape = layout(
        380, xaxis={"title": title, "automargin": True},
        yaxis={"title": "change of perplexity [%]", "automargin": True, "zeroline": True},
    )  # fmt: skip
    shape["margin"] |= {"t": 34}
    shape |= {"showlegend": True,
              "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}}  # fmt: skip
    return {"data": data, "layout": shape}


def _describe(row: MixRow) -> str:
    cost = "" if row.usd_per_mtok is None else f", {usd(row.usd_per_mtok)} a million tokens"
    return (
        f"<b>{row.name}</b>: {row.scheme}<br>perplexity {ratio_change(row.perplexity_ratio)},"
        f" KL {amount(row.kl, 3)} (predicted {amount(row.predicted_kl, 3)}),"
        f" same top token {percent(row.top1_agreement)}<br>{speed(row.tokens_per_s)} tokens/s,"
        f" {seconds(row.time_s)} a step{cost}<br>{size(row.weight_bytes)} of weights"
    )


def heat_figures(report: MixReport) -> dict[str, Figure]:
    """Return the KL of each place alone, a map for each format, all on one scale of colours."""
    logs = [math.log10(row.kl) for row in report.places if row.kl > 0]
    low, high = (min(logs), max(logs)) if logs else (-1.0, 0.0)
    places = place_names(report)
    found = {}
    for name, rows in by_format(report).items():
        kl = {(row.layer, row.place): row.kl for row in rows}
        grid = [[kl.get((layer, place)) for place in places] for layer in range(report.num_layers)]
        heat = {
            "type": "heatmap", "x": places, "y": list(range(report.num_layers)),
            "z": [[math.log10(x) if x else None for x in line] for line in grid],
            "zmin": low, "zmax": high, "showscale": False, "xgap": 2, "ygap": 2,
            "colorscale": [[0, "rgba(59,125,216,0.08)"], [1, "rgba(224,123,57,0.95)"]],
            "text": [["" if x is None else amount(x, 2) for x in line] for line in grid],
            "texttemplate": "%{text}", "hoverinfo": "x+y+text",
        }  # fmt: skip
        shape = layout(
            70 + _ROW_PX * report.num_layers, xaxis={"showgrid": False},
            yaxis={
                "title": "layer", "automargin": True, "autorange": "reversed", "dtick": 1,
                "showgrid": False,
            },
        )  # fmt: skip
        found[name] = {"data": [heat], "layout": shape}
    return found

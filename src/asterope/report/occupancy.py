"""The occupancy chart: which engines and resources are busy when."""

from __future__ import annotations

from asterope.report.chart_parts import Figure, layout, time_unit
from asterope.report.data import Activity
from asterope.report.numbers import percent, seconds

__all__ = ["occupancy_figure"]

_SCALE = [[0.0, "rgba(59,125,216,0.04)"], [0.5, "rgba(59,125,216,0.55)"], [1.0, "#1f4e96"]]


def occupancy_figure(activity: Activity) -> Figure:
    """Return a row for each resource, darker the busier it is, over time; gaps are not known."""
    scale, unit = time_unit(activity.time_s)
    names = list(activity.busy)
    slices = len(next(iter(activity.busy.values())))
    width = activity.time_s / slices
    middles = [(i + 0.5) * width for i in range(slices)]
    rows = [list(activity.busy[name]) for name in names]
    heat = {
        "type": "heatmap", "x": [at * scale for at in middles], "y": [f"{name} " for name in names],
        "z": rows, "zmin": 0, "zmax": 1, "colorscale": _SCALE, "ygap": 2, "hoverongaps": False,
        "text": [
            [
                "" if share is None else f"{percent(share)} busy at {seconds(at)}"
                for at, share in zip(middles, row, strict=True)
            ]
            for row in rows
        ],
        "hoverinfo": "y+text",
        "colorbar": {"thickness": 10, "tickformat": ".0%", "nticks": 3, "outlinewidth": 0},
    }  # fmt: skip
    frame = layout(
        66 + 26 * len(names),
        xaxis={"title": f"time [{unit}]", "range": [0, activity.time_s * scale], "showgrid": False},
        yaxis={"automargin": True, "autorange": "reversed", "dtick": 1, "showgrid": False},
    )
    return {"data": [heat], "layout": frame}

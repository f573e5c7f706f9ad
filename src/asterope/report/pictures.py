"""The pictures of a time on a chip: where it goes, what is busy when, how far from the roofs."""

from __future__ import annotations

from collections.abc import Sequence

from asterope.report import charts
from asterope.report.chart_parts import ACCENT, BOUND_COLOURS, MUTED, PHASE_MARKS
from asterope.report.data import ChipFacts, Timed
from asterope.report.markup import element, escape, figure, figures, key, paragraph
from asterope.report.occupancy import occupancy_figure
from asterope.report.power_roofline import power_figures
from asterope.report.waterfall import waterfall_figures

__all__ = ["bound_words", "under_the_roofs", "where_it_goes"]

_BOUNDS = (
    ("tensor, vector", "the engine was computing"),
    ("hbm, csram, tsram, noc, tile port", "bytes were on their way at that resource's rate"),
    ("latency", "the first byte of a transfer, or an engine's start, was awaited"),
    ("issue", "control processors were queueing instructions"),
    ("launch", "the fixed time from one kernel's end to the next one's start"),
)


def where_it_goes(timed: Timed, title: str, anchor: str) -> str:
    """Show a time by kernel, as waterfalls of time and energy, and what was busy when."""
    parts = [
        element("h3", escape(title)),
        _bound_keys(timed),
        figure(f"{anchor}-chart", charts.time_figure(timed)),
        figures(f"{anchor}-waterfall", waterfall_figures(timed)),
    ]
    if timed.activity is not None:
        about = (
            "Busy share of each engine or resource over time; the mean where there are several."
            " What is left blank lies behind the instructions that were kept."
        )
        parts += [
            element("h4", "Occupancy"),
            paragraph(about, "soft"),
            figure(f"{anchor}-occupancy", occupancy_figure(timed.activity)),
        ]
    return "".join(parts)


def under_the_roofs(chip: ChipFacts, timed: Sequence[Timed], about: str) -> str:
    """Show launches under the roofs of a chip: of time, of power, and of efficiency."""
    parts = [
        element("h3", "Roofline"),
        paragraph(about, "soft"),
        _roofline_keys(chip, timed),
        figure("roofline-chart", charts.roofline_figure(chip, timed)),
    ]
    power = power_figures(chip, timed)
    if power:
        said = (
            "The same launches against power: lines are what the chip draws, and does for a joule,"
            " where its tensor engines or its HBM are busy all the time. Energy coefficients are"
            " assumptions, scaled so that the published peak draws the TDP."
        )
        parts += [
            element("h3", "Roofline against power"),
            paragraph(said, "soft"),
            figures("power-chart", power),
        ]
    return "".join(parts)


def bound_words() -> str:
    """Explain the words of the legend."""
    items = (element("dt", escape(k)) + element("dd", escape(v)) for k, v in _BOUNDS)
    summary = element("summary", "What bound it: the words of the legend")
    return element("details", summary, element("dl", *items))


def _bound_keys(timed: Timed) -> str:
    found = {bound for group in timed.groups for bound in group.bound_s}
    return element("div", *(
        key(bound, "block", colour)
        for bound, colour in BOUND_COLOURS.items() if bound in found
    ), class_="keys")  # fmt: skip


def _roofline_keys(chip: ChipFacts, timed: Sequence[Timed]) -> str:
    lines = (
        key(name, "line" if dash == "solid" else "dots", MUTED)
        for name, (_, dash) in charts.roofs(chip).items()
    )
    marks = (
        key(f"{t.phase}, {t.fidelity}", *PHASE_MARKS.get(t.phase, ("circle", ACCENT)))
        for t in timed
    )
    return element("div", *lines, *marks, class_="keys")

"""The page of some launches: a product, or what a script launched."""

from __future__ import annotations

from collections.abc import Iterator

from asterope.report.chart_parts import multiplied
from asterope.report.data import LaunchGroup, LaunchReport, plain
from asterope.report.document import document, tile
from asterope.report.markup import element, escape, paragraph, section, table
from asterope.report.numbers import count, percent, seconds, size
from asterope.report.pictures import bound_words, under_the_roofs, where_it_goes
from asterope.units import si

__all__ = ["launch_page"]


def launch_page(report: LaunchReport) -> str:
    """Return the page.

    Raises: ModuleNotFoundError without plotly, which the extra `torch` brings.
    """
    about = (
        f"Launches of the tensor engines on {report.chip.name}; the size of a mark is its share of"
        " the time. The launch overhead is within their time."
    )
    roofs = under_the_roofs(report.chip, [report], about)
    body = element(
        "main",
        element(
            "header",
            paragraph(f"Asterope, timed by {report.fidelity}", "kind"),
            element("h1", escape(report.title)),
            element("div", *_tiles(report), class_="tiles"),
        ),
        section(
            "time", "Time and energy",
            where_it_goes(report, "Where the time goes", report.phase), bound_words(),
            _kernels(report),
        ),
        *([section("roofs", "Against the chip's limits", roofs)] if multiplied(report) else []),
        section("reproduce", "How to reproduce", element("pre", escape(report.command))),
    )  # fmt: skip
    return document(report.title, body, {**plain(report), "bound_by": report.bound_by})


def _tiles(report: LaunchReport) -> Iterator[str]:
    flop = sum(group.total_flop for group in report.groups)
    above = report.time_s / report.roofline_s if report.roofline_s else 0.0
    yield tile("Time", seconds(report.time_s), f"{above:.2f} times the roofline" if above else "")
    if flop:
        yield tile("Speed", si(flop / report.time_s, "flop/s"), f"{si(flop, 'flop')} of products")
    moved = sum(group.hbm_bytes for group in report.groups)
    yield tile("HBM", size(moved), f"{si(moved / report.time_s, 'B/s')}")
    if report.energy_j is not None:
        assumed = "" if report.fidelity == "tile" else ", taken to be the TDP"
        watts = f"{count(report.energy_j / report.time_s)} W{assumed}"
        yield tile("Energy", si(report.energy_j, "J"), watts)
    yield tile("Bound by", report.bound_by, percent(_share(report)) + " of the time")
    if report.throttled_s and report.clock_hz:
        more = f"lowered by the TDP: {percent(report.throttled_s / report.time_s)} of the time"
        yield tile("Clock", si(report.clock_hz, "Hz"), more)


def _share(report: LaunchReport) -> float:
    return report.breakdown_s.get(report.bound_by, 0.0) / report.time_s if report.time_s else 0.0


def _kernels(report: LaunchReport) -> str:
    head = ("kernel", ">launches", ">time", ">share", ">HBM", ">energy", "bound by")
    return table(head, [_kernel(group, report) for group in report.groups])


def _kernel(group: LaunchGroup, report: LaunchReport) -> tuple[str, ...]:
    energy = "" if group.energy_j is None else si(group.energy_j, "J")
    return (
        group.label, count(group.launches), seconds(group.time_s),
        percent(group.time_s / report.time_s), size(group.hbm_bytes), energy,
        next(iter(group.bound_s), ""),
    )  # fmt: skip

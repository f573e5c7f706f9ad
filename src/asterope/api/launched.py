"""Launches on a timeline as a report: what their page and its pictures show."""

from __future__ import annotations

from asterope.api.activity import activity_of_engines
from asterope.api.rows import chip_facts, largest_first, launch_groups
from asterope.report import LaunchReport
from asterope.runtime import Timeline
from asterope.units import PS_PER_S

__all__ = ["PAGE_EVENTS", "grids_in_words", "launch_report", "lowest_clock_hz", "parts_s"]

PAGE_EVENTS = 1 << 18
"""Macro-instructions of a launch that a page's occupancy chart is drawn from."""


def launch_report(timeline: Timeline, title: str, *, phase: str, command: str) -> LaunchReport:
    """Return the launches of a timeline, each kernel's together, as data for a page.

    To the title comes the chip's name; `phase` says what they are, in a word. Which engine is busy
    when is known of launches whose events the timeline kept.
    """
    launches, facts = timeline.launches, chip_facts(timeline.chip)
    return LaunchReport(
        title=f"{title} on {facts.name}",
        chip=facts,
        phase=phase,
        fidelity=timeline.fidelity,
        time_s=timeline.time_s,
        roofline_s=sum(x.result.roofline_ps for x in launches) / PS_PER_S,
        energy_j=timeline.energy_j,
        breakdown_s=largest_first(parts_s(timeline)),
        energy_parts_j=largest_first(timeline.energy_parts_j()),
        groups=launch_groups(launches),
        activity=activity_of_engines(launches, timeline.chip.num_tiles or 0),
        clock_hz=lowest_clock_hz(timeline),
        throttled_s=timeline.throttled_ps / PS_PER_S,
        command=command,
    )


def lowest_clock_hz(timeline: Timeline) -> float | None:
    """Return the lowest clock of the launches, where the chip has one."""
    clocks = [timed.result.clock_hz for timed in timeline.launches]
    return min((clock for clock in clocks if clock is not None), default=None)


def parts_s(timeline: Timeline) -> dict[str, float]:
    """Return the seconds that went into each part of the critical path; they add up to the time."""
    return {name: ps / PS_PER_S for name, ps in timeline.breakdown_ps().items() if ps}


def grids_in_words(timeline: Timeline) -> str:
    """Say in words which kernels run."""
    return ", ".join(
        f"{launch.name} on a grid of {'x'.join(str(n) for n in launch.grid if n > 1) or 1}"
        for launch in timeline.launches
    )

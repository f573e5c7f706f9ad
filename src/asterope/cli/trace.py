"""`asterope trace`: a script's Triton kernels on a chip, launch by launch and line by line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asterope import chips
from asterope.cli import options as opt
from asterope.cli.errors import need_torch
from asterope.cli.output import say, show, write_json
from asterope.cli.script import Arguments, Script, run_script
from asterope.report import LineShare, TracedLaunch, launch_page, launch_tables, plain, write_page
from asterope.units import PS_PER_S

if TYPE_CHECKING:
    from asterope.runtime import TimedLaunch, Timeline
    from asterope.sim import Fidelity

__all__ = ["trace"]

_TRACED_EVENTS, _DRAWN_EVENTS = 1 << 12, 1 << 15


def trace(
    script: Script,
    arguments: Arguments = None,
    chip: opt.Chip = "maia200",
    values: Annotated[
        bool,
        typer.Option(help="Compute values too; without them scripts that check results fail."),
    ] = True,
    perfetto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a trace that ui.perfetto.dev opens."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page with pictures.")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Run a script and time each Triton kernel that it launches.

    Says for each launch its grid, time, bytes and what bound it, and for each kernel which source
    lines its critical path went through. A chip whose inside is not public is timed by its
    roofline, without lines. What the script prints goes to standard error.

    Example: `asterope trace --chip maia200 matmul.py --size 4096`
    """
    need_torch("trace")
    from asterope.runtime import simulate

    described = chips.get(chip)
    events = _TRACED_EVENTS if perfetto is not None else 0
    events = _DRAWN_EVENTS if report is not None else events
    fidelity: Fidelity = "roofline" if described.tile is None else "tile"
    with simulate(
        described, values=values, fidelity=fidelity, max_events=events, lines=True
    ) as timeline:
        failure = run_script(script, arguments or [])
    if perfetto is not None:
        timeline.to_perfetto(perfetto)
        say(f"trace: {perfetto.absolute()} (open it at ui.perfetto.dev)")
    if report is not None and timeline.launches:
        from asterope.api import launch_report

        page = launch_report(timeline, script.name, phase="script", command=opt.command_line())
        write_page(launch_page(page), report)
        say(f"report: {report.absolute()}")
    launches = [_traced(launch) for launch in timeline.launches]
    if launches or as_json:
        _show(launches, timeline, as_json=as_json)
    elif failure is None:
        say("the script launched no Triton kernel on CPU tensors in this thread")
    if failure is not None:
        raise failure


def _show(launches: Sequence[TracedLaunch], timeline: Timeline, *, as_json: bool) -> None:
    name = f"{timeline.chip.name}:{timeline.chip.profile}"
    if as_json:
        write_json({"chip": name, "time_s": timeline.time_s, "launches": plain(launches)})
    else:
        show(launch_tables(launches, name))


def _traced(launch: TimedLaunch) -> TracedLaunch:
    result = launch.result
    return TracedLaunch(
        kernel=launch.name,
        grid=launch.grid,
        time_s=result.time_s,
        roofline_s=result.roofline_ps / PS_PER_S,
        bound_by=result.bound_by,
        hbm_bytes=result.hbm_bytes,
        flop=result.total_flop,
        energy_j=result.energy_j,
        occupancy=dict(result.occupancy),
        clock_hz=result.clock_hz,
        throttled_s=result.throttled_ps / PS_PER_S,
        lines=tuple(
            LineShare(loc=x.loc, engine=x.engine, work=x.work, time_s=x.time_ps / PS_PER_S)
            for x in result.lines
        ),
    )

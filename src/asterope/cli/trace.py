"""`asterope trace`: a script's Triton kernels on a chip, launch by launch and line by line."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from asterope import chips
from asterope.cli import options as opt
from asterope.cli.errors import need_torch
from asterope.cli.output import say, show, write_json
from asterope.errors import AsteropeError, ConfigError
from asterope.report import LineShare, TracedLaunch, launch_tables, plain
from asterope.units import PS_PER_S

if TYPE_CHECKING:
    from asterope.runtime import TimedLaunch, Timeline

__all__ = ["PASS_ON", "trace"]

# What follows the script is the script's own.
PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}
_TRACED_EVENTS = 1 << 12


def trace(
    script: Annotated[Path, typer.Argument(help="Python script that launches Triton kernels.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Arguments of the script.")
    ] = None,
    chip: opt.Chip = "maia200",
    values: Annotated[
        bool,
        typer.Option(help="Compute values too; without them scripts that check results fail."),
    ] = True,
    perfetto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a trace that ui.perfetto.dev opens."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Run a script and time each Triton kernel that it launches.

    Says for each launch its grid, time, bytes and what bound it, and for each kernel which source
    lines its critical path went through. What the script prints goes to standard error.

    Example: `asterope trace --chip maia200 matmul.py --size 4096`
    """
    need_torch("trace")
    if not script.is_file():
        raise ConfigError(f"there is no script {script}", where="SCRIPT", hint="give a Python file")
    from asterope.runtime import simulate

    described = chips.get(chip)
    events = _TRACED_EVENTS if perfetto is not None else 0
    with simulate(described, values=values, max_events=events, lines=True) as timeline:
        failure = _run(script, arguments or [])
    if perfetto is not None:
        timeline.to_perfetto(perfetto)
        say(f"trace: {perfetto.absolute()} (open it at ui.perfetto.dev)")
    launches = [_traced(launch) for launch in timeline.launches]
    _show(launches, timeline, as_json=as_json)
    if failure is not None:
        raise failure


def _show(launches: Sequence[TracedLaunch], timeline: Timeline, *, as_json: bool) -> None:
    name = f"{timeline.chip.name}:{timeline.chip.profile}"
    if as_json:
        write_json({"chip": name, "time_s": timeline.time_s, "launches": plain(launches)})
    elif launches:
        show(launch_tables(launches, name))
    else:
        say("the script launched no Triton kernel on CPU tensors in this thread")


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
        lines=tuple(
            LineShare(loc=x.loc, engine=x.engine, work=x.work, time_s=x.time_ps / PS_PER_S)
            for x in result.lines
        ),
    )


def _run(script: Path, arguments: Sequence[str]) -> AsteropeError | None:
    """Run a script as Python would; return what to end with if it fails."""
    with _as_main(script, arguments), redirect_stdout(sys.stderr):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stop:
            if stop.code in (None, 0):
                return None
            return ConfigError(f"the script ended with {stop.code!r}", where=str(script))
        except AsteropeError as error:
            return error
        except Exception as error:
            traceback.print_exception(error.with_traceback(_own_frames(error, script)))
            what = f"the script raised {type(error).__name__}: {error}"
            return ConfigError(what, where=str(script), hint="run it with python first")
    return None


def _own_frames(error: Exception, script: Path) -> TracebackType | None:
    """Return the traceback from the script's own first frame on."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != str(script):
        frame = frame.tb_next
    return frame or error.__traceback__


@contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Let a script see its own arguments, and import its neighbours."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent.absolute()))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path

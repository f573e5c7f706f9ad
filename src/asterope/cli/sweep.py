"""`asterope simulate --sweep FILE`: many products and steps, on all cores or a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import RenderableType

from asterope.cli.output import progress_bars, say, show, write_json
from asterope.errors import ConfigError, OutputError
from asterope.native import num_cores
from asterope.report import check_directory, new_table
from asterope.units import si

__all__ = ["simulate_sweep"]

_AXES = ("model", "m", "n", "k", "chip", "format", "phase", "batch", "context", "fidelity")
_MEASURES: Mapping[str, tuple[str, str]] = {
    "time_s": (">time", "s"), "flop_per_s": (">rate", "flop/s"), "tokens_per_s": (">tokens/s", ""),
    "peak_share": (">of peak", "%"), "bandwidth_share": (">of HBM", "%"),
    "joules_per_token": (">energy/token", "J"),
}  # fmt: skip
_FAILED = 1


def simulate_sweep(
    file: Path, *, out: Path | None, jobs: int | None, ray: str | None, as_json: bool
) -> None:
    """Time all points of a file and show them; ends with 1 if some could not be timed.

    Raises: ConfigError for a file that is no sweep; OutputError if `out` cannot be written.
    """
    if jobs is not None and ray is not None:
        raise ConfigError("the cluster says how many run at once", where="--jobs and --ray")
    if out is not None:
        check_directory(out.absolute().parent)
        if out.is_dir():
            raise OutputError("is a directory", where=str(out), hint="name a file")
    with progress_bars() as progress:
        from asterope import api

        points = api.read_sweep(file)
        runner = api.on_processes(jobs or num_cores()) if ray is None else api.on_ray(ray)
        rows = api.run_sweep(points, runner, out=out, progress=progress)
    if as_json:
        write_json(rows)
    else:
        kinds = dict.fromkeys(row["kind"] for row in rows)
        show([_table(kind, [r for r in rows if r["kind"] == kind]) for kind in kinds])
    failed = [row for row in rows if "error" in row]
    if out is not None:
        say(f"{len(rows) - len(failed)} rows: {out.absolute()}")
    if failed:
        say(f"{len(failed)} of {len(rows)} points could not be timed; the first: "
            f"{failed[0]['error']}")  # fmt: skip
        raise typer.Exit(_FAILED)


def _table(kind: str, rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show what differs between the points of a kind, and what was found."""
    found = next((row for row in rows if "error" not in row), rows[0])
    results = [name for name in (*_MEASURES, "bound_by", "timed_by") if name in found]
    axes = [n for n in _AXES if n in found and len({row[n] for row in rows}) > 1]
    fixed = [f"{n} {rows[0][n]}" for n in _AXES if n in rows[0] and n not in axes]
    table = new_table(
        f"{kind}: {', '.join(fixed)}" if fixed else kind,
        *(f">{n}" if isinstance(rows[0][n], int) else n for n in axes),
        *(_MEASURES[n][0] if n in _MEASURES else n.replace("_", " ") for n in results),
    )
    for row in rows:
        cells = [f"{row[n]:,}" if isinstance(row[n], int) else str(row[n]) for n in axes]
        shown = [_cell(n, row.get(n)) for n in results]
        if "error" in row:
            shown[-1] = "error"
        table.add_row(*cells, *shown)
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    unit = _MEASURES[name][1] if name in _MEASURES else None
    if unit is None:
        return str(value)
    return f"{value:.1%}" if unit == "%" else si(value, unit).strip()

"""Sweeps: products and steps of models, timed for every combination of what a file lists."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asterope import __version__, chips
from asterope.api.language_model import from_config, with_scheme
from asterope.api.product import time_product
from asterope.api.progress import Progress, silent
from asterope.api.source import DEFAULT_FORMAT, find_source, read_scheme, resolve_scheme
from asterope.errors import AsteropeError, ConfigError, OutputError
from asterope.native import write_atomically

__all__ = ["Point", "Row", "Runner", "read_sweep", "run_sweep", "time_point"]

Point = dict[str, Any]
"""One combination: `kind` (`gemm` or `step`) and a value for each field of its kind."""
Row = dict[str, Any]
"""A point, and what was found: times, or the `error` that says why there are none."""
Runner = Callable[[Callable[[Point], Row], Sequence[Point]], Iterator[Row]]
"""Applies a function to points, in any order and on any machines."""

# The fields of each kind with their types and defaults; None has to be given.
_FIELDS: Mapping[str, Mapping[str, tuple[type, object]]] = {
    "gemm": {
        "m": (int, None), "n": (int, None), "k": (int, None), "chip": (str, "maia200"),
        "format": (str, DEFAULT_FORMAT),
    },
    "step": {
        "model": (str, None), "chip": (str, "maia200"), "format": (str, DEFAULT_FORMAT),
        "phase": (str, "decode"), "batch": (int, 32), "context": (int, 4096),
        "fidelity": (str, "finest"), "tensor_parallel": (int, 1),
        "expert_parallel": (int, 1),
        "expert_loads": (str, "random"), "overlap": (str, "none"),
    },
}  # fmt: skip
_MOST_POINTS = 1_000_000
_STAGE = "sweep"


def read_sweep(path: Path) -> tuple[Point, ...]:
    """Read a sweep: `[[gemm]]` and `[[step]]` tables whose lists are the axes of a grid.

    Raises: ConfigError naming the file, the table and the field that is wrong.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not TOML: {error}", where=str(path)) from None
    points = list(itertools.islice(_points(found, path), _MOST_POINTS + 1))
    if not points:
        raise ConfigError(
            "has no points", where=str(path),
            hint='write [[gemm]] with m, n, k, or [[step]] with model = "llama-3.1-8b"',
        )  # fmt: skip
    if len(points) > _MOST_POINTS:
        raise ConfigError(f"has more than {_MOST_POINTS:,} points", where=str(path))
    return tuple(points)


def _points(found: Mapping[str, Any], path: Path) -> Iterator[Point]:
    for kind, tables in found.items():
        if kind not in _FIELDS or not isinstance(tables, list):
            raise ConfigError(
                f"[[{kind}]] is no table of a sweep", where=str(path),
                hint=f"use {' and '.join(f'[[{name}]]' for name in _FIELDS)}",
            )  # fmt: skip
        for number, table in enumerate(tables, start=1):
            where = f"{path}: [[{kind}]] {number}"
            axes = {name: _axis(name, table, kind, where) for name in _FIELDS[kind]}
            unknown = set(table) - set(axes)
            if unknown:
                raise ConfigError(
                    f"has no field {sorted(unknown)[0]!r}", where=where,
                    hint=f"it has {', '.join(axes)}",
                )  # fmt: skip
            for values in itertools.product(*axes.values()):
                yield {"kind": kind, **dict(zip(axes, values, strict=True))}


def _axis(name: str, table: Mapping[str, Any], kind: str, where: str) -> list[object]:
    type_, default = _FIELDS[kind][name]
    given = table.get(name, default)
    if given is None:
        raise ConfigError(f"needs {name}", where=where)
    axis = given if isinstance(given, list) else [given]
    for value in axis:
        if type(value) is not type_:
            raise ConfigError(f"{value!r} is not {_WORDS[type_]}", where=f"{where}: {name}")
    return axis


_WORDS = {int: "a whole number", str: "text"}


def time_point(point: Point) -> Row:
    """Time one point, on whatever machine this runs; an error of the point is part of its row."""
    try:
        found = _gemm(point) if point["kind"] == "gemm" else _step(point)
    except AsteropeError as error:
        found = {"error": str(error)}
    return {**point, **found, "asterope": __version__}


def _gemm(point: Point) -> Row:
    scheme = read_scheme(point["format"], activations="bf16")
    found = time_product(chips.get(point["chip"]), point["m"], point["n"], point["k"], scheme)
    return {
        "time_s": found.time_s, "flop_per_s": found.flop / found.time_s,
        "peak_share": found.peak_share, "hbm_bytes": found.hbm_bytes, "rate": found.rate,
        "bound_by": found.bound_by, "timed_by": found.timed_by,
    }  # fmt: skip


def _step(point: Point) -> Row:
    fidelity = None if point["fidelity"] == "finest" else point["fidelity"]
    scheme = resolve_scheme(point["format"], activations="bf16")
    step = with_scheme(from_config(point["model"]), scheme).simulate(
        point["chip"], batch=point["batch"], context=point["context"], phase=point["phase"],
        fidelity=fidelity, tensor_parallel=point["tensor_parallel"],
        expert_parallel=point["expert_parallel"],
        expert_loads=point["expert_loads"], overlap=point["overlap"],
    ).step  # fmt: skip
    return {
        "time_s": step.time_s, "tokens_per_s": step.tokens_per_s,
        "joules_per_token": step.joules_per_token, "peak_share": step.peak_share,
        "bandwidth_share": step.bandwidth_share, "bound_by": step.bound_by,
        "timed_by": step.fidelity, "chips_needed": step.memory.chips_needed,
    }  # fmt: skip


def run_sweep(
    points: Iterable[Point],
    runner: Runner,
    *,
    out: Path | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Time all points; return their rows in the points' order.

    With `out` each row is written there as a line of JSON when it is found. What an earlier run
    left there is not timed again, but for errors and for rows of another version of Asterope or
    of a chip's or model's file that has changed since. Rows of other points stay there.

    Raises: OutputError if the file cannot be written.
    """
    inputs = functools.cache(_digest_of_inputs)
    wanted = {_key(point): point for point in points}
    earlier = _rows_in(out) if out else {}
    rows = {
        key: earlier[key]
        for key, point in wanted.items()
        if key in earlier and _is_current(earlier[key], inputs(*_named(point)))
    }
    left = [point for key, point in wanted.items() if key not in rows]
    progress(_STAGE, len(rows), len(wanted))
    others = [row for key, row in earlier.items() if key not in wanted]
    with _appending(out, [*others, *rows.values()]) as write:
        for found in runner(time_point, left):
            row = {**found, "inputs": inputs(*_named(found))}
            rows[_key(row)] = row
            write(row)
            progress(_STAGE, len(rows), len(wanted))
    return [rows[key] for key in wanted]


def _key(row: Row) -> str:
    """Return what tells a point from others, from the point or its row."""
    return json.dumps({name: row[name] for name in ("kind", *_FIELDS[row["kind"]])})


def _named(point: Point) -> tuple[str, str | None]:
    return point["chip"], point.get("model")


def _digest_of_inputs(chip: str, model: str | None) -> str:
    """Return a digest of what the names of a chip and a model stand for; empty for no such one."""
    try:
        named = chips.get(chip), None if model is None else find_source(model).config
    except AsteropeError:
        return ""
    return hashlib.sha256(repr(named).encode()).hexdigest()[:16]


def _is_current(row: Row, inputs: str) -> bool:
    return row.get("asterope") == __version__ and row.get("inputs") == inputs and "error" not in row


def _rows_in(out: Path) -> dict[str, Row]:
    """Read the rows of earlier runs; what a killed one left half-written is dropped."""
    try:
        lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"holds no rows: {error}", where=str(out)) from None
    rows: dict[str, Row] = {}
    for line in lines:
        try:
            row = json.loads(line)
            rows[_key(row)] = row
        except (ValueError, KeyError, TypeError):
            continue
    if lines and not rows and not any(line.startswith('{"kind"') for line in lines):
        raise OutputError("is no file of a sweep", where=str(out), hint="name another --out")
    return rows


@contextmanager
def _appending(out: Path | None, rows: Iterable[Row]) -> Iterator[Callable[[Row], None]]:
    """Give what writes a row as a line, behind those that are known."""
    if out is None:
        yield lambda row: None
        return
    with _errors_of(out):
        write_atomically(out, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        file = out.open("a", encoding="utf-8")

    def write(row: Row) -> None:
        with _errors_of(out):
            file.write(json.dumps(row) + "\n")
            file.flush()

    with file:
        yield write


@contextmanager
def _errors_of(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise OutputError(what, where=str(out)) from None

"""Traces that ui.perfetto.dev opens: the JSON form of the Trace Event Format.

One process a launch list, one thread an engine of a tile; semaphores are flows. Times are
microseconds, as the format asks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asterope.chips import Chip
from asterope.errors import OutputError
from asterope.native import write_atomically
from asterope.sim import Result

__all__ = ["trace_events", "write_trace"]

_ENGINES = ("load", "store", "tensor", "vector")
_LAUNCHES, _TILES = 1, 2
_PS_PER_US = 1e6


def _name(
    kind: str, process: int, thread: int, name: str, order: int = 0
) -> Iterator[dict[str, Any]]:
    base = {"ph": "M", "pid": process, "tid": thread}
    yield {**base, "name": f"{kind}_name", "args": {"name": name}}
    yield {**base, "name": f"{kind}_sort_index", "args": {"sort_index": order}}


def trace_events(
    chip: Chip, launches: Sequence[tuple[str, int, Result]]
) -> Iterator[dict[str, Any]]:
    """Yield the events of a timeline: launches, macro-instructions, and semaphores as flows."""
    yield from _name("process", _LAUNCHES, 0, f"{chip.name}:{chip.profile}")
    yield from _name("thread", _LAUNCHES, 0, "launches")
    yield from _name("process", _TILES, 0, "tiles", 1)
    threads: set[int] = set()
    for index, (name, start_ps, result) in enumerate(launches):
        yield {
            "ph": "X", "pid": _LAUNCHES, "tid": 0, "name": name,
            "ts": start_ps / _PS_PER_US, "dur": result.time_ps / _PS_PER_US,
            "args": {"bound by": result.bound_by, "hbm bytes": result.hbm_bytes},
        }  # fmt: skip
        yield from _instructions(index, start_ps, result, threads)


def _instructions(
    index: int, start_ps: int, result: Result, threads: set[int]
) -> Iterator[dict[str, Any]]:
    ends: dict[tuple[int, int], tuple[int, int]] = {}
    for event in result.events:
        thread = event.tile * len(_ENGINES) + _ENGINES.index(event.engine)
        if thread not in threads:
            threads.add(thread)
            yield from _name("thread", _TILES, thread, f"tile {event.tile} {event.engine}", thread)
        base = {"pid": _TILES, "tid": thread}
        begin = (start_ps + event.start_ps) / _PS_PER_US
        yield {
            **base, "ph": "X", "name": event.label, "ts": begin,
            "dur": (event.end_ps - event.start_ps) / _PS_PER_US,
            "args": {"line": event.loc, "bytes": event.bytes, "number": event.number},
        }  # fmt: skip
        ends[event.tile, event.number] = (event.end_ps, thread)
        for awaited in event.waits:
            if (event.tile, awaited) not in ends:
                continue
            end_ps, source = ends[event.tile, awaited]
            flow = {"name": "semaphore", "cat": "semaphore", "pid": _TILES,
                    "id": f"{index}.{event.tile}.{awaited}.{event.number}"}  # fmt: skip
            yield {**flow, "ph": "s", "tid": source, "ts": (start_ps + end_ps) / _PS_PER_US}
            yield {**flow, "ph": "f", "bp": "e", "tid": thread, "ts": begin}


def write_trace(path: Path, chip: Chip, launches: Sequence[tuple[str, int, Result]]) -> None:
    """Write a trace whole or not at all.

    Raises: OutputError naming the file if it cannot be written.
    """
    text = json.dumps(
        {"traceEvents": list(trace_events(chip, launches)), "displayTimeUnit": "ns"},
        separators=(",", ":"),
    )
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", where=str(path)) from None

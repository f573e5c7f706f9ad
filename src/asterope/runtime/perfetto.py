"""Traces that ui.perfetto.dev opens: the JSON form of the Trace Event Format.

One process a launch list, one thread an engine of a tile, more where its transfers overlap;
semaphores are flows, from the end of the instruction that signals to the start of one that waits on
another thread. Times are microseconds, as the format asks.
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
from asterope.units import GHZ

__all__ = ["trace_events", "write_trace"]

_ENGINES = ("load", "store", "tensor", "vector")
_LAUNCHES, _TILES = 1, 2
_PS_PER_US = 1e6
_MAX_LANES = 1 << 10
# A viewer works in whole nanoseconds, and takes a flow that begins where a slice ends for the next.
_BEFORE_END_PS = 1000
MAX_FLOWS = 1 << 16
"""Arrows of one trace, the first ones: a viewer draws no more in bearable time."""


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
    lanes = _Lanes()
    for index, (name, start_ps, result) in enumerate(launches):
        yield {
            "ph": "X", "pid": _LAUNCHES, "tid": 0, "name": name,
            "ts": start_ps / _PS_PER_US, "dur": result.time_ps / _PS_PER_US,
            "args": {"bound by": result.bound_by, "hbm bytes": result.hbm_bytes, **_power(result)},
        }  # fmt: skip
        yield from _instructions(index, start_ps, result, lanes)


def _power(result: Result) -> dict[str, float]:
    """Say what a launch drew, at which clock, and what the power limit made of it."""
    found = {} if result.power_w is None else {"watts": round(result.power_w, 1)}
    if result.clock_hz is not None:
        found["clock GHz"] = round(result.clock_hz / GHZ, 3)
    if result.is_throttled:
        found["throttled us"] = result.throttled_ps / _PS_PER_US
    return found


class _Lanes:
    """Threads of the trace: transfers of one engine that overlap in time need several.

    `free_ps` has for each tile and engine when each of its lanes is free; lanes are numbered in
    order of appearance. `flows` counts the arrows that were drawn between them.
    """

    def __init__(self) -> None:
        self.flows = 0
        self.free_ps: dict[tuple[int, int], list[int]] = {}
        self.threads: dict[tuple[int, int, int], int] = {}

    def place(self, tile: int, engine: int, start_ps: int, end_ps: int) -> tuple[int, int, bool]:
        """Return the lane a slice goes to, its thread, and whether that is new."""
        free = self.free_ps.setdefault((tile, engine), [])
        lane = next((i for i, ps in enumerate(free) if ps <= start_ps), len(free))
        if lane == len(free):
            free.append(0)
        # Of two slices that begin at one moment, a viewer could not tell which is meant.
        free[lane] = max(end_ps, start_ps + 1)
        key = (tile, engine, lane)
        is_new = key not in self.threads
        return lane, self.threads.setdefault(key, len(self.threads)), is_new


def _instructions(
    index: int, start_ps: int, result: Result, lanes: _Lanes
) -> Iterator[dict[str, Any]]:
    signals: dict[tuple[int, int], tuple[float, int]] = {}
    for event in result.events:
        engine = _ENGINES.index(event.engine)
        begin_ps, end_ps = start_ps + event.start_ps, start_ps + event.end_ps
        lane, thread, is_new = lanes.place(event.tile, engine, begin_ps, end_ps)
        if is_new:
            name = f"tile {event.tile} {event.engine}" + (f" {lane + 1}" if lane else "")
            order = (event.tile * len(_ENGINES) + engine) * _MAX_LANES + lane
            yield from _name("thread", _TILES, thread, name, order)
        base = {"pid": _TILES, "tid": thread}
        begin = begin_ps / _PS_PER_US
        yield {
            **base, "ph": "X", "name": event.label, "ts": begin,
            "dur": (end_ps - begin_ps) / _PS_PER_US,
            "args": {"line": event.loc, "bytes": event.bytes, "number": event.number},
        }  # fmt: skip
        signal_ps = max(begin_ps, end_ps - _BEFORE_END_PS)
        signals[event.tile, event.number] = (signal_ps / _PS_PER_US, thread)
        for awaited in event.waits:
            if (event.tile, awaited) not in signals or lanes.flows >= MAX_FLOWS:
                continue
            signal, source = signals[event.tile, awaited]
            if source == thread:  # one after the other in any case
                continue
            lanes.flows += 1
            flow = {"name": "semaphore", "cat": "semaphore", "pid": _TILES,
                    "id": f"{index}.{event.tile}.{awaited}.{event.number}"}  # fmt: skip
            yield {**flow, "ph": "s", "tid": source, "ts": signal}
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

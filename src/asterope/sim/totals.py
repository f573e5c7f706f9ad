"""Count what a launch does, without asking when: the ground under the roofline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numba.typed import Dict

from asterope.sim.instructions import Transfer
from asterope.sim.macro import TimeProgram
from asterope.sim.stream import Streams

__all__ = ["Totals", "count_totals"]

_BATCH_WORDS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What all programs of a launch do together.

    `executions` counts each instruction. `loaded` and `stored` are the bytes asked for, a gathered
    element counting itself; `unique_loaded` counts equal tiles of memory once.
    """

    executions: tuple[int, ...]
    loaded: int
    stored: int
    unique_loaded: int


@njit(cache=True)
def _count(words, element_bytes, is_load, is_store, shared, executions, sums, seen):  # type: ignore[no-untyped-def]
    at = 0
    while at < len(words):
        header = words[at]
        at += 1
        if header < 0:
            continue
        index = header & 0xFFFFFFFF
        numbers, waits = (header >> 32) & 0xFF, header >> 40
        executions[index] += 1
        if numbers == 2:
            key, size = words[at], words[at + 1]
            if element_bytes[index]:
                size *= element_bytes[index]
            if is_store[index]:
                sums[1] += size
            elif is_load[index]:
                sums[0] += size
                if not shared[index]:
                    sums[2] += size
                elif (key, size) not in seen:
                    seen[(key, size)] = True
                    sums[2] += size
        at += numbers + waits


def count_totals(program: TimeProgram, streams: Streams) -> Totals:
    """Run every program's control flow once and add up."""
    table = program.instructions
    transfers = [i.work if isinstance(i.work, Transfer) else None for i in table]
    element_bytes = np.array(
        [t.element_bytes if t and t.gather else 0 for t in transfers], np.int64
    )
    is_load = np.array([i.engine.value == "load" for i in table], np.bool_)
    is_store = np.array([i.engine.value == "store" for i in table], np.bool_)
    shared = np.array([bool(t and t.shared) for t in transfers], np.bool_)
    executions, sums = np.zeros(len(table), np.int64), np.zeros(3, np.int64)
    seen = Dict.empty(types.UniTuple(types.int64, 2), types.boolean)
    following = 0
    while following < streams.num_programs:
        words, following = streams.batch(following, 1, _BATCH_WORDS)
        _count(words, element_bytes, is_load, is_store, shared, executions, sums, seen)
    return Totals(
        executions=tuple(int(n) for n in executions),
        loaded=int(sums[0]),
        stored=int(sums[1]),
        unique_loaded=int(sums[2]),
    )

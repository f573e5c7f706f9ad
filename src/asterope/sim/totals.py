"""Count what a launch does, without asking when: the ground under the roofline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numba.typed import Dict

from asterope.ir import Engine
from asterope.sim.instructions import Instruction, Transfer
from asterope.sim.macro import TimeProgram
from asterope.sim.stream import Streams

__all__ = ["Totals", "count_totals"]

_BATCH_WORDS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What all programs of a launch do together.

    `executions` counts each instruction. `loaded` and `stored` are the bytes asked for, a gathered
    piece counting itself. `hbm_bytes` is the least that HBM must move: what is stored there, and
    each tile of memory that is only read, once.
    """

    executions: tuple[int, ...]
    loaded: int
    stored: int
    hbm_bytes: int


_NONE, _STORE, _LOAD, _SHARED = range(4)


def _kind(instruction: Instruction) -> int:
    work = instruction.work
    if not isinstance(work, Transfer):
        return _NONE
    if instruction.engine is Engine.STORE:
        return _STORE
    return _SHARED if work.shared else _LOAD


@njit(cache=True)
def _count(words, kind, gather, in_hbm, executions, sums, seen):  # type: ignore[no-untyped-def]
    at = 0
    while at < len(words):
        header = words[at]
        at += 1
        if header < 0:
            continue
        index = header & 0xFFFFFFFF
        executions[index] += 1
        if kind[index] != _NONE:
            key, size = words[at], words[at + 1]
            if gather[index]:
                size *= key
            sums[1 if kind[index] == _STORE else 0] += size
            is_first = kind[index] != _SHARED or (key, size) not in seen
            if kind[index] == _SHARED and is_first:
                seen[(key, size)] = True
            if is_first and in_hbm[index]:
                sums[2] += size
        at += ((header >> 32) & 0xFF) + (header >> 40)


def count_totals(program: TimeProgram, streams: Streams) -> Totals:
    """Run every program's control flow once and add up."""
    table = program.instructions
    transfers = [i.work if isinstance(i.work, Transfer) else None for i in table]
    kind = np.array([_kind(i) for i in table], np.int64)
    gather = np.array([bool(t and t.gather) for t in transfers], np.bool_)
    in_hbm = np.array([bool(t and t.space == "hbm") for t in transfers], np.bool_)
    executions, sums = np.zeros(len(table), np.int64), np.zeros(3, np.int64)
    seen = Dict.empty(types.UniTuple(types.int64, 2), types.boolean)
    following = 0
    while following < streams.num_programs:
        words, following = streams.emit(following, 1, _BATCH_WORDS)
        _count(words, kind, gather, in_hbm, executions, sums, seen)
    return Totals(
        executions=tuple(int(n) for n in executions),
        loaded=int(sums[0]),
        stored=int(sums[1]),
        hbm_bytes=int(sums[2]),
    )

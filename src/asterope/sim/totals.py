"""Count what a launch does, without asking when: the ground under the roofline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from asterope.ir import Engine
from asterope.sim.instructions import Instruction, Transfer
from asterope.sim.macro import TimeProgram
from asterope.sim.stream import Streams

__all__ = ["Totals", "count_totals", "load_counting"]

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
_LOADED, _STORED, _IN_HBM, _NUM_SEEN = range(4)
_FIRST_SEEN = 1 << 12


def _kind(instruction: Instruction) -> int:
    work = instruction.work
    if not isinstance(work, Transfer):
        return _NONE
    if instruction.engine is Engine.STORE:
        return _STORE
    return _SHARED if work.shared else _LOAD


@njit(cache=True, _nrt=False)
def _is_first(seen, key, size):  # type: ignore[no-untyped-def]
    """Enter a tile of memory into an open hash table; return whether it was not there."""
    mask = len(seen) - 1
    at = (((key ^ (size << 7)) * np.int64(-7046029254386353131)) >> 17) & mask
    while seen[at, 1] != 0:
        if seen[at, 0] == key and seen[at, 1] == size:
            return False
        at = (at + 1) & mask
    seen[at, 0], seen[at, 1] = key, size
    return True


@njit(cache=True, _nrt=False)
def _count(words, at, kind, gather, in_hbm, executions, sums, seen):  # type: ignore[no-untyped-def]
    """Add up records from one on, until they end or the table is half full; return the next."""
    while at < len(words) and 2 * sums[_NUM_SEEN] < len(seen):
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
            sums[_STORED if kind[index] == _STORE else _LOADED] += size
            is_first = size != 0
            if kind[index] == _SHARED and is_first:
                is_first = _is_first(seen, key, size)
                sums[_NUM_SEEN] += is_first
            if is_first and in_hbm[index]:
                sums[_IN_HBM] += size
        at += ((header >> 32) & 0xFF) + (header >> 40)
    return at


@njit(cache=True, _nrt=False)
def _copy_seen(old, new):  # type: ignore[no-untyped-def]
    for i in range(len(old)):
        if old[i, 1] != 0:
            _is_first(new, old[i, 0], old[i, 1])


def _larger(seen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    larger = np.zeros((4 * len(seen), 2), np.int64)
    _copy_seen(seen, larger)
    return larger


def load_counting() -> None:
    """Load the compiled loop and what runs compiled loops, as the first count would."""
    none, flags = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    _count(none, 0, none, flags, flags, none, np.zeros(4, np.int64), np.zeros((1, 2), np.int64))


def count_totals(program: TimeProgram, streams: Streams) -> Totals:
    """Run every program's control flow once and add up."""
    table = program.instructions
    transfers = [i.work if isinstance(i.work, Transfer) else None for i in table]
    kind = np.array([_kind(i) for i in table], np.int64)
    gather = np.array([bool(t and t.gather) for t in transfers], np.bool_)
    in_hbm = np.array([bool(t and t.space == "hbm") for t in transfers], np.bool_)
    executions, sums = np.zeros(len(table), np.int64), np.zeros(4, np.int64)
    seen = np.zeros((_FIRST_SEEN, 2), np.int64)
    following = 0
    while following < streams.num_programs:
        words, following = streams.emit(following, 1, _BATCH_WORDS)
        at = 0
        while at < len(words):
            at = _count(words, at, kind, gather, in_hbm, executions, sums, seen)
            if at < len(words):
                seen = _larger(seen)
    return Totals(
        executions=tuple(int(n) for n in executions),
        loaded=int(sums[_LOADED]),
        stored=int(sums[_STORED]),
        hbm_bytes=int(sums[_IN_HBM]),
    )

"""Where the critical path of a launch went, by line of the user's kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.chips import Inside
from asterope.sim.costs import vector_cycles
from asterope.sim.instructions import Instruction, LineWork
from asterope.sim.state import Trace

__all__ = ["MAX_TRACED", "LineTime", "line_times"]

MAX_TRACED = 1 << 17
"""Macro-instructions of a launch that are looked at, from its beginning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LineTime:
    """Time on the critical path that one line of a kernel took on one engine.

    `loc` is file:line:column, `work` what the engine did there.
    """

    loc: str
    engine: str
    work: str
    time_ps: int


def line_times(table: Sequence[Instruction], trace: Trace, inside: Inside) -> tuple[LineTime, ...]:
    """Walk from what ended last to what let it start, and so on; the longest line first.

    A vector instruction is split among its lines by the cycles that each asks for. The times add
    up to the end of the last traced instruction.
    """
    rows: npt.NDArray[Any] = trace.rows[: min(int(trace.used[0]), len(trace.rows))]
    if not len(rows):
        return ()
    index, end, cause = (rows[:, column].tolist() for column in (1, 3, 6))
    spent = [0] * len(table)
    at = int(np.argmax(rows[:, 3]))
    while at >= 0:
        before = cause[at] - 1
        spent[index[at]] += end[at] - (end[before] if before >= 0 else 0)
        at = before
    found: dict[tuple[str, str, str], int] = {}
    for instruction, total in zip(table, spent, strict=True):
        for loc, work, ps in _split(instruction, total, inside):
            key = (loc, instruction.engine.value, work)
            found[key] = found.get(key, 0) + ps
    lines = (
        LineTime(loc=k[0], engine=k[1], work=k[2], time_ps=ps) for k, ps in found.items() if ps
    )
    return tuple(sorted(lines, key=lambda line: (-line.time_ps, line.loc, line.work)))


def _split(
    instruction: Instruction, total_ps: int, inside: Inside
) -> Iterator[tuple[str, str, int]]:
    """Yield line, work and share of the time; the shares add up to it."""
    by_loc: dict[str, list[LineWork]] = {}
    for line in instruction.lines:
        by_loc.setdefault(line.loc, []).append(line)
    cycles = [sum(vector_cycles(w.work, inside) for w in works) for works in by_loc.values()]
    if not any(cycles):  # nothing to split by: a transfer, a product, or addressing alone
        yield instruction.loc, instruction.label, total_ps
        return
    given, upto = 0, 0.0
    for (loc, works), mine in zip(by_loc.items(), cycles, strict=True):
        upto += mine
        share = round(total_ps * upto / sum(cycles)) - given
        given += share
        yield loc, " ".join(dict.fromkeys(w.name for w in works)), share

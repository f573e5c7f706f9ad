"""The semaphores that a macro-instruction waits for and signals, and what too many cost.

A buffer that two engines share has a pair: its writer signals that it is full, its reader that it
is empty again. So an instruction waits for as many as it signals: one for each result of another
engine that it reads, and one for its own result if another engine reads that. In the tensor and the
vector queue order is enough among themselves; transfers, which are under way side by side, have a
pair for each other's results too.

What is over a limit goes to instructions that do nothing else, before and after in the same queue:
queues are in order, so they join their semaphores to those of the instruction. That compilers for
the chip do so is an assumption. A join takes the control processor's time, and nothing besides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from asterope.chips import Control
from asterope.ir import Engine, Kernel, Value, loop_sources
from asterope.sim.instructions import Instruction

__all__ = ["num_joins", "with_semaphores"]

_IN_ORDER = (Engine.TENSOR, Engine.VECTOR)


def num_joins(semaphores: int, control: Control) -> int:
    """Count the instructions that wait or signal for one with more semaphores than the limits."""
    limits = (control.max_pre_semaphores, control.max_post_semaphores)
    return sum(max(1, math.ceil(semaphores / limit)) - 1 for limit in limits)


def with_semaphores(kernel: Kernel, table: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """Return the instructions of a time reading, each with the semaphores it waits for."""
    sources = loop_sources(kernel)
    counts = [0] * len(table)
    shared: set[int] = set()
    for op in kernel.walk():
        if op.name != "issue":
            continue
        index = op.attrs["instruction"]
        for token in dict.fromkeys(op.operands[op.attrs["numbers"] :]):
            made = {m for m in _makers(token, sources) if _needs_pair(table[m], table[index])}
            counts[index] += bool(made)
            shared |= made
    return tuple(
        dataclasses.replace(instruction, semaphores=count + (index in shared))
        for index, (instruction, count) in enumerate(zip(table, counts, strict=True))
    )


def _needs_pair(writer: Instruction, reader: Instruction) -> bool:
    return writer.engine is not reader.engine or reader.engine not in _IN_ORDER


def _makers(token: Value, sources: Mapping[Value, list[Value]]) -> set[int]:
    """Return the instructions that may have signalled what a semaphore says."""
    found, seen, stack = set[int](), set[Value](), [token]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.op is not None and value.op.name == "issue":
            found.add(value.op.attrs["instruction"])
        stack += sources.get(value, [])
    return found

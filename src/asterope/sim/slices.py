"""Which values a program needs to know where it goes and what it moves, whatever the data.

These are loop bounds, conditions, addresses and masks, and what they are computed from. The time
reading computes them; of all other values it only knows when they are ready. Where they are read
from memory that the kernel itself writes, the time reading has to write there too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from asterope.ir import (
    ATOMICS,
    READS,
    WRITES,
    Block,
    Kernel,
    Op,
    Value,
    address_operands,
    loop_sources,
    pointer_of,
)
from asterope.sim.origins import Origins

__all__ = ["Slice", "control_slice", "pattern_values"]


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The values that control flow and addresses depend on, and the writes that they may read.

    `queue` is the source line of a loop that works for as long as an atomic in it says.
    """

    values: frozenset[Value]
    writes: frozenset[Op]
    queue: str


def control_slice(kernel: Kernel, origins: Origins) -> Slice:
    """Return what the time reading of a kernel has to compute and to write."""
    sources = loop_sources(kernel)
    every = list(_steps(kernel.body))
    values: set[Value] = set()
    writes: set[Op] = set()
    needed = [v for op in every for v in _seeds(op)]
    while needed:
        _add_all(needed, sources, values)
        new = set(_read_back(every, values, origins)) - writes
        writes |= new
        needed = [v for op in new for v in op.operands]
    queues = (op for op in every if op.name == "while" and _is_queue(op, sources))
    queue = next((op.loc or kernel.name for op in queues), "")
    return Slice(frozenset(values), frozenset(writes), queue)


def _add_all(needed: list[Value], sources: Mapping[Value, list[Value]], found: set[Value]) -> None:
    """Add values, and all that they are computed from."""
    stack = list(needed)
    while stack:
        value = stack.pop()
        if value in found:
            continue
        found.add(value)
        stack += sources.get(value, [])
        if value.op is not None and not value.op.is_control_flow:
            stack += value.op.inputs


def _is_queue(loop: Op, sources: Mapping[Value, list[Value]]) -> bool:
    """Whether a loop does more than wait, until an atomic in it says that there is no more."""
    inside = [op for block in loop.blocks for op in block.walk()]
    if not any(op.name in (READS | WRITES) - ATOMICS for op in inside):
        return False
    deciding: set[Value] = set()
    _add_all(loop.blocks[0].terminator.operands[:1], sources, deciding)
    return any(op.name in ATOMICS and op.result in deciding for op in inside)


def _read_back(ops: Iterable[Op], values: set[Value], origins: Origins) -> list[Op]:
    """Return the writes to memory that some of the values are read from."""
    ops = list(ops)
    read = {
        origin
        for op in ops
        if op.name in READS and op.result in values
        for origin in origins.of(pointer_of(op))
    }
    return [op for op in ops if op.name in WRITES and read & origins.of(pointer_of(op))]


def pattern_values(kernel: Kernel) -> set[Value]:
    """Return the integers that depend on no data, such as bits of an index: compile-time work."""
    found: set[Value] = set()
    for op in kernel.walk():
        fixed = op.name in ("const", "iota") or (op.operands and found.issuperset(op.inputs))
        if fixed and not op.is_control_flow and all(r.type.is_int for r in op.results):
            found.update(op.results)
    return found


def _steps(block: Block) -> Iterator[Op]:
    """Visit the ops of a program, but not what others run for every element."""
    for op in block.ops:
        yield op
        for inner in op.blocks if op.is_control_flow else ():
            yield from _steps(inner)


def _seeds(op: Op) -> list[Value]:
    if op.name == "for":
        return op.operands[:3]
    if op.name in ("if", "condition"):
        return op.operands[:1]
    if op.name not in READS | WRITES:
        return []
    return address_operands(op)

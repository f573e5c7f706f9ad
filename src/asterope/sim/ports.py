"""The ports and banks of a tile's scratchpad: what each instruction moves through them.

Transfers write what they load and read what they store; engines read what others made and write
what they make. A product reads its operands as its tensor unit takes them, block by block, and adds
to a sum that lies in TSRAM. What one vector instruction makes and uses itself stays in registers.

Addresses are interleaved over the banks line by line, and blocks lie in one piece, so that every
access is spread over all banks: together they are one server in which reads and writes meet. A bank
serves a line at a time, so that runs of a transfer that are shorter than a line cost a whole one.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from asterope.chips import Inside
from asterope.ir import OPS, Engine, Op, Value
from asterope.sim.costs import Cost
from asterope.sim.instructions import Instruction, Transfer
from asterope.units import PS_PER_S

__all__ = ["blocks_behind", "moved_by", "tsram_ps"]

_Known = Container[Value]


def blocks_behind(values: Sequence[Value], known: _Known) -> set[Value]:
    """Return the blocks in TSRAM that values are views of; constants and addresses have none."""
    found, stack = set[Value](), list(values)
    while stack:
        value = stack.pop()
        if value.op is not None and _is_view(value.op):
            stack += value.op.operands
        elif value.type.shape and value not in known:
            found.add(value)
    return found


def _is_view(op: Op) -> bool:
    spec = OPS[op.name]
    return spec.cost == "free" and spec.engine is Engine.VECTOR and not op.is_control_flow


def moved_by(ops: Sequence[Op], uses: Mapping[Value, list[Op]], known: _Known) -> tuple[int, int]:
    """Return the bytes that ops, as one instruction, read from TSRAM and write there."""
    made = {r for op in ops for r in op.results}
    inside = set(ops)
    read = blocks_behind([v for op in ops for v in op.operands], known) - made
    written = {v for v in made if v not in known and _leaves(v, inside, uses)}
    return sum(v.type.num_bytes for v in read), sum(v.type.num_bytes for v in written)


def _leaves(value: Value, inside: set[Op], uses: Mapping[Value, list[Op]]) -> bool:
    """Whether somebody else uses a value, or a view of it."""
    for user in uses.get(value, ()):
        if user in inside or (_is_view(user) and not _leaves(user.result, inside, uses)):
            continue
        return True
    return False


def tsram_ps(instruction: Instruction, cost: Cost, inside: Inside) -> tuple[float, float, float]:
    """Return how long an instruction is at the read ports, the write ports and the banks.

    Of a transfer it is for each byte, of another for one execution.
    """
    tsram, work = inside.tile.tsram, instruction.work
    read, written = (
        float(instruction.bytes_read + cost.tsram_bytes),
        float(instruction.bytes_written),
    )
    lines = read + written
    if isinstance(work, Transfer):
        is_store = instruction.engine is Engine.STORE
        read, written = float(is_store), float(not is_store)
        piece = inside.tile.dma.gather_granule_bytes if work.gather else work.run_bytes
        lines = max(1.0, tsram.bank_bytes_per_cycle / piece)
    banks = tsram.banks * tsram.bank_bytes_per_cycle
    cycle_ps = PS_PER_S / inside.clock_hz
    return (
        read / tsram.read_bytes_per_cycle * cycle_ps,
        written / tsram.write_bytes_per_cycle * cycle_ps,
        lines / banks * cycle_ps,
    )

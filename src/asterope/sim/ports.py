"""The ports and banks of a tile's scratchpad: what each instruction moves through them.

Transfers write what they load and read what they store; engines read what others made and write
what they make. A product reads its operands as its tensor unit takes them, block by block and with
their scales, and adds to a sum that lies in TSRAM. What one vector instruction makes and uses
itself stays in registers.

Addresses are interleaved over the banks line by line, and blocks lie in one piece, so that every
access is spread over all banks: together they are one server in which reads and writes meet. A bank
serves a line at a time, so that runs of a transfer that are shorter than a line cost a whole one.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from asterope.chips import Inside
from asterope.ir import OPS, Engine, Op, Value
from asterope.sim.costs import Cost, operand_bits
from asterope.sim.instructions import Instruction, Product, Transfer
from asterope.units import PS_PER_S

__all__ = ["blocks_behind", "moved_by", "scale_bits", "tsram_ps"]

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


def scale_bits(product: Op) -> float:
    """Return the bits of scales that come with an element of each operand, 0 of plain ones."""
    scales, bits = iter(product.operands[3:]), 0.0
    for operand, side in zip(product.operands[:2], "ab", strict=True):
        if product.attrs.get(f"{side}_scale"):
            packed = 2 if product.attrs[f"{side}_format"] == "e2m1" else 1
            bits += 8 * next(scales).type.num_bytes / (operand.type.num_elements * packed)
    return bits


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
    operands = float(cost.tsram_bytes)
    if isinstance(work, Product):
        operands *= 1 + work.scale_bits / operand_bits(work)
    read, written = instruction.bytes_read + operands, float(instruction.bytes_written)
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

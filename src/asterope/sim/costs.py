"""What each macro-instruction takes on a chip: cycles, operations, bytes, picojoules."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass

from asterope.chips import Chip, Inside
from asterope.errors import ChipError
from asterope.formats import ELEMENTS
from asterope.ir import Engine
from asterope.sim.instructions import Instruction, Product, VectorWork
from asterope.units import PS_PER_S

__all__ = [
    "Cost",
    "ceil_ps",
    "cost_of",
    "operand_bits",
    "rate_format",
    "vector_cycles",
    "vector_work",
]

# Integers have no rate of their own on the chip: int8 values are exact in bf16.
_RATES = {
    "e2m1": "fp4", "e1m2": "fp4", "e2m3": "fp6", "e3m2": "fp6",
    "e4m3": "fp8", "e5m2": "fp8", "e4m3fnuz": "fp8", "e5m2fnuz": "fp8",
    "i8": "bf16", "bf16": "bf16", "fp16": "fp16",
}  # fmt: skip
_ORDER = ("fp4", "fp6", "fp8", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One execution of an instruction: duration on its engine, and what it adds to the counters.

    `fill_ps` passes from its operands to its first results; the product before may still compute.
    """

    duration_ps: int = 0
    fill_ps: int = 0
    mac_format: str = ""
    macs: int = 0
    vector_ops_16bit: int = 0
    vector_ops_32bit: int = 0
    transcendental_ops: int = 0
    moves_16bit: int = 0
    moves_32bit: int = 0
    tsram_bytes: int = 0


def ceil_ps(seconds: float) -> int:
    """Round a duration up to whole picoseconds."""
    return math.ceil(seconds * PS_PER_S - 1e-6)


def rate_format(product: Product, available: Container[str]) -> str:
    """Return whose rate a product runs at: that of the wider operand.

    Where the chip lacks that format it is the next wider one, to which codes convert exactly.

    Raises: ChipError if the chip has no such rate.
    """
    known = [_RATES[f] for f in (product.a, product.b) if f in _RATES]
    if len(known) == 2:
        widest = max(known, key=_ORDER.index)
        wide_enough = _ORDER[_ORDER.index(widest) :] if widest != "fp16" else ("fp16", "bf16")
        for name in wide_enough:
            if name in available:
                return name
    raise ChipError(
        f"the tensor unit has no rate for {product.a} x {product.b}",
        where="peak_flop_per_s",
    )


def cost_of(instruction: Instruction, chip: Chip) -> Cost:
    """Return the cost of one execution; a transfer's time depends on what else is moving."""
    inside = chip.inside()
    work = instruction.work
    if isinstance(work, Product) and instruction.engine is Engine.TENSOR:
        return _tensor(work, inside)
    on_vector = vector_work(instruction)
    return _vector(on_vector, inside) if on_vector is not None else Cost()


def vector_work(instruction: Instruction) -> VectorWork | None:
    """Return what an instruction asks of the vector engine; wide products run there too."""
    work = instruction.work
    if isinstance(work, Product) and instruction.engine is Engine.VECTOR:
        return VectorWork(counts={"op32": work.macs})
    return work if isinstance(work, VectorWork) else None


def operand_bits(product: Product) -> int:
    """Return the bits of an element of a and one of b, without scales."""
    return sum(ELEMENTS[f].bits if f in ELEMENTS else 8 for f in (product.a, product.b))


def _tensor(work: Product, inside: Inside) -> Cost:
    unit = inside.tile.tensor
    name = rate_format(work, unit.depth_per_cycle)
    depth = unit.depth_per_cycle[name]
    blocks = math.ceil(work.m / unit.rows) * math.ceil(work.n / unit.cols)
    steps = work.batch * blocks * math.ceil(work.k / depth)
    feed = unit.rows * depth * operand_bits(work) // 8
    return Cost(
        duration_ps=ceil_ps(steps / inside.clock_hz),
        fill_ps=ceil_ps(unit.startup_cycles / inside.clock_hz),
        mac_format=name,
        macs=work.macs,
        tsram_bytes=steps * feed,
    )


def _vector(work: VectorWork, inside: Inside) -> Cost:
    unit, counts = inside.tile.vector, work.counts
    cycles = math.ceil(vector_cycles(work, inside)) + unit.startup_cycles
    return Cost(
        duration_ps=ceil_ps(cycles / inside.clock_hz),
        vector_ops_16bit=counts.get("op16", 0),
        vector_ops_32bit=counts.get("op32", 0),
        transcendental_ops=counts.get("function16", 0) + counts.get("function32", 0),
        moves_16bit=counts.get("move16", 0),
        moves_32bit=counts.get("move32", 0),
    )


def vector_cycles(work: VectorWork, inside: Inside) -> float:
    """Return the cycles of a vector engine and its reshaper for the work alone."""
    unit, reshaper = inside.tile.vector, inside.tile.reshaper
    counts = work.counts
    return (
        counts.get("op16", 0) / (unit.lanes_16bit * unit.ops_per_lane_cycle)
        + counts.get("op32", 0) / (unit.lanes_32bit * unit.ops_per_lane_cycle)
        + counts.get("function16", 0) / (unit.lanes_16bit * unit.transcendental_ops_per_lane_cycle)
        + counts.get("function32", 0) / (unit.lanes_32bit * unit.transcendental_ops_per_lane_cycle)
        + counts.get("move16", 0) / reshaper.lanes_float
        + counts.get("move32", 0) / reshaper.lanes_fp32
    )

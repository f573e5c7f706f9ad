"""The lowest rung: no launch is faster than its arithmetic and its memory traffic allow."""

from __future__ import annotations

from collections.abc import Container

from asterope.chips import Chip
from asterope.ir import Engine
from asterope.sim.costs import ceil_ps, rate_format
from asterope.sim.instructions import Product, VectorWork
from asterope.sim.macro import TimeProgram
from asterope.sim.totals import Totals
from asterope.units import PS_PER_S

__all__ = ["flop_of", "roofline_ps", "vector_ops_of"]


def flop_of(program: TimeProgram, totals: Totals, chip: Chip) -> dict[str, int]:
    """Add up the tensor engines' floating-point operations by the rate they run at."""
    flop: dict[str, int] = {}
    for instruction, count in zip(program.instructions, totals.executions, strict=True):
        work = instruction.work
        if instruction.engine is Engine.TENSOR and isinstance(work, Product) and count:
            name = rate_format(work, _rates(chip))
            flop[name] = flop.get(name, 0) + 2 * work.m * work.n * work.k * count
    return flop


def _rates(chip: Chip) -> Container[str]:
    return chip.tile.tensor.depth_per_cycle if chip.tile else chip.peak_flop_per_s


def vector_ops_of(program: TimeProgram, totals: Totals) -> int:
    """Add up the vector engines' operations."""
    ops = 0
    for instruction, count in zip(program.instructions, totals.executions, strict=True):
        work = instruction.work
        if isinstance(work, VectorWork):
            ops += count * sum(work.counts.values())
        elif isinstance(work, Product) and instruction.engine is Engine.VECTOR:
            ops += count * work.m * work.n * work.k
    return ops


def roofline_ps(program: TimeProgram, totals: Totals, chip: Chip) -> dict[str, int]:
    """Return the least time each limit asks for: tensor rates, vector rate, memory bandwidth.

    Peaks and bandwidth are the maker's, and equal tiles of memory are read once.
    """
    tensor_s = sum(
        flop / chip.peak_flop_per_s[name] for name, flop in flop_of(program, totals, chip).items()
    )
    moved = totals.hbm_bytes
    limits = {
        "tensor": tensor_s,
        "hbm": moved / chip.hbm.bandwidth_bytes_per_s,
    }
    if chip.tile is not None:
        inside = chip.inside()
        lanes = inside.tile.vector.lanes_16bit * inside.tile.vector.ops_per_lane_cycle
        rate = lanes * inside.num_tiles * inside.clock_hz
        limits["vector"] = vector_ops_of(program, totals) / rate
    return {
        name: ceil_ps(seconds) if seconds * PS_PER_S > 0 else 0 for name, seconds in limits.items()
    }

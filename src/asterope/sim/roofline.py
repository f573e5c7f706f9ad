"""The lowest rung: no launch is faster than its arithmetic and its memory traffic allow."""

from __future__ import annotations

from collections.abc import Container

from asterope.chips import Chip, Inside
from asterope.ir import Engine
from asterope.sim.costs import ceil_ps, rate_format, vector_cycles, vector_work
from asterope.sim.instructions import Product
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
            flop[name] = flop.get(name, 0) + 2 * work.macs * count
    return flop


def _rates(chip: Chip) -> Container[str]:
    return chip.tile.tensor.depth_per_cycle if chip.tile else chip.peak_flop_per_s


def vector_ops_of(program: TimeProgram, totals: Totals) -> int:
    """Add up the vector engines' operations."""
    ops = 0
    for instruction, count in zip(program.instructions, totals.executions, strict=True):
        work = vector_work(instruction)
        if work is not None:
            ops += count * sum(work.counts.values())
    return ops


def _vector_s(program: TimeProgram, totals: Totals, inside: Inside) -> float:
    """Return the least time of the vector engines, all of them busy."""
    cycles = 0.0
    for instruction, count in zip(program.instructions, totals.executions, strict=True):
        work = vector_work(instruction)
        if work is not None:
            cycles += count * vector_cycles(work, inside)
    return cycles / (inside.num_tiles * inside.clock_hz)


def _flop_per_s(chip: Chip, name: str) -> float:
    """Return the faster of the maker's peak and what its tiles multiply out to."""
    return max(chip.peak_flop_per_s[name], 2 * chip.macs_per_s(name))


def roofline_ps(program: TimeProgram, totals: Totals, chip: Chip) -> dict[str, int]:
    """Return the least time each limit asks for: tensor rates, vector rate, memory bandwidth.

    Peaks and bandwidth are the maker's (a peak may be rounded: the tiles' own rate counts where it
    is higher), and equal tiles of memory are read once.
    """
    flop = flop_of(program, totals, chip)
    limits = {
        "tensor": sum(count / _flop_per_s(chip, name) for name, count in flop.items()),
        "hbm": totals.hbm_bytes / chip.hbm.bandwidth_bytes_per_s,
    }
    if chip.tile is not None:
        limits["vector"] = _vector_s(program, totals, chip.inside())
    return {
        name: ceil_ps(seconds) if seconds * PS_PER_S > 0 else 0 for name, seconds in limits.items()
    }

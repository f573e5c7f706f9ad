"""Choose block sizes of a matrix product: the least time by a closed form of the chip."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from asterope.chips import maia200

__all__ = ["Blocks", "choose_blocks"]

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_DEPTH_BYTES = 128
_STAGES = 3


@dataclass(frozen=True, slots=True)
class Blocks:
    """Block sizes along M, N and K, the tile order, and the buffers of the pipeline."""

    m: int
    n: int
    k: int
    group: int
    stages: int


@functools.lru_cache(maxsize=4096)
def choose_blocks(m: int, n: int, k: int, a_bits: int, b_bits: int, k_step: int = 32) -> Blocks:
    """Return blocks for [m, k] x [k, n] with elements of so many bits.

    Every combination is costed as waves of programs over the tiles: each program takes the longer
    of its tensor cycles and the cycles to bring its operands in, all of them no less than the time
    to read the operands once from HBM, plus issue and latency. `k_step` divides the K block.
    """
    candidates = [
        (_cycles(m, n, k, bm, bn, bk, a_bits, b_bits), -bm * bn, Blocks(bm, bn, bk, 8, _STAGES))
        for bm in _SIZES
        if bm < 2 * max(m, 1)
        for bn in _SIZES[4:]
        if bn < 2 * max(n, 16)
        for bk in [_depth(k, max(a_bits, b_bits), k_step)]
    ]
    return min(candidates, key=lambda c: c[:2])[2]


def _depth(k: int, bits: int, k_step: int) -> int:
    """Take 128 bytes of the wider operand along K, as many whole scale groups, at most K."""
    depth = max(_DEPTH_BYTES * 8 // bits, k_step)
    while depth > k_step and depth >= 2 * k:
        depth //= 2
    return depth


def _cycles(
    m: int, n: int, k: int, bm: int, bn: int, bk: int, a_bits: int, b_bits: int
) -> float:  # fmt: skip
    chip = maia200()
    inside = chip.inside()
    unit, dma = inside.tile.tensor, inside.tile.dma
    rate = {4: "fp4", 8: "fp8"}.get(max(a_bits, b_bits), "bf16")
    programs = math.ceil(m / bm) * math.ceil(n / bn)
    waves = math.ceil(programs / inside.num_tiles)
    steps = math.ceil(k / bk)
    blocks = math.ceil(bm / unit.rows) * math.ceil(bn / unit.cols)
    tensor = steps * (blocks * math.ceil(bk / unit.depth_per_cycle[rate]) + unit.startup_cycles)
    operands = (bm * a_bits + bn * b_bits) * k / 8 / dma.ingest_bytes_per_cycle
    issue = 3 * steps * inside.tile.control.issue_cycles
    hbm_rate = chip.hbm_effective_bytes_per_s / inside.clock_hz
    hbm = (m * k * a_bits + n * k * b_bits) / 8 / hbm_rate
    return max(waves * max(tensor, operands, issue), hbm) + waves * inside.hbm_latency_cycles

"""Choose block sizes of a matrix product: the least time by a closed form of the chip."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from asterope.chips import Inside, maia200

__all__ = ["Blocks", "choose_blocks"]

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_DEPTHS_BYTES = (512, 256, 128)
_GROUP = 8
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

    Every combination is costed as waves of programs over the tiles: each program takes the longest
    of its tensor cycles, the cycles to bring its operands in, those to issue, and those that the
    steps wait for HBM with as many of them in flight as there are stages; all of it no less than
    the time to read HBM. `k_step` divides the K block.
    """
    depths = {_depth(k, max(a_bits, b_bits), k_step, size): None for size in _DEPTHS_BYTES}
    candidates = [
        (_cycles(m, n, k, blocks, a_bits, b_bits), -blocks.m * blocks.n, blocks)
        for bm in _SIZES
        if bm < 2 * max(m, 1)
        for bn in _SIZES[4:]
        if bn < 2 * max(n, 16)
        for blocks in (Blocks(bm, bn, bk, _GROUP, _STAGES) for bk in depths)
    ]
    return min(candidates, key=lambda c: c[:2])[2]


def _depth(k: int, bits: int, k_step: int, num_bytes: int) -> int:
    """Take so many bytes of the wider operand along K, as many whole scale groups, at most K."""
    depth = max(num_bytes * 8 // bits, k_step)
    while depth > k_step and depth >= 2 * k:
        depth //= 2
    return depth


def _cycles(m: int, n: int, k: int, blocks: Blocks, a_bits: int, b_bits: int) -> float:
    chip = maia200()
    inside = chip.inside()
    unit = inside.tile.tensor
    rate = {4: "fp4", 8: "fp8"}.get(max(a_bits, b_bits), "bf16")
    num_m, num_n = math.ceil(m / blocks.m), math.ceil(n / blocks.n)
    waves = math.ceil(num_m * num_n / inside.num_tiles)
    steps = math.ceil(k / blocks.k)
    squares = math.ceil(blocks.m / unit.rows) * math.ceil(blocks.n / unit.cols)
    step = squares * math.ceil(blocks.k / unit.depth_per_cycle[rate]) + unit.startup_cycles
    operands = (blocks.m * a_bits + blocks.n * b_bits) * k / 8
    program = max(
        steps * step,
        operands / _ingest_bytes_per_cycle(inside, num_m * num_n),
        3 * steps * inside.tile.control.issue_cycles,
        steps * inside.hbm_latency_cycles / (blocks.stages - 1),
    )
    # Programs of a group of rows share the columns they read; the next group reads them again.
    rounds = math.ceil(num_m / blocks.group)
    hbm_rate = chip.hbm_effective_bytes_per_s / inside.clock_hz
    hbm = (m * k * a_bits + n * k * b_bits * rounds) / 8 / hbm_rate
    return max(waves * program, hbm) + waves * inside.hbm_latency_cycles


def _ingest_bytes_per_cycle(inside: Inside, programs: int) -> float:
    """Return what a tile takes in while its cluster's other tiles, if busy, do the same."""
    busy = min(math.ceil(programs / inside.clusters), inside.tiles_per_cluster)
    return min(inside.tile.dma.ingest_bytes_per_cycle, inside.cluster.csram_bytes_per_cycle / busy)

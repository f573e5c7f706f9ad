"""Matrix products as GPU libraries run them: blocks in waves over the cores, the best of them.

A block of the output is one core's work. Blocks run in waves, the last of which may be half empty;
small blocks ask for more operand bytes an operation than a core is fed; few blocks leave cores
idle unless K is split. The library is taken to pick the fastest of the usual blocks and splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asterope.chips import Achieved, Chip
from asterope.operators.timing import (
    OperatorTime,
    achieved,
    check_sizes,
    num_cores,
    overlapped,
    peak_flop_per_s,
    share,
    side_by_side,
    timed,
)

__all__ = ["Plan", "best_plan", "gemm"]

Floats = npt.NDArray[np.float64]

_BLOCKS = np.array(
    [(m, n) for m in (256, 128, 64, 16) for n in (256, 128, 64, 32) if m * n <= 128 * 256],
    dtype=np.float64,
)
_GROUPED_BLOCKS = np.array(
    [(m, n) for m in (256, 128, 64, 32, 16) for n in (256, 128, 64) if m * n <= 128 * 256],
    dtype=np.float64,
)
"""Kernels of several products at once have no narrower blocks of their weights.

Source: the tiles of TensorRT-LLM's cutlass_heuristic.cpp for grouped products."""

_WIDTHS = {"bf16": 16, "fp16": 16, "fp8": 8, "int8": 8}
"""Bits of what tensor cores multiply. Kernels widen narrower weights on the way: those of a single
product behind its other work, those of experts not."""

_SPLITS = np.array([1, 2, 3, 4, 6, 8, 16], dtype=np.float64)
_BALANCED = 128
"""A core is fed as fast as square 16-bit blocks of this size ask for."""
_K_STEP = 64
_SUM_BYTES = 4
"""A part of a split sum, written and read again."""
_QUANTIZING_KERNELS = 2
"""The largest magnitude, then scaling and rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One way to cut a product, and what it takes."""

    block_m: int
    block_n: int
    split_k: int
    waves: int
    tensor_s: float
    hbm_s: float
    hbm_bytes: float


def best_plan(
    chip: Chip, rows: Floats, n: int, k: int, *, rate: str, bits: tuple[float, float],
    grouped: bool = False, block_scaled: bool = False,
) -> Plan:  # fmt: skip
    """Find the fastest way to cut one product, or a group that runs together unsplit.

    Shapes: rows [G], the rows of A of each of G products; all have the same n and k. `bits` are
    those of an element of A and of B; each is read once, and C is written in 16 bits.
    """
    reach, cores = achieved(chip), num_cores(chip)
    core_flop_per_s = peak_flop_per_s(chip, rate) * share(reach.tensor_fraction, rate) / cores
    if grouped:
        core_flop_per_s *= reach.grouped_fraction
    slowed = _slowed(reach, rate, bits[1], grouped=grouped, block_scaled=block_scaled)
    usual = _GROUPED_BLOCKS if grouped else _BLOCKS
    block_m, block_n = usual[:, :1], usual[:, 1:]
    split = (_SPLITS[:1] if grouped else _SPLITS)[None, :]
    blocks = np.ceil(rows[None, :] / block_m).sum(axis=1)[:, None] * np.ceil(n / block_n)
    waves = np.ceil(blocks * split / cores)
    depth = np.ceil(k / split / _K_STEP) * _K_STEP
    fed_bytes_per_s = core_flop_per_s * 2 * (2 * _BALANCED) / (2 * _BALANCED**2)
    fed_bytes = (block_m * bits[0] + block_n * bits[1]) / 8
    step_flop_s = 2 * block_m * block_n / (core_flop_per_s * slowed)
    step_s = np.maximum(step_flop_s, fed_bytes / fed_bytes_per_s)
    # Kernels of several products at once start a block under the end of the one before.
    wave_s = 0.0 if grouped else reach.wave_s
    tensor_s = waves * depth * step_s + (waves - 1) * wave_s
    # A core asks for no more than so many even shares of the memory's rate.
    busy = np.minimum(1.0, reach.core_share * blocks * split / cores)
    sums_bytes = np.where(split > 1, 2 * _SUM_BYTES * split * rows.sum() * n, 0.0)
    hbm_bytes = (len(rows) * n * k * bits[1] + rows.sum() * (k * bits[0] + n * 16)) / 8
    hbm_s = (hbm_bytes + sums_bytes) / (chip.hbm.bandwidth_bytes_per_s * reach.hbm_fraction) / busy
    total = side_by_side(tensor_s, hbm_s)
    at = np.unravel_index(np.argmin(total), total.shape)
    return Plan(
        block_m=int(usual[at[0], 0]),
        block_n=int(usual[at[0], 1]),
        split_k=int(split[0, at[1]]),
        waves=int(waves[at]),
        tensor_s=float(tensor_s[at]),
        hbm_s=float(hbm_s[at]),
        hbm_bytes=float(hbm_bytes),
    )


def _slowed(
    reach: Achieved, rate: str, b_bits: float, *, grouped: bool, block_scaled: bool
) -> float:
    """Return the share of its rate that a product keeps for what it does to sums and weights."""
    if not grouped:
        return reach.block_scaled_fraction if block_scaled else 1.0
    kept = reach.grouped_block_fraction if block_scaled else 1.0
    return kept * reach.widened_fraction if b_bits < _WIDTHS.get(rate, b_bits) else kept


def gemm(
    chip: Chip, m: int, n: int, k: int, *, rate: str, bits: tuple[float, float],
    quantizes: bool = False, block_scaled: bool = False,
) -> OperatorTime:  # fmt: skip
    """Time C = A B with A [m, k] and B [k, n], each read once, and a 16-bit C.

    `rate` is the format whose tensor rate applies, the wider one of the operands. With `quantizes`
    A is rounded from 16 bits first. `block_scaled` says that scales change along K: sums leave the
    tensor cores block by block, and A is rounded in the same operator.

    Raises: ConfigError for sizes below one; ChipError if the chip has no calibrated operators.
    """
    check_sizes(m=m, n=n, k=k)
    reach = achieved(chip)
    rows = np.array([m], dtype=np.float64)
    plan = best_plan(chip, rows, n, k, rate=rate, bits=bits, block_scaled=block_scaled)
    hbm_bytes = plan.hbm_bytes
    parts = {"launch": reach.kernel_s, **overlapped(plan.tensor_s, plan.hbm_s)}
    if quantizes or block_scaled:
        rounded = m * k * (16 + bits[0]) / 8
        rounding_s = rounded / (chip.hbm.bandwidth_bytes_per_s * reach.hbm_fraction)
        # What rounds in blocks ends in the product's own launch.
        starts_s = reach.wave_s if block_scaled else _QUANTIZING_KERNELS * reach.kernel_s
        parts["quantize"] = starts_s + rounding_s
        hbm_bytes += rounded
    waves = f"{plan.waves} wave{'s' * (plan.waves != 1)}"
    split = f", K in {plan.split_k} parts" if plan.split_k > 1 else ""
    mapping = f"blocks of {plan.block_m} x {plan.block_n}, {waves}{split}"
    return timed(parts, flop=2.0 * m * n * k, hbm_bytes=hbm_bytes, mapping=mapping)

"""The experts of a layer in Triton's kernels, which widen weights in MXFP4 on the way.

They differ from the library's in three ways. A block has as many rows as the step has on the mean
for each expert that is held, whichever chips' experts these rows are of. Sorting takes many small
kernels. And what copies rows leaves out none of them.
"""

from __future__ import annotations

import math

from asterope.chips import Chip
from asterope.operators.experts import KERNELS, copied_bytes
from asterope.operators.products import Floats
from asterope.operators.timing import (
    OperatorTime,
    achieved,
    check_sizes,
    num_cores,
    overlapped,
    peak_flop_per_s,
    share,
    timed,
)

__all__ = ["triton_experts"]

_ROWS, _COLUMNS = (16, 128), 128
"""Least and most rows of a block, and its columns.

Source: opt_flags.py of triton_kernels, whose products TensorRT-LLM takes for MXFP4 on Hopper, for
rows; that columns are 128 is read off the waves that measured times step by."""


def triton_experts(
    chip: Chip, loads: Floats, hidden: int, intermediate: int, *, rate: str,
    bits: tuple[float, float], tokens: int, routed: int,
) -> OperatorTime:  # fmt: skip
    """Time gate, up and down projections of the experts a chip holds, and the kernels around.

    Shapes: loads [E], the tokens of each expert; activations [tokens, hidden]. `routed` are the
    rows of all chips' experts.

    Raises: ConfigError for sizes below one; ChipError if the chip has no calibrated operators.
    """
    check_sizes(hidden=hidden, intermediate=intermediate, tokens=tokens, routed=routed)
    reach, rows = achieved(chip), loads[loads > 0]
    block = _block_rows(routed // len(loads))
    copied = copied_bytes(routed, tokens, hidden, intermediate, bits[0])
    copies_s = copied / (chip.hbm.bandwidth_bytes_per_s * reach.gather_fraction)
    parts = {"launch": KERNELS * reach.kernel_s + reach.routing_s, "copies": copies_s}
    for n, k in ((2 * intermediate, hidden), (hidden, intermediate)):
        tensor_s = _tensor_s(chip, rows, n, k, block, rate)
        moved = (len(rows) * n * k * bits[1] + float(rows.sum()) * (k * bits[0] + n * 16)) / 8
        hbm_s = moved / (chip.hbm.bandwidth_bytes_per_s * reach.hbm_fraction)
        for name, seconds in overlapped(tensor_s, hbm_s).items():
            parts[name] = parts.get(name, 0.0) + seconds
        copied += moved
    return timed(
        parts,
        flop=2.0 * float(rows.sum()) * 3 * hidden * intermediate,
        hbm_bytes=copied,
        mapping=f"{len(rows)} experts, blocks of {block} x {_COLUMNS}",
    )


def _block_rows(rows_of_expert: int) -> int:
    least, most = _ROWS
    return min(max(1 << (max(rows_of_expert, 1) - 1).bit_length(), least), most)


def _tensor_s(chip: Chip, rows: Floats, n: int, k: int, block: int, rate: str) -> float:
    """Return how long waves of blocks take, whole ones, however few rows they have."""
    reach, cores = achieved(chip), num_cores(chip)
    core_flop_per_s = peak_flop_per_s(chip, rate) * share(reach.tensor_fraction, rate) / cores
    blocks = sum(math.ceil(each / block) for each in rows.tolist()) * math.ceil(n / _COLUMNS)
    flop = math.ceil(blocks / cores) * 2 * block * _COLUMNS * k
    return float(flop / (core_flop_per_s * reach.triton_fraction))

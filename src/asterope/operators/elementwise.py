"""Kernels that move bytes and compute next to nothing: norms, activations, rotations, copies."""

from __future__ import annotations

from asterope.chips import Chip
from asterope.operators.timing import OperatorTime, achieved, timed

__all__ = ["elementwise"]


def elementwise(chip: Chip, hbm_bytes: float) -> OperatorTime:
    """Time one kernel that reads and writes so many bytes in all."""
    reach = achieved(chip)
    hbm_s = hbm_bytes / (chip.hbm.bandwidth_bytes_per_s * reach.hbm_fraction)
    return timed({"launch": reach.kernel_s, "hbm": hbm_s}, hbm_bytes=hbm_bytes)

"""How a cluster's SRAM is shared by tiles of memory that pass through and those that are pinned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asterope.sim.instructions import Transfer, Work

__all__ = ["csram_parts", "pinnable_bytes"]


def pinnable_bytes(csram_bytes: int) -> int:
    """Return how much a kernel may pin of a CSRAM; through the rest, an eighth, all else passes."""
    return csram_bytes - csram_bytes // 8


def csram_parts(csram_bytes: int, works: Sequence[Work]) -> npt.NDArray[np.int64]:
    """Return the bytes for tiles that pass through and for pinned ones, 0 if a kernel pins none."""
    pins = any(isinstance(work, Transfer) and work.pinned for work in works)
    pinned = pinnable_bytes(csram_bytes) if pins else 0
    return np.array([csram_bytes - pinned, pinned], np.int64)

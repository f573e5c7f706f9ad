"""The random numbers of stochastic rounding: a hash of (seed, element index), no state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asterope.errors import FormatError

__all__ = ["check_seed", "uniform32"]

_LOW_32 = np.uint64(0xFFFF_FFFF)


def check_seed(seed: int) -> None:
    """Raise FormatError if the seed is not in 0..2^32 - 1."""
    if not 0 <= seed < 1 << 32:
        raise FormatError(f"seed {seed} is outside 0..{(1 << 32) - 1}", where="seed")


def _mix(x: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Scramble 32 bits so that every input bit moves about half of the output bits.

    Source: "lowbias32" of Chris Wellons' hash-prospector, a bijection on 32 bits.
    """
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def uniform32(seed: int, indices: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """Return one uniform 32-bit number per index: mix(mix(low ^ mix(seed)) + mix(high) + seed).

    `low` and `high` are the two halves of the 64-bit index, all sums are modulo 2^32. The same
    seed and index give the same number on every machine and in any order.

    Raises: FormatError if the seed is not in 0..2^32 - 1.
    """
    check_seed(seed)
    low = (indices & _LOW_32).astype(np.uint32)
    high = (indices >> np.uint64(32)).astype(np.uint32)
    seeds = np.full(1, seed, np.uint32)
    return _mix(_mix(low ^ _mix(seeds)) + _mix(high) + seeds)

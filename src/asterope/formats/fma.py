"""A fused multiply-add of float32, exact, in plain NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["fma32"]


def fma32(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return a x b + c of float32 values, rounded once, to nearest even; arrays broadcast.

    The product of two float32 is exact in float64. The sum is not; its error is (TwoSum). Where
    there is one, the sum is moved to the neighbour with an odd last bit on the error's side, and a
    value rounded to odd with 53 bits rounds to 24 as the exact one would.

    Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms
    using rounding to odd", IEEE Trans. Computers 57(4), 2008.
    """
    x, y, z = (np.asarray(v, np.float32).astype(np.float64) for v in (a, b, c))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        product = x * y
        total = product + z
        z_part = total - product
        error = (product - (total - z_part)) + (z - z_part)
        is_even = total.view(np.uint64) % np.uint64(2) == 0
        inexact = np.isfinite(total) & (error != 0) & is_even
        toward = np.where(error > 0, np.inf, -np.inf)
        odd = np.where(inexact, np.nextafter(total, toward), total)
        return odd.astype(np.float32)

"""How many blocks of rows experts have when each row picks its expert at random."""

from __future__ import annotations

import functools
import math

__all__ = ["expected_blocks"]

_DEVIATIONS = 8


@functools.lru_cache(maxsize=4096)
def expected_blocks(rows: int, experts: int, block: int) -> float:
    """Return the expected number of blocks of so many rows, each of one expert.

    An expert's rows are taken to have a Poisson distribution. Blocks as large as all rows count
    the experts that have any.
    """
    mean = rows / experts
    most = min(rows, math.ceil(mean + _DEVIATIONS * math.sqrt(mean) + _DEVIATIONS))
    least = max(1, math.floor(mean - _DEVIATIONS * math.sqrt(mean)))
    shares = (
        math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) * math.ceil(count / block)
        for count in range(least, most + 1)
    )
    return max(1.0, experts * sum(shares))

"""What kernels are given of a KV cache: its memory, its scales, and how it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from asterope.kernels.attend_rows import LOG2E
from asterope.kernels.block_codes import CODE_UNIT
from asterope.kernels.cache_formats import BlockRows, CacheRows, memory_of_rows

__all__ = ["CachedOperands", "cache_shape"]


def cache_shape(keys: CacheRows) -> Mapping[str, Any]:
    """Return the fields of `AttentionShape` that are those of a cache."""
    if isinstance(keys, BlockRows):
        return {"cache_bits": 8 * keys.nbytes / keys.shape.numel(), "group": keys.group}
    return {"cache_bits": 8 * keys.element_size()}


@dataclass(frozen=True, slots=True, eq=False)
class CachedOperands:
    """Arguments of a kernel that attends.

    `factors` multiply scores, whose exponentials are then powers of two, and values. What codes
    are widened to is smaller by `CODE_UNIT`: values always, keys for fp32 queries.
    """

    rows: tuple[torch.Tensor | None, ...]
    factors: tuple[float, float]
    constants: Mapping[str, int]

    @classmethod
    def of(
        cls, q: torch.Tensor, keys: CacheRows, values: CacheRows, key_scale: float,
        value_scale: float,
    ) -> CachedOperands:  # fmt: skip
        """Return them for queries and one layer's keys and values, with the scales of these."""
        scores = key_scale * LOG2E
        rows = (*memory_of_rows(keys), *memory_of_rows(values))
        if not isinstance(keys, BlockRows):
            constants = {"SCALED": value_scale != 1, "GROUP": 0}
            return cls(rows, (scores, value_scale), constants)
        if q.dtype == torch.float32:
            scores *= CODE_UNIT
        return cls(rows, (scores, value_scale * CODE_UNIT), {"SCALED": True, "GROUP": keys.group})

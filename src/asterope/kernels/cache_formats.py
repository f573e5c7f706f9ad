"""Formats of a KV cache: one row each, and what a cache in blocks is.

Blocks lie along a head. What all keys of a layer are divided by, and all its values, kernels get as
arguments beside the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from asterope.errors import ConfigError, ShapeError
from asterope.formats import BlockFormat, block

__all__ = [
    "CACHE_FORMATS", "BlockRows", "CacheFormat", "CacheRows", "cache_format",
    "lie_alike", "memory_of_rows",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class BlockRows:
    """Keys or values in E2M1, two codes a byte, the even element low, with the scales of blocks.

    Shapes: codes [..., D / 2], uint8; scales [..., D / block], uint8 of E8M0 or float8_e4m3fn. Both
    lie alike: a stride of one says the other's.
    """

    codes: torch.Tensor
    scales: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of what the codes stand for."""
        return torch.Size((*self.codes.shape[:-1], 2 * self.codes.shape[-1]))

    @property
    def group(self) -> int:
        """How many elements share a scale."""
        return int(self.shape[-1] // self.scales.shape[-1])

    def stride(self) -> tuple[int, ...]:
        """Return the strides of codes, in elements; the last dimension is packed.

        Raises: ShapeError if scales do not lie as codes do.
        """
        strides = tuple(2 * stride for stride in self.codes.stride()[:-1])
        if self.codes.stride(-1) != 1 or strides != tuple(
            self.group * stride for stride in self.scales.stride()[:-1]
        ):
            raise ShapeError(
                f"codes {list(self.codes.shape)} and scales {list(self.scales.shape)} do not lie "
                "alike", where="KV cache",
            )  # fmt: skip
        return (*strides, 1)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.numel() + self.scales.numel()


CacheRows = torch.Tensor | BlockRows
"""One layer's keys or values, [..., D]."""


def memory_of_rows(rows: CacheRows) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return numbers or codes, and scales of blocks if there are any."""
    return (rows.codes, rows.scales) if isinstance(rows, BlockRows) else (rows, None)


def lie_alike(keys: CacheRows, values: CacheRows) -> bool:
    """Tell whether keys and values have one shape, format and way to lie."""
    if isinstance(keys, BlockRows) and isinstance(values, BlockRows):
        alike = keys.group == values.group and keys.scales.dtype == values.scales.dtype
    else:
        alike = type(keys) is type(values)
    return alike and keys.shape == values.shape and keys.stride() == values.stride()


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheFormat:
    """How keys and values are stored: as numbers of a type, in blocks, or as they are computed."""

    name: str
    dtype: torch.dtype | None = None
    blocks: BlockFormat | None = None

    def empty(self, shape: Sequence[int], computed: torch.dtype, device: str) -> CacheRows:
        """Make room for keys or values that are computed in a type.

        Raises: ShapeError as `check` does.
        """
        if self.blocks is None:
            return torch.empty(shape, dtype=self.dtype or computed, device=device)
        self.check(shape[-1])
        group = self.group
        scale = torch.float8_e4m3fn if self.blocks.scale.name == "e4m3" else torch.uint8
        return BlockRows(
            torch.empty((*shape[:-1], shape[-1] // 2), dtype=torch.uint8, device=device),
            torch.empty((*shape[:-1], shape[-1] // group), dtype=scale, device=device),
        )

    def check(self, head_dim: int) -> None:
        """Check that heads of so many elements can be stored: halves of them are rotated apart.

        Raises: ShapeError if blocks do not divide these.
        """
        if not self._fits(head_dim):
            others = (name for name, fmt in CACHE_FORMATS.items() if fmt._fits(head_dim))
            raise ShapeError(
                f"blocks of {self.group} do not divide half a head of {head_dim}",
                where=f"KV cache in {self.name}", hint=f"use {', '.join(others)}",
            )  # fmt: skip

    def _fits(self, head_dim: int) -> bool:
        return self.blocks is None or head_dim % (2 * self.group) == 0

    def bits(self, computed: torch.dtype) -> float:
        """Return the bits of an element, with its part of a scale."""
        if self.blocks is not None:
            return self.blocks.element.bits + self.blocks.scale.bits / self.group
        return 8.0 * (self.dtype or computed).itemsize

    @property
    def largest(self) -> float | None:
        """The largest number under a layer's scale, None where there is no such scale."""
        if self.blocks is None:
            return None if self.dtype is None else torch.finfo(self.dtype).max
        return (
            self.blocks.element.max_value * self.blocks.scale.max_value if self.two_level else None
        )

    @property
    def two_level(self) -> bool:
        """Whether a layer's scale stands above scales of blocks."""
        return self.blocks is not None and self.blocks.two_level

    @property
    def group(self) -> int:
        """How many elements share a scale of a block, 0 if there are no blocks."""
        if self.blocks is None:
            return 0
        assert isinstance(self.blocks.granularity, int)
        return self.blocks.granularity


CACHE_FORMATS: Mapping[str, CacheFormat] = MappingProxyType(
    {
        row.name: row
        for row in (
            CacheFormat(name="auto"),
            CacheFormat(name="fp8", dtype=torch.float8_e4m3fn),
            CacheFormat(name="nvfp4", blocks=block("nvfp4")),
            CacheFormat(name="mxfp4", blocks=block("mxfp4")),
        )
    }
)
"""The formats of a KV cache; `auto` is the type of the activations."""


def cache_format(name: str) -> CacheFormat:
    """Return a format by its name.

    Raises: ConfigError for one that does not exist.
    """
    if name in CACHE_FORMATS:
        return CACHE_FORMATS[name]
    hint = f"use {', '.join(CACHE_FORMATS)}"
    raise ConfigError(f"there is no {name!r}", where="KV cache", hint=hint)

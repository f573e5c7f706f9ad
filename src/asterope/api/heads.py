"""Attention of one layer as `simulate attention` has it: its heads, and a step's sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from asterope import operators
from asterope.chips import Chip
from asterope.errors import ConfigError
from asterope.kernels import (
    AttentionShape,
    CacheFormat,
    Pages,
    attention,
    cache_format,
    paged_attention,
)
from asterope.operators import OperatorTime, check_sizes

__all__ = ["AttentionAsked", "HeadShape", "Sequences"]

_SEED = 200


class AttentionAsked(Protocol):
    """What is timed: its size, its launches, and the GPU operator that does the same."""

    @property
    def batch(self) -> int:
        """Sequences of the step."""

    @property
    def context(self) -> int:
        """Tokens of each sequence, new ones included."""

    @property
    def phase(self) -> str:
        """`decode` or `prefill`."""

    def flop(self, chip: Chip) -> int:
        """Return the floating-point operations that count, of the way that a chip takes."""

    def mapped(self, chip: Chip) -> AttentionShape:
        """Return what the attention kernel chooses blocks for on a chip."""

    def launch(self) -> None:
        """Launch the kernels on tensors without values."""

    def operator(self, chip: Chip) -> OperatorTime:
        """Time the same on a calibrated chip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """The sequences of a step, all alike.

    A decode step appends one token to `batch` sequences of `context` - 1, a prefill reads `context`
    tokens of each. With `page` the cache lies in pages of so many tokens, anywhere in memory.

    Raises: ConfigError for sizes below one, and for pages that are no power of two.
    """

    batch: int
    context: int
    phase: Literal["decode", "prefill"]
    page: int = 0

    def __post_init__(self) -> None:
        check_sizes(batch=self.batch, context=self.context)
        if self.page < 0 or self.page & (self.page - 1):
            raise ConfigError(f"{self.page} is not a power of two", where="page_size")

    @property
    def tokens(self) -> int:
        """New tokens of each sequence."""
        return 1 if self.phase == "decode" else self.context

    @property
    def past(self) -> int:
        """Tokens of each sequence before the new ones."""
        return self.context - self.tokens

    def pages(self) -> Pages:
        """Return tables of pages that lie in no order, always the same."""
        each = -(-self.context // self.page)
        generator = torch.Generator().manual_seed(_SEED)
        order = torch.randperm(self.batch * each, generator=generator, dtype=torch.int32)
        return Pages(
            tables=order.view(self.batch, each),
            lengths=torch.full((self.batch,), self.context, dtype=torch.int32),
            starts=torch.arange(self.batch + 1, dtype=torch.int32) * self.tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadShape(Sequences):
    """Attention of one layer in bf16: query heads, key heads, their size, and a step's sequences.

    Keys and values are in a format of `kernels.CACHE_FORMATS`.

    Raises: as `Sequences`; ConfigError for query heads that do not share key heads evenly, and for
    a format that does not exist; ShapeError if its blocks do not divide half a head.
    """

    heads: int
    kv_heads: int
    size: int
    cache: str = "auto"

    def __post_init__(self) -> None:
        Sequences.__post_init__(self)
        check_sizes(heads=self.heads, kv_heads=self.kv_heads, size=self.size)
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"{self.heads} query heads do not share {self.kv_heads} key heads evenly",
                where="heads",
            )
        self._format.check(self.size)

    @property
    def _format(self) -> CacheFormat:
        return cache_format(self.cache)

    def flop(self, chip: Chip) -> int:
        """Return the operations: a query and a key that it sees take four for each element."""
        del chip  # they are the same on each
        pairs = self.tokens * (2 * self.context - self.tokens + 1) // 2
        return 4 * self.batch * self.heads * self.size * pairs

    def mapped(self, chip: Chip) -> AttentionShape:
        """Return what the kernel chooses blocks for."""
        del chip  # it is the same on each
        return AttentionShape(
            batch=self.batch, kv_heads=self.kv_heads, share=self.heads // self.kv_heads,
            dim=self.size, tokens=self.tokens, past=self.past, page=self.page,
            cache_bits=self._format.bits(torch.bfloat16), group=self._format.group,
        )  # fmt: skip

    def launch(self) -> None:
        """Launch the kernel on tensors without values."""
        rows, scale = self.batch * self.tokens, self.size**-0.5
        q = torch.empty((rows, self.heads, self.size), dtype=torch.bfloat16, device="meta")
        if not self.page:
            whole = (self.batch, self.kv_heads, self.context, self.size)
            keys, values = (self._format.empty(whole, q.dtype, "meta") for _ in "kv")
            attention(q, keys, values, past=self.past, scale=scale)
            return
        pages = self.pages()
        paged = (pages.tables.numel(), self.page, self.kv_heads, self.size)
        keys, values = (self._format.empty(paged, q.dtype, "meta") for _ in "kv")
        paged_attention(q, keys, values, pages, scale=scale)

    def operator(self, chip: Chip) -> OperatorTime:
        """Time the same on a calibrated chip, whose operators know no pages.

        Raises: as `operators.attention_decode`.
        """
        heads = operators.Heads(
            query=self.heads,
            key_value=self.kv_heads,
            dim=self.size,
            cache_bits=self._format.bits(torch.bfloat16),
        )
        if self.phase == "decode":
            return operators.attention_decode(chip, heads, batch=self.batch, keys=self.context)
        return operators.attention_prefill(chip, heads, batch=self.batch, queries=self.context)

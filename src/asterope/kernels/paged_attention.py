"""Attention over a KV cache in pages, as servers keep it: any number of new tokens a sequence.

Sequences of one call may be at different places, some decoding and some reading a chunk of their
prompt. Values are bit for bit those of `attention` over the same keys in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.attend_blocks import attend_blocks
from asterope.kernels.attend_rows import attend_rows
from asterope.kernels.attention import attention_reference
from asterope.kernels.attention_cycles import AttentionShape
from asterope.kernels.cache_formats import CacheRows, lie_alike
from asterope.kernels.cached_operands import CachedOperands, cache_shape
from asterope.kernels.key_parts import KeyParts

__all__ = ["Pages", "paged_attention", "paged_attention_reference"]


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """Which pages hold each sequence's keys, how many keys it has, and which rows are its new ones.

    The last keys of a sequence are those of its new tokens. Page sizes are powers of two.

    Shapes: tables [B, pages], lengths [B], starts [B + 1], int32; rows starts[b] to starts[b + 1]
    are those of sequence b.
    """

    tables: torch.Tensor
    lengths: torch.Tensor
    starts: torch.Tensor

    def check(self, kernel: str, rows: int, num_pages: int, page_size: int) -> None:
        """Check that so many rows, and pages of a cache, are those that are named.

        Raises: ShapeError.
        """
        batch = len(self.lengths)
        whole = {"tables": self.tables, "lengths": self.lengths, "starts": self.starts}
        for name, given in whole.items():
            if given.dtype != torch.int32 or not given.is_contiguous() or given.is_meta:
                raise ShapeError(
                    f"{name} are not contiguous int32 with values, which kernels go by",
                    where=kernel,
                )
        if self.tables.dim() != 2 or len(self.tables) != batch or self.starts.shape != (batch + 1,):
            raise ShapeError(
                f"tables {list(self.tables.shape)}, lengths {list(self.lengths.shape)} and starts "
                f"{list(self.starts.shape)} are not of one number of sequences", where=kernel,
            )  # fmt: skip
        if page_size & (page_size - 1):
            raise ShapeError(f"pages of {page_size} tokens: not a power of two", where=kernel)
        starts, tokens = self.starts.tolist(), self.starts.diff()
        if starts[0] != 0 or starts[-1] != rows or bool((tokens < 0).any()):
            raise ShapeError(f"starts do not go from 0 to {rows} rows", where=kernel)
        room = self.tables.shape[1] * page_size
        if bool((self.lengths < tokens).any()) or bool((self.lengths > room).any()):
            raise ShapeError(
                f"lengths are not from a sequence's new tokens to {room}, all of its pages",
                where=kernel,
            )
        used = torch.arange(self.tables.shape[1])[None, :] * page_size < self.lengths[:, None]
        named = self.tables[used]
        if named.numel() and not 0 <= int(named.min()) <= int(named.max()) < num_pages:
            raise ShapeError(f"a table names a page outside 0..{num_pages - 1}", where=kernel)

    @property
    def most_tokens(self) -> int:
        """The most new tokens of a sequence."""
        return int(self.starts.diff().max())

    @property
    def most_keys(self) -> int:
        """The most keys of a sequence."""
        return int(self.lengths.max())


@triton.jit
def _paged_attention_kernel(
    q, k_cache, k_scales, v_cache, v_scales, out, bests, totals, scale, v_scale, tables, lengths,
    starts, window, stride_table, stride_page, stride_token, stride_head, stride_part,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SHARE: tl.constexpr, DIM: tl.constexpr,
    PAGE: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    PART: tl.constexpr, SCALED: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Attend from a block of rows of one sequence, those that share one key head."""
    which = tl.program_id(1)
    batch, head = which // KV_HEADS, which % KV_HEADS
    first_row = tl.load(starts + batch)
    tokens = tl.load(starts + batch + 1) - first_row
    past = tl.load(lengths + batch) - tokens
    table = tables + batch.to(tl.int64) * stride_table
    first_row, cache = first_row.to(tl.int64), head.to(tl.int64) * stride_head
    if GROUP:
        attend_blocks(
            q, k_cache, k_scales, v_cache, v_scales, table, out, bests, totals, scale, v_scale,
            first_row, tokens, past, window, cache, stride_token, stride_page, stride_part, head,
            Q_HEADS, SHARE, DIM, PAGE, WINDOW, ROWS, KEYS, PART, GROUP,
        )  # fmt: skip
    else:
        attend_rows(
            q, None, k_cache, v_cache, None, table, out, bests, totals, scale, v_scale,
            first_row, tokens, past, window, cache, 0,
            DIM, 0, stride_token, 0, stride_page, stride_part, head,
            Q_HEADS, SHARE, DIM, 0, DIM, PAGE, WINDOW, ROWS, KEYS, PART, SCALED, False,
        )  # fmt: skip


def paged_attention(
    q: torch.Tensor,
    k_cache: CacheRows,
    v_cache: CacheRows,
    pages: Pages,
    *,
    scale: float,
    window: int | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> torch.Tensor:
    """Return softmax(q k^T scale) v for the last tokens of sequences whose keys lie in pages.

    Each query sees the keys up to its own position, with a window only the latest so many. A cache
    in fp8 or blocks holds keys and values divided by their scales. What pages hold behind a
    sequence's keys is not read.

    Shapes: q [R, Hq, D]; caches [pages, page size, Hkv, D], as vLLM has them; result [R, Hq D].
    Raises: ShapeError if they do not fit.
    """
    num_pages, page_size, kv_heads, dim = k_cache.shape
    rows, q_heads, _ = q.shape
    out = torch.empty((rows, q_heads * dim), dtype=q.dtype, device=q.device)
    pages.check("paged_attention", rows, num_pages, page_size)
    if rows == 0:
        return out
    share = q_heads // kv_heads
    if q_heads % kv_heads or q.shape[2] != dim or not q.is_contiguous():
        raise ShapeError(
            f"q {list(q.shape)} does not fit {kv_heads} key heads of {dim}, contiguous",
            where="paged_attention",
        )
    if not lie_alike(k_cache, v_cache) or k_cache.stride()[3] != 1:
        raise ShapeError(
            f"keys {list(k_cache.shape)} and values {list(v_cache.shape)} do not lie alike, each "
            "head in one piece", where="paged_attention",
        )  # fmt: skip
    tokens = pages.most_tokens
    shape = AttentionShape(
        batch=len(pages.lengths), kv_heads=kv_heads, share=share, dim=dim, tokens=tokens,
        past=pages.most_keys - tokens, window=window, bits=8 * q.element_size(),
        page=page_size, **cache_shape(k_cache),
    )  # fmt: skip
    parts = KeyParts.of(shape, out)
    grid = triton.cdiv(tokens * share, parts.blocks.rows), shape.batch * kv_heads, parts.count
    cached = CachedOperands.of(q, k_cache, v_cache, key_scale * scale, value_scale)
    _paged_attention_kernel[grid](
        q, *cached.rows, *parts.targets, *cached.factors, pages.tables, pages.lengths, pages.starts,
        window or 0, pages.tables.stride(0), *k_cache.stride()[:3], out.numel(), Q_HEADS=q_heads,
        KV_HEADS=kv_heads, SHARE=share, DIM=dim, PAGE=page_size, WINDOW=window is not None,
        num_stages=parts.blocks.stages, **cached.constants, **parts.constants,
    )  # fmt: skip
    parts.merge(dim)
    return out


def paged_attention_reference(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    pages: Pages,
    *,
    scale: float,
    window: int | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> torch.Tensor:
    """Return what `paged_attention` computes, in float64, sequence by sequence."""
    made = []
    for b, length in enumerate(pages.lengths.tolist()):
        new = q[pages.starts[b] : pages.starts[b + 1]]
        keys, values = (
            cache[pages.tables[b].long()].flatten(0, 1)[:length].transpose(0, 1)[None]
            for cache in (k_cache, v_cache)
        )
        if len(new):
            made.append(
                attention_reference(
                    new, keys, values, past=length - len(new), scale=scale, window=window,
                    key_scale=key_scale, value_scale=value_scale,
                )
            )  # fmt: skip
    return torch.cat(made) if made else q.new_empty((0, q.shape[1] * q.shape[2])).double()

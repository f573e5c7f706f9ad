"""Attention over a KV cache: causal, grouped heads, sliding window, in one pass over the keys.

Few sequences with few key heads leave tiles idle in a decode step. Where a chip is simulated, the
keys may then be cut into parts (`key_parts`), which a second kernel puts together in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.attend_blocks import attend_blocks
from asterope.kernels.attend_rows import attend_rows
from asterope.kernels.attention_cycles import AttentionShape
from asterope.kernels.cache_formats import CacheRows
from asterope.kernels.cached_operands import CachedOperands, cache_shape
from asterope.kernels.key_parts import KeyParts
from asterope.kernels.operands import check_cache, check_vectors

__all__ = ["attention", "attention_reference"]


@triton.jit
def _attention_kernel(
    q, k_cache, k_scales, v_cache, v_scales, sinks, out, bests, totals, scale, v_scale, tokens,
    past, window, stride_batch, stride_head, stride_part,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SHARE: tl.constexpr, DIM: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PART: tl.constexpr,
    SCALED: tl.constexpr, GROUP: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    """Attend from a block of rows, (token, head) pairs that share one key head of a sequence."""
    which = tl.program_id(1)
    batch, head = which // KV_HEADS, which % KV_HEADS
    cache = batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head
    first_row = batch.to(tl.int64) * tokens
    if GROUP:
        attend_blocks(
            q, k_cache, k_scales, v_cache, v_scales, None, out, bests, totals, scale, v_scale,
            first_row, tokens, past, window, cache, DIM, 0, stride_part, head,
            Q_HEADS, SHARE, DIM, 0, WINDOW, ROWS, KEYS, PART, GROUP,
            sinks, SINKS,
        )  # fmt: skip
    else:
        attend_rows(
            q, None, k_cache, v_cache, None, None, out, bests, totals, scale, v_scale,
            first_row, tokens, past, window, cache, 0, DIM, 0, DIM, 0, 0, stride_part, head,
            Q_HEADS, SHARE, DIM, 0, DIM, 0, WINDOW, ROWS, KEYS, PART, SCALED, False,
            sinks, SINKS,
        )  # fmt: skip


def attention(
    q: torch.Tensor,
    k_cache: CacheRows,
    v_cache: CacheRows,
    *,
    past: int,
    scale: float,
    window: int | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return softmax(q k^T scale) v for queries at positions past, past + 1, ...

    Each query sees the keys up to its own position, with a window only the latest so many. A cache
    in fp8 or blocks holds keys and values divided by their scales. With `sinks` the softmax of each
    head has one score more, of a value that is zero.

    Shapes: q [B T, Hq, D]; caches [B, Hkv, S, D] with rows 0 .. past + T filled; sinks [Hq]; result
    [B T, Hq D].
    Raises: ShapeError if they do not fit.
    """
    batch, kv_heads, _, dim = k_cache.shape
    rows, q_heads, _ = q.shape
    out = torch.empty((rows, q_heads * dim), dtype=q.dtype, device=q.device)
    if rows == 0:
        return out
    tokens = check_cache("attention", k_cache, v_cache, rows=rows, past=past)
    share = q_heads // kv_heads
    if q_heads % kv_heads or q.shape[2] != dim or not q.is_contiguous():
        raise ShapeError(
            f"q {list(q.shape)} does not fit {kv_heads} key heads of {dim}, contiguous",
            where="attention",
        )
    check_vectors("attention", q_heads, sinks=sinks)
    shape = AttentionShape(
        batch=batch, kv_heads=kv_heads, share=share, dim=dim, tokens=tokens, past=past,
        window=window, bits=8 * q.element_size(), **cache_shape(k_cache),
    )  # fmt: skip
    parts = KeyParts.of(shape, out)
    grid = triton.cdiv(tokens * share, parts.blocks.rows), batch * kv_heads, parts.count
    cached = CachedOperands.of(q, k_cache, v_cache, key_scale * scale, value_scale)
    _attention_kernel[grid](
        q, *cached.rows, sinks, *parts.targets, *cached.factors, tokens, past, window or 0,
        *k_cache.stride()[:2], out.numel(), Q_HEADS=q_heads, KV_HEADS=kv_heads, SHARE=share,
        DIM=dim, WINDOW=window is not None, SINKS=sinks is not None,
        num_stages=parts.blocks.stages, **cached.constants, **parts.constants,
    )  # fmt: skip
    parts.merge(dim)
    return out


def attention_reference(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    *,
    past: int,
    scale: float,
    window: int | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what `attention` computes, in float64."""
    batch, kv_heads, _, dim = k_cache.shape
    rows, q_heads, _ = q.shape
    tokens = rows // batch
    keys = past + tokens
    query = q.double().view(batch, tokens, kv_heads, q_heads // kv_heads, dim)
    k = k_cache[:, :, :keys].double() * key_scale
    v = v_cache[:, :, :keys].double() * value_scale
    score = torch.einsum("bthsd,bhkd->bhstk", query, k) * scale
    place = past + torch.arange(tokens)[:, None]
    seen = torch.arange(keys)[None, :] <= place
    if window is not None:
        seen &= torch.arange(keys)[None, :] > place - window
    score = score.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        sink = sinks.double().view(kv_heads, -1, 1, 1).expand(batch, -1, -1, tokens, 1)
        score = torch.cat([score, sink], -1)
    weight = score.softmax(-1)[..., :keys]
    return torch.einsum("bhstk,bhkd->bthsd", weight, v).reshape(rows, q_heads * dim)

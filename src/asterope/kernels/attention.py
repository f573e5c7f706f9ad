"""Attention over a KV cache: causal, grouped heads, sliding window, in one pass over the keys."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_cache

__all__ = ["attention", "attention_reference"]

_LOG2E = 1.4426950408889634
_MAX_ROWS = 128
_KEYS = 64


@triton.jit
def _attention_kernel(
    q, k_cache, v_cache, out, scale, tokens, past, window, stride_batch, stride_head,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SHARE: tl.constexpr, DIM: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Rows are (token, head) pairs of the query heads that share one key head."""
    block, which = tl.program_id(0), tl.program_id(1)
    batch, head = which // KV_HEADS, which % KV_HEADS
    rows = block * ROWS + tl.arange(0, ROWS)
    offs_d = tl.arange(0, WIDTH)
    token, share = rows // SHARE, rows % SHARE
    place = past + token
    row_at = (
        batch.to(tl.int64) * tokens * Q_HEADS * DIM + (token * Q_HEADS + head * SHARE + share) * DIM
    )
    on_q = (token < tokens)[:, None] & (offs_d < DIM)[None, :]
    query = tl.load(q + row_at[:, None] + offs_d[None, :], mask=on_q, other=0.0)
    cache = batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head

    best = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    acc = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    last = past + min((block * ROWS + ROWS - 1) // SHARE, tokens - 1)
    first = 0
    if WINDOW:
        oldest = past + (block * ROWS) // SHARE - window + 1
        first = max(oldest, 0) // KEYS * KEYS
    for start in range(first, last + 1, KEYS):
        keys = start + tl.arange(0, KEYS)
        on_k = (keys <= last)[:, None] & (offs_d < DIM)[None, :]
        at = cache + keys[:, None] * DIM + offs_d[None, :]
        k = tl.load(k_cache + at, mask=on_k, other=0.0)
        score = tl.dot(query, tl.trans(k)) * scale
        seen = keys[None, :] <= place[:, None]
        if WINDOW:
            seen = seen & (keys[None, :] > place[:, None] - window)
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(best, tl.max(score, axis=1))
        # A row that has seen no key yet has no maximum to subtract.
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp2(score - shift[:, None])
        fade = tl.exp2(best - shift)
        total = total * fade + tl.sum(weight, axis=1)
        v = tl.load(v_cache + at, mask=on_k, other=0.0)
        acc = tl.dot(weight.to(v.dtype), v, acc * fade[:, None])
        best = higher
    result = acc / total[:, None]
    tl.store(out + row_at[:, None] + offs_d[None, :], result.to(out.dtype.element_ty), mask=on_q)


def attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    *,
    past: int,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """Return softmax(q k^T scale) v for queries at positions past, past + 1, ...

    Each query sees the keys up to its own position, with a window only the latest so many.

    Shapes: q [B T, Hq, D]; caches [B, Hkv, S, D] with rows 0 .. past + T filled; result
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
    block = min(_MAX_ROWS, triton.next_power_of_2(tokens * share))
    _attention_kernel[(triton.cdiv(tokens * share, block), batch * kv_heads)](
        q, k_cache, v_cache, out, scale * _LOG2E, tokens, past, window or 0,
        k_cache.stride(0), k_cache.stride(1),
        Q_HEADS=q_heads, KV_HEADS=kv_heads, SHARE=share, DIM=dim, WINDOW=window is not None,
        ROWS=block, KEYS=_KEYS, WIDTH=triton.next_power_of_2(dim), num_stages=4,
    )  # fmt: skip
    return out


def attention_reference(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    *,
    past: int,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """Return what `attention` computes, in float64."""
    batch, kv_heads, _, dim = k_cache.shape
    rows, q_heads, _ = q.shape
    tokens = rows // batch
    keys = past + tokens
    query = q.double().view(batch, tokens, kv_heads, q_heads // kv_heads, dim)
    k, v = k_cache[:, :, :keys].double(), v_cache[:, :, :keys].double()
    score = torch.einsum("bthsd,bhkd->bhstk", query, k) * scale
    place = past + torch.arange(tokens)[:, None]
    seen = torch.arange(keys)[None, :] <= place
    if window is not None:
        seen &= torch.arange(keys)[None, :] > place - window
    weight = score.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("bhstk,bhkd->bthsd", weight, v).reshape(rows, q_heads * dim)

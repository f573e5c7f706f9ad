"""Attention over a KV cache: causal, grouped heads, sliding window, in one pass over the keys.

Few sequences with few key heads leave tiles idle in a decode step. Where a chip is simulated, the
keys may then be cut into parts, which a second kernel puts together in ascending order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.attention_cycles import AttentionShape
from asterope.kernels.key_blocks import choose_key_blocks
from asterope.kernels.operands import check_cache

__all__ = ["attention", "attention_reference"]

_LOG2E = 1.4426950408889634
_MERGED_ROWS = 4


@triton.jit
def _attention_kernel(
    q, k_cache, v_cache, out, bests, totals, scale, v_scale, tokens, past, window,
    stride_batch, stride_head, stride_part,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SHARE: tl.constexpr, DIM: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
    PART: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Rows are (token, head) pairs of the query heads that share one key head.

    With PART, a program sees so many keys, and stores sums with the maximum they are relative to.
    A cache of fewer bits is widened to the type of the queries; SCALED says that values are
    multiplied by `v_scale`.
    """
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
    end = last + 1
    if PART:
        first += tl.program_id(2) * PART
        end = min(first + PART, end)
    for start in range(first, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        on_k = (keys <= last)[:, None] & (offs_d < DIM)[None, :]
        at = cache + keys[:, None] * DIM + offs_d[None, :]
        k = tl.load(k_cache + at, mask=on_k, other=0.0).to(query.dtype)
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
        v = tl.load(v_cache + at, mask=on_k, other=0.0).to(query.dtype)
        acc = tl.dot(weight.to(v.dtype), v, acc * fade[:, None])
        best = higher
    if SCALED:
        total /= v_scale
    if PART:
        out += tl.program_id(2).to(tl.int64) * stride_part
        stats_at = tl.program_id(2) * (stride_part // DIM) + row_at // DIM
        tl.store(bests + stats_at, best, mask=token < tokens)
        tl.store(totals + stats_at, total, mask=token < tokens)
        result = acc
    else:
        result = acc / total[:, None]
    tl.store(out + row_at[:, None] + offs_d[None, :], result.to(out.dtype.element_ty), mask=on_q)


@triton.jit
def _merge_parts_kernel(
    sums, bests, totals, out, num_rows, stride_part,
    PARTS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add the parts of each row in ascending order, all relative to the row's maximum."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    offs_d = tl.arange(0, WIDTH)
    on = rows < num_rows
    on_d = on[:, None] & (offs_d < DIM)[None, :]
    best = tl.load(bests + rows, mask=on, other=0.0)
    for part in tl.static_range(1, PARTS):  # every row has seen a key in one of the parts
        best = tl.maximum(best, tl.load(bests + part * num_rows + rows, mask=on, other=0.0))
    at = rows[:, None].to(tl.int64) * DIM + offs_d[None, :]
    total = tl.zeros((ROWS,), dtype=tl.float32)
    acc = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for part in tl.static_range(PARTS):
        weight = tl.exp2(tl.load(bests + part * num_rows + rows, mask=on, other=0.0) - best)
        total += tl.load(totals + part * num_rows + rows, mask=on, other=1.0) * weight
        acc += tl.load(sums + at, mask=on_d, other=0.0) * weight[:, None]
        at += stride_part
    tl.store(out + rows[:, None].to(tl.int64) * DIM + offs_d[None, :],
             (acc / total[:, None]).to(out.dtype.element_ty), mask=on_d)  # fmt: skip


def attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    *,
    past: int,
    scale: float,
    window: int | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> torch.Tensor:
    """Return softmax(q k^T scale) v for queries at positions past, past + 1, ...

    Each query sees the keys up to its own position, with a window only the latest so many. A cache
    in fp8 holds keys and values divided by their scales.

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
    shape = AttentionShape(
        batch=batch, kv_heads=kv_heads, share=share, dim=dim, tokens=tokens, past=past,
        window=window, bits=8 * q.element_size(), cache_bits=8 * k_cache.element_size(),
    )  # fmt: skip
    blocks = choose_key_blocks(shape)
    parts, width = blocks.parts(shape), triton.next_power_of_2(dim)
    sums, bests, totals = out, None, None
    if parts > 1:
        sums = torch.empty((parts, rows, q_heads * dim), dtype=torch.float32, device=q.device)
        bests, totals = torch.empty((2, parts, rows, q_heads), dtype=torch.float32, device=q.device)
    _attention_kernel[triton.cdiv(tokens * share, blocks.rows), batch * kv_heads, parts](
        q, k_cache, v_cache, sums, bests, totals, scale * key_scale * _LOG2E, value_scale, tokens,
        past, window or 0, k_cache.stride(0), k_cache.stride(1), out.numel(),
        Q_HEADS=q_heads, KV_HEADS=kv_heads, SHARE=share, DIM=dim, WINDOW=window is not None,
        ROWS=blocks.rows, KEYS=blocks.keys, WIDTH=width,
        PART=blocks.part_keys(shape) if parts > 1 else 0, SCALED=value_scale != 1,
        num_stages=blocks.stages,
    )  # fmt: skip
    if parts > 1:
        _merge_parts_kernel[(triton.cdiv(rows * q_heads, _MERGED_ROWS),)](
            sums, bests, totals, out, rows * q_heads, out.numel(),
            PARTS=parts, DIM=dim, ROWS=_MERGED_ROWS, WIDTH=width,
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
    key_scale: float = 1.0,
    value_scale: float = 1.0,
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
    weight = score.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("bhstk,bhkd->bthsd", weight, v).reshape(rows, q_heads * dim)

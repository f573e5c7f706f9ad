"""Attention over latent vectors (MLA): one for each token, which all heads share.

A token's cache is its latent vector and one turned key. Absorbed, queries are brought to the space
of the latents, which are keys and values at once. Expanded, each head has keys and values of its
own made of the latents, and shares only the turned key.

Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.attend_rows import LOG2E, attend_rows
from asterope.kernels.attention_cycles import AttentionShape
from asterope.kernels.head_linear import head_linear
from asterope.kernels.key_parts import KeyParts
from asterope.kernels.latent_way import LatentStep, expands
from asterope.kernels.linear import linear
from asterope.kernels.operands import check_rows_fit
from asterope.kernels.paged_attention import Pages

__all__ = [
    "absorbed_attention",
    "absorbed_attention_reference",
    "expanded_attention",
    "expanded_attention_reference",
    "latent_attention",
]


@triton.jit
def _absorbed_attention_kernel(
    q, turned, cache, out, bests, totals, tables, lengths, starts, scale, cache_scale, tokens, past,
    stride_turned, stride_batch, stride_token, stride_table, stride_part,
    HEADS: tl.constexpr, LATENT: tl.constexpr, ROPE: tl.constexpr, PAGE: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, PART: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Attend from a block of (token, head) rows of a sequence; with PAGE, it has a table."""
    batch = tl.program_id(1)
    first_row, at, table = batch.to(tl.int64) * tokens, batch.to(tl.int64) * stride_batch, tables
    if PAGE:
        first_row = tl.load(starts + batch).to(tl.int64)
        tokens = tl.load(starts + batch + 1) - first_row.to(tl.int32)
        past = tl.load(lengths + batch) - tokens
        at = batch.to(tl.int64) * 0
        table += batch.to(tl.int64) * stride_table
    attend_rows(
        q, turned, cache, cache, cache, table, out, bests, totals, scale, cache_scale,
        first_row, tokens, past, 0, at, at + LATENT, LATENT, stride_turned, stride_token,
        stride_token, stride_batch, stride_part, 0,
        HEADS, HEADS, LATENT, ROPE, LATENT, PAGE, False, ROWS, KEYS, PART, SCALED, True,
    )  # fmt: skip


@triton.jit
def _expanded_attention_kernel(
    q, expanded, cache, out, bests, totals, scale, tokens, past,
    stride_expanded, stride_cache, stride_part,
    HEADS: tl.constexpr, NOPE: tl.constexpr, ROPE: tl.constexpr, VALUE: tl.constexpr,
    LATENT: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Attend from a block of rows of one head of a sequence."""
    batch, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    at = batch.to(tl.int64) * stride_expanded + head * (NOPE + VALUE)
    rope = batch.to(tl.int64) * stride_cache + LATENT
    attend_rows(
        q, q + NOPE, expanded, expanded + NOPE, cache, None, out, bests, totals, scale, 1.0,
        batch.to(tl.int64) * tokens, tokens, past, 0, at, rope, NOPE + ROPE, NOPE + ROPE,
        HEADS * (NOPE + VALUE), LATENT + ROPE, 0, stride_part, head,
        HEADS, 1, NOPE, ROPE, VALUE, 0, False, ROWS, KEYS, PART, False, False,
    )  # fmt: skip


def latent_attention(
    q: torch.Tensor,
    cache: torch.Tensor,
    weight: torch.Tensor,
    *,
    nope: int,
    scale: float,
    past: int = 0,
    pages: Pages | None = None,
) -> torch.Tensor:
    """Return attention of heads whose keys and values are products of latents with a weight.

    It is absorbed or expanded as `latent_way.expands` says, in pages always absorbed. The weight
    has of each head the rows that make its key, then those that make its value.

    Shapes: q [R, Hq, nope + rope], its last elements turned; cache [B, S, L + rope] or pages of it,
    as `absorbed_attention` has it; weight [Hq (nope + V), L]; result [R, Hq V].
    Raises: ShapeError if they do not fit.
    """
    rows, heads, width = q.shape
    latent, outputs = weight.shape[1], len(weight)
    if outputs % heads or width - nope != cache.shape[2] - latent or not weight.is_contiguous():
        raise ShapeError(
            f"q {list(q.shape)}, a weight {list(weight.shape)} and a cache {list(cache.shape)} do "
            "not fit", where="latent_attention",
        )  # fmt: skip
    batch = len(cache) if pages is None else len(pages.lengths)
    tokens = rows // max(batch, 1) if pages is None else pages.most_tokens
    step = LatentStep(
        heads=heads, latent=latent, rope=width - nope, nope=nope, value=outputs // heads - nope,
        batch=batch, tokens=tokens, past=past if pages is None else pages.most_keys - tokens,
        bits=8 * q.element_size(), cache_bits=8 * cache.element_size(),
        page=0 if pages is None else cache.shape[1],
    )  # fmt: skip
    if expands(step):
        expanded = _expand(cache, weight, step.keys)
        return expanded_attention(q, expanded, cache, nope=nope, past=past, scale=scale)
    each = weight.view(heads, -1, latent)
    absorbed = head_linear(q[..., :nope], each[:, :nope].transpose(1, 2))
    mixed = absorbed_attention(absorbed, q[..., nope:], cache, scale=scale, past=past, pages=pages)
    return head_linear(mixed, each[:, nope:]).view(rows, -1)


def _expand(cache: torch.Tensor, weight: torch.Tensor, keys: int) -> torch.Tensor:
    """Return keys and values of all heads for the first tokens of each sequence."""
    latent, (batch, room, width) = weight.shape[1], cache.shape
    if batch == 1 or room == keys:
        rows = cache.view(batch * room, width)[: batch * keys, :latent]
        return linear(rows, weight).view(batch, keys, -1)
    return torch.stack([linear(each[:keys, :latent], weight) for each in cache])


def absorbed_attention(
    q: torch.Tensor,
    turned: torch.Tensor,
    cache: torch.Tensor,
    *,
    scale: float,
    past: int = 0,
    pages: Pages | None = None,
    cache_scale: float = 1.0,
) -> torch.Tensor:
    """Return softmax([q, turned] c^T scale) c for queries over latent vectors c.

    Queries are at positions past, past + 1, ... A row of the cache is a token's latent vector and
    its turned key, which only scores see; all heads share it. With `pages` the cache lies in
    these, and `past` is theirs. In fp8 it holds what is stored divided by `cache_scale`.

    Shapes: q [R, Hq, L]; turned [R, Hq, rope], rows equally far apart; cache [B, S, L + rope], in
    pages [pages, page size, L + rope]; result [R, Hq, L].
    Raises: ShapeError if they do not fit.
    """
    rows, heads, latent = q.shape
    first, room, stored = cache.shape
    rope = turned.shape[2]
    lie = turned.stride(2) == 1 and turned.stride(0) == heads * turned.stride(1)
    fits = turned.shape[:2] == q.shape[:2] and stored == latent + rope and cache.stride(2) == 1
    if not (fits and lie and q.is_contiguous()):
        raise ShapeError(
            f"q {list(q.shape)}, its turned part {list(turned.shape)} and a cache "
            f"{list(cache.shape)} do not fit, each row in one piece", where="absorbed_attention",
        )  # fmt: skip
    out = torch.empty((rows, heads, latent), dtype=q.dtype, device=q.device)
    if pages is not None:
        pages.check("absorbed_attention", rows, first, room)
        batch, tokens = len(pages.lengths), pages.most_tokens
        past = pages.most_keys - tokens
    else:
        batch, tokens = (
            first,
            check_rows_fit("absorbed_attention", rows=rows, batch=first, past=past, capacity=room),
        )
    if rows == 0:
        return out
    shape = AttentionShape(
        batch=batch, kv_heads=1, share=heads, dim=latent, rope=rope, is_latent=True,
        tokens=tokens, past=past, bits=8 * q.element_size(), cache_bits=8 * cache.element_size(),
        page=0 if pages is None else room,
    )  # fmt: skip
    parts = KeyParts.of(shape, out.view(rows, heads * latent))
    tables = (None,) * 3 if pages is None else (pages.tables, pages.lengths, pages.starts)
    stride_table = 0 if pages is None else pages.tables.stride(0)
    grid = triton.cdiv(tokens * heads, parts.blocks.rows), batch, parts.count
    _absorbed_attention_kernel[grid](
        q, turned, cache, *parts.targets, *tables, scale * cache_scale * LOG2E, cache_scale,
        tokens, past, turned.stride(1), *cache.stride()[:2], stride_table, out.numel(),
        HEADS=heads, LATENT=latent, ROPE=rope, PAGE=shape.page, SCALED=cache_scale != 1,
        num_stages=parts.blocks.stages, **parts.constants,
    )  # fmt: skip
    parts.merge(latent)
    return out


def expanded_attention(
    q: torch.Tensor, expanded: torch.Tensor, cache: torch.Tensor, *, nope: int, past: int,
    scale: float,
) -> torch.Tensor:  # fmt: skip
    """Return softmax(q k^T scale) v for heads with keys and values made of latent vectors.

    A head's key is the first `nope` elements of what `expanded` has of it for a token, followed by
    the turned key at the end of the token's cache; its value is the rest.

    Shapes: q [B T, Hq, nope + rope]; expanded [B, past + T, Hq (nope + V)]; cache [B, S, L + rope];
    result [B T, Hq V].
    Raises: ShapeError if they do not fit.
    """
    rows, heads, width = q.shape
    batch, keys, outputs = expanded.shape
    value, rope = outputs // heads - nope, width - nope
    latent = cache.shape[2] - rope
    whole = q.is_contiguous() and expanded.is_contiguous() and cache.stride()[1:] == (
        cache.shape[2], 1
    )  # fmt: skip
    if outputs % heads or min(value, rope, latent) < 1 or len(cache) != batch or not whole:
        raise ShapeError(
            f"q {list(q.shape)}, expanded keys and values {list(expanded.shape)} and a cache "
            f"{list(cache.shape)} do not fit, each in one piece", where="expanded_attention",
        )  # fmt: skip
    tokens = check_rows_fit(
        "expanded_attention", rows=rows, batch=batch, past=past, capacity=min(keys, cache.shape[1])
    )
    out = torch.empty((rows, heads * value), dtype=q.dtype, device=q.device)
    if rows == 0:
        return out
    shape = AttentionShape(
        batch=batch, kv_heads=heads, share=1, dim=nope, rope=rope, value=value, tokens=tokens,
        past=past, bits=8 * q.element_size(), cache_bits=8 * expanded.element_size(),
    )  # fmt: skip
    parts = KeyParts.of(shape, out)
    _expanded_attention_kernel[triton.cdiv(tokens, parts.blocks.rows), batch * heads, parts.count](
        q, expanded, cache, *parts.targets, scale * LOG2E, tokens, past, expanded.stride(0),
        cache.stride(0), out.numel(), HEADS=heads, NOPE=nope, ROPE=rope, VALUE=value,
        LATENT=latent, num_stages=parts.blocks.stages, **parts.constants,
    )  # fmt: skip
    parts.merge(value)
    return out


def absorbed_attention_reference(
    q: torch.Tensor, turned: torch.Tensor, cache: torch.Tensor, *, past: int, scale: float
) -> torch.Tensor:
    """Return what `absorbed_attention` computes over a cache in one piece, in float64."""
    batch, latent = len(cache), q.shape[2]
    query = torch.cat([q, turned], -1).double()
    query = query.view(batch, -1, *query.shape[1:])
    keys = cache[:, : past + query.shape[1]].double()
    weight = _weights(torch.einsum("bthd,bkd->bhtk", query, keys) * scale, past)
    return torch.einsum("bhtk,bkd->bthd", weight, keys[..., :latent]).flatten(0, 1)


def expanded_attention_reference(
    q: torch.Tensor, expanded: torch.Tensor, cache: torch.Tensor, *, nope: int, past: int,
    scale: float,
) -> torch.Tensor:  # fmt: skip
    """Return what `expanded_attention` computes, in float64."""
    batch, heads = len(cache), q.shape[1]
    query = q.double().view(batch, -1, *q.shape[1:])
    keys = past + query.shape[1]
    each = expanded[:, :keys].double().unflatten(2, (heads, -1))
    turned = cache[:, :keys, -(q.shape[2] - nope) :].double()
    score = torch.einsum("bthd,bkhd->bhtk", query[..., :nope], each[..., :nope])
    score = score + torch.einsum("bthd,bkd->bhtk", query[..., nope:], turned)
    weight = _weights(score * scale, past)
    made = torch.einsum("bhtk,bkhd->bthd", weight, each[..., nope:])
    return made.flatten(0, 1).flatten(1)


def _weights(score: torch.Tensor, past: int) -> torch.Tensor:
    tokens, keys = score.shape[-2:]
    seen = torch.arange(keys)[None, :] <= past + torch.arange(tokens)[:, None]
    return score.masked_fill(~seen, float("-inf")).softmax(-1)

"""Before attention over latents: their norm, turned queries and keys, the cache's new rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_rows, check_rows_fit, check_vectors

__all__ = ["turn_and_cache_latents"]


@triton.jit
def _turned(source, cos, sin, on, ROWS: tl.constexpr, HALF: tl.constexpr, WIDTH: tl.constexpr,
            PAIRS: tl.constexpr):  # fmt: skip
    """Return both halves of what rows of 2 * HALF are turned to; `source` points to each row."""
    if PAIRS:  # neighbours come in one run
        offs = tl.arange(0, 2 * WIDTH)[None, :]
        both = tl.load(source + offs, mask=on & (offs < 2 * HALF), other=0.0).to(tl.float32)
        low, high = tl.split(tl.reshape(both, (ROWS, WIDTH, 2)))
    else:
        offs = tl.arange(0, WIDTH)[None, :]
        low = tl.load(source + offs, mask=on & (offs < HALF), other=0.0).to(tl.float32)
        high = tl.load(source + HALF + offs, mask=on & (offs < HALF), other=0.0).to(tl.float32)
    return low * cos - high * sin, high * cos + low * sin


@triton.jit
def _store_turned(low, high, to, on, HALF: tl.constexpr, WIDTH: tl.constexpr):
    offs = tl.arange(0, WIDTH)[None, :]
    on = on & (offs < HALF)
    tl.store(to + offs, low.to(to.dtype.element_ty), mask=on)
    tl.store(to + HALF + offs, high.to(to.dtype.element_ty), mask=on)


@triton.jit
def _turn_and_cache_kernel(
    kv, q, cache, gain, cos, sin, eps, tokens, past, stride_kv, stride_q, stride_batch,
    HEADS: tl.constexpr, LATENT: tl.constexpr, NOPE: tl.constexpr, HALF: tl.constexpr,
    PAIRS: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    batch, place = row // tokens, past + row % tokens
    offs, offs_r = tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    on, on_r = offs < LATENT, offs_r < HALF
    source = kv + row.to(tl.int64) * stride_kv
    to = cache + batch.to(tl.int64) * stride_batch + place.to(tl.int64) * (LATENT + 2 * HALF)
    latent = tl.load(source + offs, mask=on, other=0.0).to(tl.float32)
    normal = latent * tl.rsqrt(tl.sum(latent * latent, axis=0) / LATENT + eps)
    scaled = tl.load(gain + offs, mask=on, other=0.0) * normal.to(kv.dtype.element_ty)
    tl.store(to + offs, scaled.to(cache.dtype.element_ty), mask=on)
    c = tl.load(cos + place * HALF + offs_r, mask=on_r, other=0.0)[None, :]
    s = tl.load(sin + place * HALF + offs_r, mask=on_r, other=0.0)[None, :]
    one = tl.arange(0, 1)[:, None]
    low, high = _turned(source + LATENT + one, c, s, one == 0, 1, HALF, WIDTH, PAIRS)
    _store_turned(low, high, to + LATENT + one, one == 0, HALF, WIDTH)
    heads = tl.arange(0, ROWS)[:, None]
    part = q + row.to(tl.int64) * stride_q + heads * (NOPE + 2 * HALF) + NOPE
    low, high = _turned(part, c, s, heads < HEADS, ROWS, HALF, WIDTH, PAIRS)
    _store_turned(low, high, part, heads < HEADS, HALF, WIDTH)


def turn_and_cache_latents(
    kv: torch.Tensor,
    q: torch.Tensor,
    cache: torch.Tensor,
    gain: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    past: int,
    eps: float,
    pairs: bool,
) -> None:
    """Write each token's normalised latent and turned key into the cache, and turn its queries.

    Of a head's query the last elements are turned, in place. With `pairs` neighbours are turned
    together, as DeepSeek stores them, else elements half a vector apart; what is turned has its
    first halves first.

    Shapes: kv [B T, L + rope]; q [B T, Hq, nope + rope]; cache [B, S, L + rope]; gain [L]; cos, sin
    [S, rope / 2] float32. Rows past .. past + T of the cache are written.
    Raises: ShapeError if they do not fit.
    """
    kernel = "turn_and_cache_latents"
    check_rows(kernel, kv=kv, cos=cos, sin=sin)
    half, latent = cos.shape[1], kv.shape[1] - 2 * cos.shape[1]
    check_vectors(kernel, latent, gain=gain)
    (rows, heads, width), (batch, room, stored) = q.shape, cache.shape
    whole = q.is_contiguous() and cache.stride()[1:] == (stored, 1)
    if rows != len(kv) or stored != kv.shape[1] or width <= 2 * half or not whole:
        raise ShapeError(
            f"kv {list(kv.shape)}, q {list(q.shape)} and a cache {list(cache.shape)} do not fit, "
            "each in one piece", where=kernel,
        )  # fmt: skip
    if rows == 0:
        return
    tokens = check_rows_fit(kernel, rows=rows, batch=batch, past=past, capacity=room)
    if cos.shape != sin.shape or len(cos) < past + tokens:
        raise ShapeError(f"angles of {len(cos)} positions, not {past + tokens}", where=kernel)
    _turn_and_cache_kernel[(rows,)](
        kv, q, cache, gain, cos, sin, eps, tokens, past, kv.stride(0), q.stride(0),
        cache.stride(0), HEADS=heads, LATENT=latent, NOPE=width - 2 * half, HALF=half, PAIRS=pairs,
        BLOCK=triton.next_power_of_2(latent), WIDTH=triton.next_power_of_2(half),
        ROWS=triton.next_power_of_2(heads),
    )  # fmt: skip

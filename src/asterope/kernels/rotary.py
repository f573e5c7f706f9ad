"""After the QKV projection: head norms, rotary embedding, and the KV cache's new rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.block_codes import store_blocks
from asterope.kernels.cache_formats import BlockRows, CacheRows, memory_of_rows
from asterope.kernels.operands import check_cache, check_rows, check_vectors

__all__ = ["rotate_and_cache"]


@triton.jit
def _head_norm(low, high, gain, eps, HALF: tl.constexpr, offs_d):
    """RMSNorm over a head held as two halves."""
    square = tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)
    scale = tl.rsqrt(square / (2 * HALF) + eps)[:, None]
    on = offs_d < HALF
    g_low = tl.load(gain + offs_d, mask=on, other=0.0).to(tl.float32)[None, :]
    g_high = tl.load(gain + HALF + offs_d, mask=on, other=0.0).to(tl.float32)[None, :]
    return low * scale * g_low, high * scale * g_high


@triton.jit
def _heads(
    source, target, scales, stride_head, cos, sin, gain, eps, factor, COUNT: tl.constexpr,
    HALF: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, NORM: tl.constexpr,
    SCALED: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Normalise and rotate COUNT heads of 2 * HALF from `source` into `target`, times a factor.

    With GROUP, so many elements share one of `scales`, and the factor is the scale above these.
    """
    offs_h = tl.arange(0, HEADS)
    offs_d = tl.arange(0, WIDTH)
    on = (offs_h[:, None] < COUNT) & (offs_d[None, :] < HALF)
    at = source + offs_h[:, None] * (2 * HALF) + offs_d[None, :]
    low = tl.load(at, mask=on, other=0.0).to(tl.float32)
    high = tl.load(at + HALF, mask=on, other=0.0).to(tl.float32)
    if NORM:
        low, high = _head_norm(low, high, gain, eps, HALF, offs_d)
        low = low.to(source.dtype.element_ty).to(tl.float32)
        high = high.to(source.dtype.element_ty).to(tl.float32)
    c = tl.load(cos + offs_d, mask=offs_d < HALF, other=0.0)[None, :]
    s = tl.load(sin + offs_d, mask=offs_d < HALF, other=0.0)[None, :]
    first, second = low * c - high * s, high * c + low * s
    if GROUP:
        store_blocks(first, target, scales, factor, stride_head, COUNT, HALF, GROUP)
        target += HALF // 2
        scales += HALF // GROUP
        store_blocks(second, target, scales, factor, stride_head, COUNT, HALF, GROUP)
    else:
        to = target + offs_h[:, None] * stride_head + offs_d[None, :]
        if SCALED:
            first, second = first * factor, second * factor
        tl.store(to, first.to(target.dtype.element_ty), mask=on)
        tl.store(to + HALF, second.to(target.dtype.element_ty), mask=on)


@triton.jit
def _rotate_and_cache_kernel(
    qkv, q, k_cache, k_scales, v_cache, v_scales, cos, sin, q_gain, k_gain, eps, k_factor, v_factor,
    tokens, past, stride_qkv, stride_batch, stride_head,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr,
    Q_BLOCK: tl.constexpr, KV_BLOCK: tl.constexpr, WIDTH: tl.constexpr, SCALED: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    batch = row // tokens
    place = past + row % tokens
    DIM: tl.constexpr = 2 * HALF
    source = qkv + row.to(tl.int64) * stride_qkv
    c, s = cos + place * HALF, sin + place * HALF
    cache = batch.to(tl.int64) * stride_batch + place * DIM
    q_row = q + row.to(tl.int64) * (Q_HEADS * DIM)
    _heads(
        source, q_row, None, DIM, c, s, q_gain, eps, 1.0, Q_HEADS, HALF, Q_BLOCK, WIDTH, NORM,
        False, 0,
    )  # fmt: skip
    if GROUP:  # two codes a byte
        k_scales += cache // GROUP
        v_scales += cache // GROUP
        cache = cache // 2
    k_source = source + Q_HEADS * DIM
    _heads(
        k_source, k_cache + cache, k_scales, stride_head, c, s, k_gain, eps, k_factor, KV_HEADS,
        HALF, KV_BLOCK, WIDTH, NORM, SCALED, GROUP,
    )  # fmt: skip
    v_source = k_source + KV_HEADS * DIM
    offs_h = tl.arange(0, KV_BLOCK)
    offs_d = tl.arange(0, 2 * WIDTH)
    on = (offs_h[:, None] < KV_HEADS) & (offs_d[None, :] < DIM)
    v = tl.load(v_source + offs_h[:, None] * DIM + offs_d[None, :], mask=on, other=0.0)
    if GROUP:
        v = v.to(tl.float32)
        store_blocks(v, v_cache + cache, v_scales, v_factor, stride_head, KV_HEADS, DIM, GROUP)
    else:
        if SCALED:
            v = v.to(tl.float32) * v_factor
        v = v.to(v_cache.dtype.element_ty)
        tl.store(v_cache + cache + offs_h[:, None] * stride_head + offs_d[None, :], v, mask=on)


def rotate_and_cache(
    qkv: torch.Tensor,
    k_cache: CacheRows,
    v_cache: CacheRows,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    q_heads: int,
    past: int,
    q_norm: torch.Tensor | None = None,
    k_norm: torch.Tensor | None = None,
    eps: float = 1e-6,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> torch.Tensor:
    """Rotate q and k by position, write k and v into the cache, return q.

    With `q_norm` and `k_norm` each head is RMS-normalised first (Qwen3). Caches get keys and values
    divided by their scales, rounded to the caches' type; in fp8 what is too large becomes the
    largest number. In blocks they get what `formats.quantize` makes of them, of nvfp4 under these
    scales, in mxfp4 without them.

    Shapes: qkv [B T, (Hq + 2 Hkv) D]; caches [B, Hkv, S, D]; cos, sin [S, D / 2] float32;
    result [B T, Hq, D]. Rows past .. past + T of the caches are written.
    Raises: ShapeError if they do not fit.
    """
    check_rows("rotate_and_cache", qkv=qkv, cos=cos, sin=sin)
    _, kv_heads, _, dim = k_cache.shape
    rows = qkv.shape[0]
    check_vectors("rotate_and_cache", dim, q_norm=q_norm, k_norm=k_norm)
    q = torch.empty((rows, q_heads, dim), dtype=qkv.dtype, device=qkv.device)
    if rows:
        tokens = check_cache("rotate_and_cache", k_cache, v_cache, rows=rows, past=past)
        _check_widths(qkv, cos, sin, (q_heads + 2 * kv_heads) * dim, past + tokens)
        group = k_cache.group if isinstance(k_cache, BlockRows) else 0
        factors = (key_scale, value_scale) if group else (1 / key_scale, 1 / value_scale)
        _rotate_and_cache_kernel[(rows,)](
            qkv, q, *memory_of_rows(k_cache), *memory_of_rows(v_cache), cos, sin, q_norm, k_norm,
            eps, *factors, tokens, past, qkv.stride(0), *k_cache.stride()[:2],
            Q_HEADS=q_heads, KV_HEADS=kv_heads, HALF=dim // 2, NORM=q_norm is not None,
            Q_BLOCK=triton.next_power_of_2(q_heads), KV_BLOCK=triton.next_power_of_2(kv_heads),
            WIDTH=triton.next_power_of_2(dim // 2), SCALED=(key_scale, value_scale) != (1, 1),
            GROUP=group,
        )  # fmt: skip
    return q


def _check_widths(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, width: int, places: int
) -> None:
    if qkv.shape[1] != width:
        raise ShapeError(
            f"qkv {list(qkv.shape)} is not {width} wide, as the heads are", where="rotate_and_cache"
        )
    if (
        cos.shape != sin.shape
        or len(cos) < places
        or not (cos.is_contiguous() and sin.is_contiguous())
    ):
        raise ShapeError(
            f"angles of {len(cos)} and {len(sin)} positions are not those of {places}",
            where="rotate_and_cache",
        )

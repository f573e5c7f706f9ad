"""Products of each head's part of a token with a matrix of its own."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_product_types
from asterope.kernels.tiling import choose_blocks

__all__ = ["head_linear", "head_linear_reference"]


@triton.jit
def _head_linear_kernel(
    x, w, y, M, N, stride_xm, stride_xh, stride_wh, stride_wn, stride_wk, stride_ym, stride_yh,
    K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    head, blocks_n = tl.program_id(1).to(tl.int64), tl.cdiv(N, BLOCK_N)
    offs_m = tl.program_id(0) // blocks_n * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(0) % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    on_m, on_n = offs_m < M, offs_n < N
    offs_k = tl.arange(0, BLOCK_K)
    x_at = x + head * stride_xh + offs_m[:, None].to(tl.int64) * stride_xm + offs_k[None, :]
    w_at = w + head * stride_wh + offs_k[:, None] * stride_wk + offs_n[None, :] * stride_wn
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        on_k = offs_k < K - k
        a = tl.load(x_at, mask=on_m[:, None] & on_k[None, :], other=0.0)
        b = tl.load(w_at, mask=on_k[:, None] & on_n[None, :], other=0.0).to(a.dtype)
        acc = tl.dot(a, b, acc)
        x_at += BLOCK_K
        w_at += BLOCK_K * stride_wk
    to = y + head * stride_yh + offs_m[:, None].to(tl.int64) * stride_ym + offs_n[None, :]
    tl.store(to, acc.to(y.dtype.element_ty), mask=on_m[:, None] & on_n[None, :])


def head_linear(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x W^T for each head's part of x and its W, in `out` if that is given.

    Sums are fp32. Elements of a head's part of x and of `out` lie in one piece; those of weights
    may lie in any order. Types are those of `linear`.

    Shapes: x [M, Hq, K]; weight [Hq, N, K]; result [M, Hq, N].
    Raises: ShapeError if they do not fit; KernelError for other types.
    """
    rows, heads, k = x.shape
    n = weight.shape[1]
    if out is None:
        out = torch.empty((rows, heads, n), dtype=x.dtype, device=x.device)
    fits = weight.shape == (heads, n, k) and out.shape == (rows, heads, n)
    if not fits or x.stride(2) != 1 or out.stride(2) != 1:
        raise ShapeError(
            f"x {list(x.shape)}, weight {list(weight.shape)} and result {list(out.shape)} do not "
            "fit, each head's part in one piece", where="head_linear",
        )  # fmt: skip
    check_product_types("head_linear", x, weight)
    if rows == 0:
        return out
    bits = 8 * x.element_size(), 8 * weight.element_size()
    blocks = choose_blocks(rows * heads, n, k, *bits, experts=heads)
    block_m = min(blocks.m, triton.next_power_of_2(rows))
    grid = triton.cdiv(rows, block_m) * triton.cdiv(n, blocks.n), heads
    _head_linear_kernel[grid](
        x, weight, out, rows, n, *x.stride()[:2], *weight.stride(), *out.stride()[:2], K=k,
        BLOCK_M=block_m, BLOCK_N=blocks.n, BLOCK_K=blocks.k, num_stages=blocks.stages,
    )  # fmt: skip
    return out


def head_linear_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what `head_linear` computes, in float64."""
    return torch.einsum("mhk,hnk->mhn", x.double(), weight.double())

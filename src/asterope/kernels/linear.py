"""Linear layers: y = x W^T, with weights as stored by checkpoints, [out, in]."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_product_types, check_rows, check_vectors
from asterope.kernels.tiling import choose_blocks

__all__ = ["linear", "linear_reference"]


@triton.jit
def block_place(M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):
    """Order programs so that neighbours share operands: GROUP rows of blocks at a time."""
    pid = tl.program_id(0)
    num_m = tl.cdiv(M, BLOCK_M)
    num_n = tl.cdiv(N, BLOCK_N)
    in_group = GROUP * num_n
    first_m = (pid // in_group) * GROUP
    rows = min(num_m - first_m, GROUP)
    return first_m + (pid % in_group) % rows, (pid % in_group) // rows


@triton.jit
def store_output(
    acc, y, x_scale, w_scale, bias, offs_m, offs_n, M, N, stride_y,
    X_SCALE: tl.constexpr, W_SCALE: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Multiply by the scales of rows and columns, add the bias, store."""
    on_m, on_n = offs_m < M, offs_n < N
    if X_SCALE:
        acc = acc * tl.load(x_scale + offs_m, mask=on_m, other=0.0)[:, None]
    if W_SCALE:
        acc = acc * tl.load(w_scale + offs_n, mask=on_n, other=0.0)[None, :]
    if BIAS:
        acc = acc + tl.load(bias + offs_n, mask=on_n, other=0.0).to(tl.float32)[None, :]
    where = y + offs_m[:, None].to(tl.int64) * stride_y + offs_n[None, :]
    tl.store(where, acc.to(y.dtype.element_ty), mask=on_m[:, None] & on_n[None, :])


@triton.jit
def _linear_kernel(
    x, w, y, x_scale, w_scale, bias, M, N, K, stride_x, stride_w, stride_y,
    X_SCALE: tl.constexpr, W_SCALE: tl.constexpr, BIAS: tl.constexpr, EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    m, n = block_place(M, N, BLOCK_M, BLOCK_N, GROUP)
    offs_m = m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = n * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    x_at = x + offs_m[:, None].to(tl.int64) * stride_x + offs_k[None, :]
    w_at = w + offs_n[:, None].to(tl.int64) * stride_w + offs_k[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        if EVEN_K:
            a = tl.load(x_at, mask=offs_m[:, None] < M, other=0.0)
            b = tl.load(w_at, mask=offs_n[:, None] < N, other=0.0)
        else:
            on_k = offs_k[None, :] < K - k
            a = tl.load(x_at, mask=(offs_m[:, None] < M) & on_k, other=0.0)
            b = tl.load(w_at, mask=(offs_n[:, None] < N) & on_k, other=0.0)
        if a.dtype.primitive_bitwidth > b.dtype.primitive_bitwidth:
            b = b.to(a.dtype)
        acc = tl.dot(a, tl.trans(b), acc)
        x_at += BLOCK_K
        w_at += BLOCK_K
    store_output(
        acc, y, x_scale, w_scale, bias, offs_m, offs_n, M, N, stride_y, X_SCALE, W_SCALE, BIAS
    )


def check_linear(x: torch.Tensor, weight: torch.Tensor, in_features: int) -> None:
    """Check what every linear kernel asks of its operands.

    Raises: ShapeError.
    """
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != in_features:
        raise ShapeError(
            f"x {list(x.shape)} does not fit weight {list(weight.shape)} of {in_features} inputs",
            where="linear",
            hint="x is [tokens, in], weight [out, in]",
        )
    check_rows("linear", x=x, weight=weight)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    x_scale: torch.Tensor | None = None,
    weight_scale: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return x W^T, times the scales of x's rows and of W's rows, plus the bias.

    x and weight are both fp32, bf16, fp16 or fp8 (e4m3, e5m2); an fp8 weight is widened to x's type
    on its way in. Sums are fp32.

    Shapes: x [M, K]; weight [N, K]; bias [N]; x_scale [M]; weight_scale [N]; result [M, N].
    Raises: ShapeError if they do not fit; KernelError for other types.
    """
    check_linear(x, weight, weight.shape[1] if weight.dim() == 2 else -1)
    check_product_types("linear", x, weight)
    (m, k), n = x.shape, weight.shape[0]
    check_vectors("linear", n, bias=bias, weight_scale=weight_scale)
    check_vectors("linear", m, x_scale=x_scale)
    y = torch.empty((m, n), dtype=out_dtype or x.dtype, device=x.device)
    if m == 0 or n == 0:
        return y
    blocks = choose_blocks(m, n, k, 8 * x.element_size(), 8 * weight.element_size())
    grid = (triton.cdiv(m, blocks.m) * triton.cdiv(n, blocks.n),)
    _linear_kernel[grid](
        x, weight, y, x_scale, weight_scale, bias, m, n, k,
        x.stride(0), weight.stride(0), y.stride(0),
        X_SCALE=x_scale is not None, W_SCALE=weight_scale is not None, BIAS=bias is not None,
        EVEN_K=k % blocks.k == 0, BLOCK_M=blocks.m, BLOCK_N=blocks.n, BLOCK_K=blocks.k,
        GROUP=blocks.group, num_stages=blocks.stages,
    )  # fmt: skip
    return y


def linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    x_scale: torch.Tensor | None = None,
    weight_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what `linear` computes, in float64."""
    y = x.double() @ weight.double().T
    if x_scale is not None:
        y = y * x_scale.double()[:, None]
    if weight_scale is not None:
        y = y * weight_scale.double()[None, :]
    return y if bias is None else y + bias.double()

"""Linear layers with fp8 weights that have a float32 scale for each 128 inputs (fp8_block128)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.experts import ExpertRows, Spread, num_experts
from asterope.kernels.linear import check_linear
from asterope.kernels.operands import check_product_types, check_vectors
from asterope.kernels.product import add_parts, row_block, store_output
from asterope.kernels.quantize import SCALED_DEPTH
from asterope.kernels.scaled_linear import ScaledOperand
from asterope.kernels.tiling import choose_blocks

__all__ = ["block_linear", "block_linear_reference"]


@triton.jit
def _block_linear_kernel(
    x, x_scales, x_row, w, w_scales, y, bias, starts, row_blocks, M, N, K,
    stride_x, stride_w, stride_y, stride_xs, stride_ws,
    X_SCALES: tl.constexpr, X_ROW: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    EVEN_K: tl.constexpr, PART_K: tl.constexpr, EXPERTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    n, expert, row, M = row_block(starts, row_blocks, M, N, EXPERTS, WIDTH, BLOCK_M, BLOCK_N, GROUP)
    first, end = 0, K
    if EXPERTS:
        w += expert.to(tl.int64) * N * stride_w
        w_scales += expert * N
        end = tl.where(row < M, K, 0)
        if BIAS:
            bias += expert * N
    offs_m = row + tl.arange(0, BLOCK_M)
    offs_n = n * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    on_m, on_n = offs_m < M, offs_n < N
    x_at = x + offs_m[:, None].to(tl.int64) * stride_x + offs_k[None, :]
    w_at = w + offs_n[:, None].to(tl.int64) * stride_w + offs_k[None, :]
    if PART_K:
        first = tl.program_id(1) * PART_K
        end = min(first + PART_K, K)
        x_at += first
        w_at += first
        y += tl.program_id(1).to(tl.int64) * M * stride_y
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(first, end, BLOCK_K):
        if EVEN_K:
            a = tl.load(x_at, mask=on_m[:, None], other=0.0)
            b = tl.load(w_at, mask=on_n[:, None], other=0.0)
        else:
            on_k = offs_k[None, :] < K - k
            a = tl.load(x_at, mask=on_m[:, None] & on_k, other=0.0)
            b = tl.load(w_at, mask=on_n[:, None] & on_k, other=0.0)
        if a.dtype.primitive_bitwidth > b.dtype.primitive_bitwidth:
            b = b.to(a.dtype)
        part = tl.dot(a, tl.trans(b))
        if X_SCALES:
            scale = tl.load(x_scales + k // BLOCK_K * stride_xs + offs_m, mask=on_m, other=0.0)
            part *= scale[:, None]
        scale = tl.load(w_scales + k // BLOCK_K * stride_ws + offs_n, mask=on_n, other=0.0)
        part *= scale[None, :]
        acc += part
        x_at += BLOCK_K
        w_at += BLOCK_K
    store_output(acc, y, x_row, None, bias, offs_m, offs_n, M, N, stride_y, X_ROW, False, BIAS)


def block_linear(
    x: ScaledOperand,
    weight: ScaledOperand,
    *,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    experts: ExpertRows | None = None,
) -> torch.Tensor:
    """Return x W^T, each product of 128 inputs summed in fp32, then scaled, then added up in fp32.

    The weight is e4m3 with float32 scales [N, K / 128], rounded up; x is too, or has a scale a row,
    or is unquantized. The kernel reads scales of one step along rows, so they are turned before.
    With `experts` the weight is theirs, one below another, as in `linear`.

    Shapes: result [M, N] for x of shape [M, K] and weight of shape [N, K], or [E x N, K].
    Raises: ShapeError if they do not fit; KernelError for other types.
    """
    (m, k), (all_n, _) = x.shape, weight.shape
    n = check_linear(x.codes, weight.codes, weight.shape[1], experts)
    check_product_types("linear", x.codes, weight.codes)
    x_scales = None if x.scales is None else _by_step("x", x.scales, m, k)
    if weight.scales is None:
        raise ShapeError("weight has no scales of blocks", where="linear")
    w_scales = _by_step("weight", weight.scales, all_n, k)
    check_vectors("linear", all_n, bias=bias)
    check_vectors("linear", m, x_row_scale=x.row_scale)
    y = torch.empty((m, n), dtype=out_dtype, device=x.codes.device)
    if m == 0 or n == 0:
        return y
    blocks = choose_blocks(
        m, n, k, 8 * x.codes.element_size(), 8, k_step=SCALED_DEPTH, scale_step=SCALED_DEPTH,
        experts=num_experts(experts),
    )  # fmt: skip
    parts = blocks.parts(k)
    sums = y if parts == 1 else torch.empty((parts, m, n), dtype=torch.float32, device=y.device)
    rest = (x.row_scale, bias) if parts == 1 else (None, None)
    spread = Spread.of(experts, m, blocks.m)
    _block_linear_kernel[spread.row_blocks * triton.cdiv(n, blocks.n), parts](
        x.codes, x_scales, rest[0], weight.codes, w_scales, sums, rest[1], *spread.args,
        m, n, k, x.codes.stride(0), weight.codes.stride(0), sums.stride(-2), m, all_n,
        X_SCALES=x_scales is not None, X_ROW=rest[0] is not None, BIAS=rest[1] is not None,
        BLOCK_M=blocks.m, BLOCK_N=blocks.n, BLOCK_K=SCALED_DEPTH, GROUP=blocks.group,
        EVEN_K=k % SCALED_DEPTH == 0, PART_K=blocks.part_depth(k) if parts > 1 else 0,
        **spread.constants, num_stages=blocks.stages * blocks.k // SCALED_DEPTH,
    )  # fmt: skip
    if parts > 1:
        add_parts(sums, y, x_scale=x.row_scale, weight_scale=None, bias=bias)
    return y


def block_linear_reference(
    x: ScaledOperand, weight: ScaledOperand, *, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what `block_linear` computes, in float64."""

    def values(operand: ScaledOperand) -> torch.Tensor:
        made = operand.codes.double()
        if operand.scales is not None:
            scales = operand.scales.double().repeat_interleave(SCALED_DEPTH, 1)
            made = made * scales[:, : made.shape[1]]
        return made if operand.row_scale is None else made * operand.row_scale.double()[:, None]

    y = values(x) @ values(weight).T
    return y if bias is None else y + bias.double()


def _by_step(name: str, scales: torch.Tensor, rows: int, k: int) -> torch.Tensor:
    """Return scales [R, K / 128] as [K / 128, R]."""
    wanted = [rows, triton.cdiv(k, SCALED_DEPTH)]
    if list(scales.shape) != wanted:
        raise ShapeError(f"{name}_scales are {list(scales.shape)}, not {wanted}", where="linear")
    return scales.T.contiguous()

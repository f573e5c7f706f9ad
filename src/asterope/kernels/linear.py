"""Linear layers: y = x W^T, with weights as stored by checkpoints, [out, in]."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.blocks import Blocks
from asterope.kernels.experts import ExpertRows, Spread, num_experts
from asterope.kernels.operands import check_product_types, check_rows, check_vectors
from asterope.kernels.product import add_parts, row_block, store_output
from asterope.kernels.stationary import walk_product
from asterope.kernels.tiling import choose_blocks

__all__ = ["linear", "linear_reference"]


@triton.jit
def _linear_kernel(
    x, w, y, x_scale, w_scale, bias, addend, starts, row_blocks, M, N, K,
    stride_x, stride_w, stride_y,
    X_SCALE: tl.constexpr, W_SCALE: tl.constexpr, BIAS: tl.constexpr, ADDEND: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    PART_K: tl.constexpr, EXPERTS: tl.constexpr, WIDTH: tl.constexpr,
    X_POLICY: tl.constexpr, W_POLICY: tl.constexpr,
):  # fmt: skip
    n, expert, row, M = row_block(starts, row_blocks, M, N, EXPERTS, WIDTH, BLOCK_M, BLOCK_N, GROUP)
    first, end = 0, K
    if EXPERTS:
        w += expert.to(tl.int64) * N * stride_w
        end = tl.where(row < M, K, 0)
        if W_SCALE:
            w_scale += expert * N
        if BIAS:
            bias += expert * N
    offs_m = row + tl.arange(0, BLOCK_M)
    offs_n = n * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
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
            on_m, on_n = offs_m[:, None] < M, offs_n[:, None] < N
        else:
            on_k = offs_k[None, :] < K - k
            on_m, on_n = (offs_m[:, None] < M) & on_k, (offs_n[:, None] < N) & on_k
        a = tl.load(x_at, mask=on_m, other=0.0, eviction_policy=X_POLICY)
        b = tl.load(w_at, mask=on_n, other=0.0, eviction_policy=W_POLICY)
        if a.dtype.primitive_bitwidth > b.dtype.primitive_bitwidth:
            b = b.to(a.dtype)
        acc = tl.dot(a, tl.trans(b), acc)
        x_at += BLOCK_K
        w_at += BLOCK_K
    if ADDEND:
        on = (offs_m < M)[:, None] & (offs_n < N)[None, :]
        if PART_K:
            on = on & (first == 0)
        at = addend + offs_m[:, None].to(tl.int64) * N + offs_n[None, :]
        acc += tl.load(at, mask=on, other=0.0).to(tl.float32)
    store_output(
        acc, y, x_scale, w_scale, bias, offs_m, offs_n, M, N, stride_y, X_SCALE, W_SCALE, BIAS
    )


def check_linear(
    x: torch.Tensor, weight: torch.Tensor, in_features: int, experts: ExpertRows | None = None
) -> int:
    """Check what every linear kernel asks of its operands; return the outputs of one expert.

    Raises: ShapeError.
    """
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != in_features:
        raise ShapeError(
            f"x {list(x.shape)} does not fit weight {list(weight.shape)} of {in_features} inputs",
            where="linear",
            hint="x is [tokens, in], weight [out, in]",
        )
    check_rows("linear", x=x, weight=weight)
    return len(weight) if experts is None else experts.check("linear", len(x), len(weight))


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    addend: torch.Tensor | None = None,
    x_scale: torch.Tensor | None = None,
    weight_scale: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    experts: ExpertRows | None = None,
) -> torch.Tensor:
    """Return x W^T plus the addend, times the scales of x's rows and of W's rows, plus the bias.

    With `experts` the weight is theirs, one below another, and rows of x are multiplied by that of
    the expert they are of; each row is what the product of that expert alone gives.

    x and weight are both fp32, bf16, fp16 or fp8 (e4m3, e5m2); an fp8 weight is widened to x's type
    on its way in. Sums are fp32.

    Shapes: x [M, K]; weight [N, K]; bias [N]; addend [M, N]; x_scale [M]; weight_scale [N]; result
    [M, N]. Of E experts: weight [E x N, K], bias and weight_scale [E x N].
    Raises: ShapeError if they do not fit; KernelError for other types.
    """
    n = check_linear(x, weight, weight.shape[1] if weight.dim() == 2 else -1, experts)
    check_product_types("linear", x, weight)
    m, k = x.shape
    check_vectors("linear", len(weight), bias=bias, weight_scale=weight_scale)
    check_vectors("linear", m, x_scale=x_scale)
    if addend is not None and (tuple(addend.shape) != (m, n) or not addend.is_contiguous()):
        raise ShapeError(
            f"addend {list(addend.shape)} is not {[m, n]} in one piece", where="linear",
            hint="call .contiguous()",
        )  # fmt: skip
    y = torch.empty((m, n), dtype=out_dtype or x.dtype, device=x.device)
    if m == 0 or n == 0:
        return y

    def launch(blocks: Blocks) -> None:
        _launch(blocks, x, weight, y, x_scale, weight_scale, bias, addend, experts)

    blocks = choose_blocks(
        m, n, k, 8 * x.element_size(), 8 * weight.element_size(), experts=num_experts(experts),
        play=launch,
    )  # fmt: skip
    launch(blocks)
    return y


def _launch(
    blocks: Blocks, x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor,
    x_scale: torch.Tensor | None, weight_scale: torch.Tensor | None, bias: torch.Tensor | None,
    addend: torch.Tensor | None, experts: ExpertRows | None,
) -> None:  # fmt: skip
    (m, n), k = y.shape, x.shape[1]
    if blocks.stationary != "y":
        walk_product(
            blocks, x, weight, y, k, x_scale=x_scale, weight_scale=weight_scale, bias=bias,
            addend=addend,
        )  # fmt: skip
        return
    parts = blocks.parts(k)
    sums = y if parts == 1 else torch.empty((parts, m, n), dtype=torch.float32, device=x.device)
    rest = (x_scale, weight_scale, bias) if parts == 1 else (None, None, None)
    spread = Spread.of(experts, m, blocks.m)
    _linear_kernel[spread.row_blocks * triton.cdiv(n, blocks.n), parts](
        x, weight, sums, *rest, addend, *spread.args, m, n, k,
        x.stride(0), weight.stride(0), sums.stride(-2),
        X_SCALE=rest[0] is not None, W_SCALE=rest[1] is not None, BIAS=rest[2] is not None,
        ADDEND=addend is not None,
        EVEN_K=k % blocks.k == 0, BLOCK_M=blocks.m, BLOCK_N=blocks.n, BLOCK_K=blocks.k,
        GROUP=blocks.group, PART_K=blocks.part_depth(k) if parts > 1 else 0,
        X_POLICY=blocks.policy("x"), W_POLICY=blocks.policy("w"),
        **spread.constants, num_stages=blocks.stages,
    )  # fmt: skip
    if parts > 1:
        add_parts(sums, y, x_scale=x_scale, weight_scale=weight_scale, bias=bias)


def linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    addend: torch.Tensor | None = None,
    x_scale: torch.Tensor | None = None,
    weight_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what `linear` computes, in float64."""
    y = x.double() @ weight.double().T
    if addend is not None:
        y = y + addend.double()
    if x_scale is not None:
        y = y * x_scale.double()[:, None]
    if weight_scale is not None:
        y = y * weight_scale.double()[None, :]
    return y if bias is None else y + bias.double()

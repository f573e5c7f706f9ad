"""Linear layers with block-scaled weights (mxfp8, mxfp6, mxfp4, nvfp4), on the tensor unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.blocks import Blocks
from asterope.kernels.experts import ExpertRows, Spread, num_experts
from asterope.kernels.linear import check_linear
from asterope.kernels.operands import check_rows, check_vectors
from asterope.kernels.product import add_parts, row_block, store_output
from asterope.kernels.stationary import walk_product
from asterope.kernels.tiling import choose_blocks

__all__ = ["ScaledOperand", "scaled_linear"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledOperand:
    """Codes of a matrix with the scales of its blocks along K.

    Shapes: codes [R, K] (e4m3, e5m2 bytes or bf16), [R, K / 2] packed for e2m1, even element low;
    scales [R, K / group], uint8 of E8M0 or float8_e4m3fn, None where there are none;
    row_scale [R] float32, None where there is none.
    """

    codes: torch.Tensor
    format: str
    scales: torch.Tensor | None = None
    row_scale: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and K."""
        rows, k = self.codes.shape
        return rows, k * (2 if self.format == "e2m1" else 1)

    @property
    def group(self) -> int:
        """How many elements share a scale."""
        return self.shape[1] // self.scales.shape[1] if self.scales is not None else self.shape[1]


@triton.jit
def _scaled_linear_kernel(
    x, x_blocks, x_row, w, w_blocks, w_row, y, bias, starts, row_blocks, M, N, K,
    stride_x, stride_xs, stride_w, stride_ws, stride_y,
    X_FORMAT: tl.constexpr, X_BLOCKS: tl.constexpr, X_ROW: tl.constexpr,
    W_FORMAT: tl.constexpr, W_ROW: tl.constexpr, BIAS: tl.constexpr, SCALE_GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    PART_K: tl.constexpr, EXPERTS: tl.constexpr, WIDTH: tl.constexpr,
    X_POLICY: tl.constexpr, W_POLICY: tl.constexpr,
):  # fmt: skip
    X_PACK: tl.constexpr = 2 if X_FORMAT == "e2m1" else 1
    W_PACK: tl.constexpr = 2 if W_FORMAT == "e2m1" else 1
    n, expert, row, M = row_block(starts, row_blocks, M, N, EXPERTS, WIDTH, BLOCK_M, BLOCK_N, GROUP)
    first, end = 0, K
    if EXPERTS:
        w += expert.to(tl.int64) * N * stride_w
        w_blocks += expert.to(tl.int64) * N * stride_ws
        end = tl.where(row < M, K, 0)
        if W_ROW:
            w_row += expert * N
        if BIAS:
            bias += expert * N
    offs_m = row + tl.arange(0, BLOCK_M)
    offs_n = n * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_xk = tl.arange(0, BLOCK_K // X_PACK)
    offs_wk = tl.arange(0, BLOCK_K // W_PACK)
    offs_s = tl.arange(0, BLOCK_K // SCALE_GROUP)
    on_m, on_n = offs_m[:, None] < M, offs_n[:, None] < N
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    rows, columns = offs_m[:, None].to(tl.int64), offs_n[:, None].to(tl.int64)
    if PART_K:
        first = tl.program_id(1) * PART_K
        end = min(first + PART_K, K)
        y += tl.program_id(1).to(tl.int64) * M * stride_y
    for k in range(first, end, BLOCK_K):
        left_x = (K - k) // X_PACK
        left_w = (K - k) // W_PACK
        left_s = (K - k) // SCALE_GROUP
        x_at = x + rows * stride_x + k // X_PACK + offs_xk[None, :]
        w_at = w + columns * stride_w + k // W_PACK + offs_wk[None, :]
        ws_at = w_blocks + columns * stride_ws + k // SCALE_GROUP + offs_s[None, :]
        a = tl.load(x_at, mask=on_m & (offs_xk[None, :] < left_x), eviction_policy=X_POLICY)
        b = tl.load(w_at, mask=on_n & (offs_wk[None, :] < left_w), eviction_policy=W_POLICY)
        b_scale = tl.load(ws_at, mask=on_n & (offs_s[None, :] < left_s), eviction_policy=W_POLICY)
        if X_BLOCKS:
            xs_at = x_blocks + rows * stride_xs + k // SCALE_GROUP + offs_s[None, :]
            on_s = on_m & (offs_s[None, :] < left_s)
            a_scale = tl.load(xs_at, mask=on_s, eviction_policy=X_POLICY)
            acc = tl.dot_scaled(a, a_scale, X_FORMAT, tl.trans(b), b_scale, W_FORMAT, acc)
        else:
            acc = tl.dot_scaled(a, None, X_FORMAT, tl.trans(b), b_scale, W_FORMAT, acc)
    store_output(acc, y, x_row, w_row, bias, offs_m, offs_n, M, N, stride_y, X_ROW, W_ROW, BIAS)


def scaled_linear(
    x: ScaledOperand,
    weight: ScaledOperand,
    *,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    experts: ExpertRows | None = None,
) -> torch.Tensor:
    """Return x W^T of block-scaled operands; x may also be bf16, or e4m3 with a scale a row.

    With `experts` the weight is theirs, one below another, as in `linear`.

    Shapes: result [M, N] for x of shape [M, K] and weight of shape [N, K], or [E x N, K].
    Raises: ShapeError if they do not fit.
    """
    (m, k), (all_n, weight_k) = x.shape, weight.shape
    n = check_linear(x.codes, weight.codes, x.codes.shape[1], experts)
    if weight.scales is None or k != weight_k:
        raise ShapeError(
            f"x [{m}, {k}] does not fit a block-scaled weight [{all_n}, {weight_k}]", where="linear"
        )
    if x.scales is not None and x.group != weight.group:
        raise ShapeError(
            f"x has scales of {x.group} elements, the weight of {weight.group}", where="linear"
        )
    for name, operand in (("x", x), ("weight", weight)):
        if operand.scales is not None:
            check_rows("linear", **{f"{name}_scales": operand.scales})
            if len(operand.scales) != len(operand.codes):
                raise ShapeError(
                    f"{name}_scales have {len(operand.scales)} rows, not {len(operand.codes)}",
                    where="linear",
                )
    check_vectors("linear", all_n, bias=bias, weight_row_scale=weight.row_scale)
    check_vectors("linear", m, x_row_scale=x.row_scale)
    y = torch.empty((m, n), dtype=out_dtype, device=x.codes.device)
    if m == 0 or n == 0:
        return y

    def launch(blocks: Blocks) -> None:
        _launch(blocks, x, weight, y, bias, experts)

    bits = {"e2m1": 4, "bf16": 16, "fp16": 16}
    blocks = choose_blocks(
        m, n, k, bits.get(x.format, 8), bits.get(weight.format, 8), k_step=weight.group,
        scale_group=weight.group, experts=num_experts(experts), play=launch,
    )  # fmt: skip
    launch(blocks)
    return y


def _launch(
    blocks: Blocks, x: ScaledOperand, weight: ScaledOperand, y: torch.Tensor,
    bias: torch.Tensor | None, experts: ExpertRows | None,
) -> None:  # fmt: skip
    assert weight.scales is not None
    (m, n), k = y.shape, x.shape[1]
    if blocks.stationary != "y":
        walk_product(
            blocks, x.codes, weight.codes, y, k, x_scale=x.row_scale, weight_scale=weight.row_scale,
            bias=bias, x_blocks=x.scales, w_blocks=weight.scales, formats=(x.format, weight.format),
            group=weight.group,
        )  # fmt: skip
        return
    parts = blocks.parts(k)
    sums = y if parts == 1 else torch.empty((parts, m, n), dtype=torch.float32, device=y.device)
    rest = (x.row_scale, weight.row_scale, bias) if parts == 1 else (None, None, None)
    spread = Spread.of(experts, m, blocks.m)
    _scaled_linear_kernel[spread.row_blocks * triton.cdiv(n, blocks.n), parts](
        x.codes, x.scales, rest[0], weight.codes, weight.scales, rest[1], sums, rest[2],
        *spread.args, m, n, k, x.codes.stride(0), x.scales.stride(0) if x.scales is not None else 0,
        weight.codes.stride(0), weight.scales.stride(0), sums.stride(-2),
        X_FORMAT=x.format, X_BLOCKS=x.scales is not None, X_ROW=rest[0] is not None,
        W_FORMAT=weight.format, W_ROW=rest[1] is not None, BIAS=rest[2] is not None,
        SCALE_GROUP=weight.group, BLOCK_M=blocks.m, BLOCK_N=blocks.n, BLOCK_K=blocks.k,
        GROUP=blocks.group, PART_K=blocks.part_depth(k) if parts > 1 else 0,
        X_POLICY=blocks.policy("x"), W_POLICY=blocks.policy("w"),
        **spread.constants, num_stages=blocks.stages,
    )  # fmt: skip
    if parts > 1:
        add_parts(sums, y, x_scale=x.row_scale, weight_scale=weight.row_scale, bias=bias)

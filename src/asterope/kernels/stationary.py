"""Products in which one operand stays: a program holds a panel of it over all of K, and walks.

Blocks of the other operand pass by, each giving a block of the result that is done at once. A
panel is read once for all of a walk, and sums pass through the scratchpad once; but all of K has to
fit. Each result is the same sum in the same order as that of the kernels whose sums stay.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from asterope.kernels.blocks import Blocks
from asterope.kernels.product import store_output

__all__ = ["walk_product"]


@triton.jit
def _panel(
    x, first, end, K, stride, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, POLICY: tl.constexpr
):
    """Load rows first, first + 1, ... below `end`, whole."""
    rows, columns = first + tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    at = x + rows[:, None].to(tl.int64) * stride + columns[None, :]
    return tl.load(at, mask=(rows < end)[:, None] & (columns < K)[None, :], eviction_policy=POLICY)


@triton.jit
def _operand(
    x, blocks, first, end, K, stride, stride_s, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, POLICY: tl.constexpr,
):  # fmt: skip
    """Load rows of codes with their scales; without scales these are one zero."""
    PACK: tl.constexpr = 2 if FORMAT == "e2m1" else 1
    codes = _panel(x, first, end, K // PACK, stride, BLOCK, BLOCK_K // PACK, POLICY)
    if GROUP:
        scales = _panel(blocks, first, end, K // GROUP, stride_s, BLOCK, BLOCK_K // GROUP, POLICY)
    else:
        scales = tl.zeros((1, 1), dtype=tl.float32)
    return codes, scales


@triton.jit
def _dot(
    a, a_scale, b, b_scale, acc, X_FORMAT: tl.constexpr, X_GROUP: tl.constexpr,
    W_FORMAT: tl.constexpr, W_GROUP: tl.constexpr,
):  # fmt: skip
    if X_GROUP:
        acc = tl.dot_scaled(a, a_scale, X_FORMAT, tl.trans(b), b_scale, W_FORMAT, acc)
    elif W_GROUP:
        acc = tl.dot_scaled(a, None, X_FORMAT, tl.trans(b), b_scale, W_FORMAT, acc)
    elif a.dtype.primitive_bitwidth > b.dtype.primitive_bitwidth:
        acc = tl.dot(a, tl.trans(b.to(a.dtype)), acc)
    else:
        acc = tl.dot(a, tl.trans(b), acc)
    return acc


@triton.jit
def _walk_kernel(
    x, x_blocks, x_row, w, w_blocks, w_row, y, bias, addend, M, N, K,
    stride_x, stride_xs, stride_w, stride_ws, stride_y,
    X_FORMAT: tl.constexpr, X_GROUP: tl.constexpr, X_ROW: tl.constexpr,
    W_FORMAT: tl.constexpr, W_GROUP: tl.constexpr, W_ROW: tl.constexpr,
    BIAS: tl.constexpr, ADDEND: tl.constexpr, X_STAYS: tl.constexpr, WALK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    X_POLICY: tl.constexpr, W_POLICY: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    if X_STAYS:  # neighbours walk over the same columns
        num_m = tl.cdiv(M, BLOCK_M)
        m, n = pid % num_m * BLOCK_M, pid // num_m * (WALK * BLOCK_N)
        steps = tl.cdiv(min(WALK * BLOCK_N, N - n), BLOCK_N)
        a, a_scale = _operand(
            x, x_blocks, m, M, K, stride_x, stride_xs, X_FORMAT, X_GROUP, BLOCK_M, BLOCK_K, X_POLICY
        )
    else:
        num_n = tl.cdiv(N, BLOCK_N)
        n, m = pid % num_n * BLOCK_N, pid // num_n * (WALK * BLOCK_M)
        steps = tl.cdiv(min(WALK * BLOCK_M, M - m), BLOCK_M)
        b, b_scale = _operand(
            w, w_blocks, n, N, K, stride_w, stride_ws, W_FORMAT, W_GROUP, BLOCK_N, BLOCK_K, W_POLICY
        )
    for step in range(steps):
        row = m if X_STAYS else m + step * BLOCK_M
        column = n + step * BLOCK_N if X_STAYS else n
        if X_STAYS:
            b, b_scale = _operand(
                w, w_blocks, column, N, K, stride_w, stride_ws, W_FORMAT, W_GROUP, BLOCK_N, BLOCK_K,
                W_POLICY,
            )  # fmt: skip
        else:
            a, a_scale = _operand(
                x, x_blocks, row, M, K, stride_x, stride_xs, X_FORMAT, X_GROUP, BLOCK_M, BLOCK_K,
                X_POLICY,
            )  # fmt: skip
        acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        acc = _dot(a, a_scale, b, b_scale, acc, X_FORMAT, X_GROUP, W_FORMAT, W_GROUP)
        offs_m, offs_n = row + tl.arange(0, BLOCK_M), column + tl.arange(0, BLOCK_N)
        if ADDEND:
            on = (offs_m < M)[:, None] & (offs_n < N)[None, :]
            at = addend + offs_m[:, None].to(tl.int64) * N + offs_n[None, :]
            acc += tl.load(at, mask=on, other=0.0).to(tl.float32)
        store_output(acc, y, x_row, w_row, bias, offs_m, offs_n, M, N, stride_y, X_ROW, W_ROW, BIAS)


def walk_product(
    blocks: Blocks, x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor, k: int, *,
    x_scale: torch.Tensor | None, weight_scale: torch.Tensor | None, bias: torch.Tensor | None,
    addend: torch.Tensor | None = None, x_blocks: torch.Tensor | None = None,
    w_blocks: torch.Tensor | None = None, formats: tuple[str, str] = ("", ""), group: int = 0,
) -> None:  # fmt: skip
    """Write to y what `linear` (or, with block scales of `group` elements, `scaled_linear`) gives.

    Shapes: x [M, K] and weight [N, K], or their codes; y [M, N]; x_blocks [M, K / group]; w_blocks
    [N, K / group]; x_scale [M]; weight_scale [N]; bias [N]; addend [M, N].
    """
    (m, n), stays_x = y.shape, blocks.stationary == "x"
    spans = triton.cdiv(m, blocks.span_m) * triton.cdiv(n, blocks.span_n)
    policies: dict[str, Any] = {f"{name.upper()}_POLICY": blocks.policy(name) for name in "xw"}
    _walk_kernel[(spans,)](
        x, x_blocks, x_scale, weight, w_blocks, weight_scale, y, bias, addend, m, n, k,
        x.stride(0), 0 if x_blocks is None else x_blocks.stride(0),
        weight.stride(0), 0 if w_blocks is None else w_blocks.stride(0), y.stride(0),
        X_FORMAT=formats[0], X_GROUP=0 if x_blocks is None else group, X_ROW=x_scale is not None,
        W_FORMAT=formats[1], W_GROUP=group, W_ROW=weight_scale is not None, BIAS=bias is not None,
        ADDEND=addend is not None, X_STAYS=stays_x, WALK=blocks.walk,
        BLOCK_M=blocks.m, BLOCK_N=blocks.n, BLOCK_K=blocks.k, **policies, num_stages=blocks.stages,
    )  # fmt: skip

"""What matrix products share: the order of their programs, and what becomes of their sums."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["add_parts", "row_block", "store_output"]

_ROWS = 8
_COLUMNS = 256


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
def row_block(
    starts, row_blocks, M, N, EXPERTS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Return a program's block of columns, its expert, its first row, and where rows end.

    Each expert's rows begin a block of their own. Blocks behind the last one have no rows; their
    expert is the last, so that what they read is there. Without experts there is one, 0.
    """
    if EXPERTS:
        m, n = block_place(row_blocks * BLOCK_M, N, BLOCK_M, BLOCK_N, GROUP)
        each = tl.arange(0, WIDTH)
        begin = tl.load(starts + each, mask=each < EXPERTS, other=0)
        ends = tl.load(starts + 1 + each, mask=each < EXPERTS, other=0)
        blocks = tl.cdiv(ends - begin, BLOCK_M)
        upto = tl.cumsum(blocks, 0)
        expert = tl.sum((upto <= m).to(tl.int32), 0)
        is_it = each == expert
        row = tl.sum(tl.where(is_it, begin + (m - upto + blocks) * BLOCK_M, 0), 0)
        end = tl.sum(tl.where(is_it, ends, 0), 0)
        expert = min(expert, EXPERTS - 1)
    else:
        m, n = block_place(M, N, BLOCK_M, BLOCK_N, GROUP)
        expert, row, end = 0, m * BLOCK_M, M
    return n, expert, row, end


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
def _add_parts_kernel(
    parts, y, x_scale, w_scale, bias, M, N, stride_part, stride_y, PARTS: tl.constexpr,
    X_SCALE: tl.constexpr, W_SCALE: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    on = (offs_m < M)[:, None] & (offs_n < N)[None, :]
    at = parts + offs_m[:, None].to(tl.int64) * N + offs_n[None, :]
    acc = tl.load(at, mask=on, other=0.0)
    for _ in tl.static_range(1, PARTS):
        at += stride_part
        acc += tl.load(at, mask=on, other=0.0)
    store_output(
        acc, y, x_scale, w_scale, bias, offs_m, offs_n, M, N, stride_y, X_SCALE, W_SCALE, BIAS
    )


def add_parts(
    parts: torch.Tensor,
    y: torch.Tensor,
    *,
    x_scale: torch.Tensor | None,
    weight_scale: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> None:
    """Write to y the sum of a product's parts, times its scales, plus the bias.

    Parts are added in float32, in ascending order of K: ((part 0 + part 1) + part 2) + ...

    Shapes: parts [P, M, N] float32; y [M, N]; x_scale [M]; weight_scale [N]; bias [N].
    """
    count, m, n = parts.shape
    rows = min(_ROWS, triton.next_power_of_2(m))
    columns = min(_COLUMNS, triton.next_power_of_2(n))
    _add_parts_kernel[triton.cdiv(m, rows), triton.cdiv(n, columns)](
        parts, y, x_scale, weight_scale, bias, m, n, m * n, y.stride(0), PARTS=count,
        X_SCALE=x_scale is not None, W_SCALE=weight_scale is not None, BIAS=bias is not None,
        BLOCK_M=rows, BLOCK_N=columns,
    )  # fmt: skip

"""Triton kernels as the tutorials write them: what the benchmarks run, interpreted and compiled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(x_ptr, y_ptr, output_ptr, n_elements, BLOCK_SIZE: tl.constexpr):
    pid = tl.program_id(axis=0)
    offsets = pid * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    mask = offsets < n_elements
    x = tl.load(x_ptr + offsets, mask=mask)
    y = tl.load(y_ptr + offsets, mask=mask)
    tl.store(output_ptr + offsets, x + y, mask=mask)


@triton.jit
def softmax_kernel(
    output_ptr, input_ptr, input_row_stride, output_row_stride, n_rows, n_cols,
    BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    row_start = tl.program_id(0)
    row_step = tl.num_programs(0)
    for row_idx in tl.range(row_start, n_rows, row_step):
        offsets = tl.arange(0, BLOCK_SIZE)
        mask = offsets < n_cols
        row = tl.load(
            input_ptr + row_idx * input_row_stride + offsets, mask=mask, other=-float("inf")
        )
        numerator = tl.exp(row - tl.max(row, axis=0))
        softmax = numerator / tl.sum(numerator, axis=0)
        tl.store(output_ptr + row_idx * output_row_stride + offsets, softmax, mask=mask)


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, c_ptr, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(axis=0)
    num_pid_m = tl.cdiv(M, BLOCK_M)
    num_pid_n = tl.cdiv(N, BLOCK_N)
    num_pid_in_group = GROUP_M * num_pid_n
    group_id = pid // num_pid_in_group
    first_pid_m = group_id * GROUP_M
    group_size_m = min(num_pid_m - first_pid_m, GROUP_M)
    pid_m = first_pid_m + ((pid % num_pid_in_group) % group_size_m)
    pid_n = (pid % num_pid_in_group) // group_size_m
    offs_am = (pid_m * BLOCK_M + tl.arange(0, BLOCK_M)) % M
    offs_bn = (pid_n * BLOCK_N + tl.arange(0, BLOCK_N)) % N
    offs_k = tl.arange(0, BLOCK_K)
    a_ptrs = a_ptr + (offs_am[:, None] * stride_am + offs_k[None, :] * stride_ak)
    b_ptrs = b_ptr + (offs_k[:, None] * stride_bk + offs_bn[None, :] * stride_bn)
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, tl.cdiv(K, BLOCK_K)):
        a = tl.load(a_ptrs, mask=offs_k[None, :] < K - k * BLOCK_K, other=0.0)
        b = tl.load(b_ptrs, mask=offs_k[:, None] < K - k * BLOCK_K, other=0.0)
        accumulator = tl.dot(a, b, accumulator)
        a_ptrs += BLOCK_K * stride_ak
        b_ptrs += BLOCK_K * stride_bk
    c = accumulator.to(c_ptr.dtype.element_ty)
    offs_cm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_cn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    c_ptrs = c_ptr + stride_cm * offs_cm[:, None] + stride_cn * offs_cn[None, :]
    tl.store(c_ptrs, c, mask=(offs_cm[:, None] < M) & (offs_cn[None, :] < N))


MATMUL_SIZE = 512
SOFTMAX_SHAPE = (1823, 781)
ADD_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A launch: which kernel, on what, in blocks of what size."""

    kernel: str
    dtype: str
    block: int

    def __str__(self) -> str:
        size = {
            "add": "2^20",
            "softmax": " x ".join(map(str, SOFTMAX_SHAPE)),
            "matmul": f"{MATMUL_SIZE}^3",
        }[self.kernel]
        return f"{self.kernel} {size} {self.dtype}, block {self.block}"


def make(problem: Problem) -> list[torch.Tensor]:
    """Return the tensors of a problem, the same each time; the last is the output."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "add": [(ADD_SIZE,)] * 2,
        "softmax": [SOFTMAX_SHAPE],
        "matmul": [(MATMUL_SIZE, MATMUL_SIZE)] * 2,
    }[problem.kernel]
    dtype = getattr(torch, problem.dtype)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    out_dtype = torch.float32 if problem.kernel == "matmul" else dtype
    return [*tensors, torch.empty(shapes[0], dtype=out_dtype)]


def run(problem: Problem, tensors: list[torch.Tensor]) -> None:
    """Launch the kernel of a problem."""
    {"add": add, "softmax": softmax, "matmul": matmul}[problem.kernel](*tensors, problem.block)


def add(x, y, out, block):
    """Add two vectors."""
    n = x.numel()
    add_kernel[(triton.cdiv(n, block),)](x, y, out, n, BLOCK_SIZE=block)


def softmax(x, out, block):
    """Take the softmax of each row, which must fit into a block."""
    rows, columns = x.shape
    strides = x.stride(0), out.stride(0)
    softmax_kernel[(rows,)](out, x, *strides, rows, columns, BLOCK_SIZE=block)


def matmul(a, b, out, block):
    """Multiply two matrices in grouped order."""
    (m, k), n = a.shape, b.shape[1]
    grid = (triton.cdiv(m, block) * triton.cdiv(n, block),)
    strides = (*a.stride(), *b.stride(), *out.stride())
    matmul_kernel[grid](
        a, b, out, m, n, k, *strides,
        BLOCK_M=block, BLOCK_N=block, BLOCK_K=min(block, 64), GROUP_M=8,
    )  # fmt: skip

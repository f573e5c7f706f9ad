"""Triton kernels as the tutorials write them: what the benchmarks run, interpreted and compiled."""

from __future__ import annotations

import math
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
def dropout_kernel(x_ptr, output_ptr, n_elements, p, seed, BLOCK_SIZE: tl.constexpr):
    offsets = tl.program_id(axis=0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    mask = offsets < n_elements
    x = tl.load(x_ptr + offsets, mask=mask)
    x_keep = tl.rand(seed, offsets) > p
    output = tl.where(x_keep, x / (1 - p), 0.0)
    tl.store(output_ptr + offsets, output, mask=mask)


@triton.jit
def layer_norm_kernel(
    X, Y, W, B, Mean, Rstd, stride, N, eps, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    Y += row * stride
    X += row * stride
    _mean = tl.zeros([BLOCK_SIZE], dtype=tl.float32)
    for off in range(0, N, BLOCK_SIZE):
        cols = off + tl.arange(0, BLOCK_SIZE)
        _mean += tl.load(X + cols, mask=cols < N, other=0.0).to(tl.float32)
    mean = tl.sum(_mean, axis=0) / N
    _var = tl.zeros([BLOCK_SIZE], dtype=tl.float32)
    for off in range(0, N, BLOCK_SIZE):
        cols = off + tl.arange(0, BLOCK_SIZE)
        x = tl.load(X + cols, mask=cols < N, other=0.0).to(tl.float32)
        x = tl.where(cols < N, x - mean, 0.0)
        _var += x * x
    var = tl.sum(_var, axis=0) / N
    rstd = 1 / tl.sqrt(var + eps)
    tl.store(Mean + row, mean)
    tl.store(Rstd + row, rstd)
    for off in range(0, N, BLOCK_SIZE):
        cols = off + tl.arange(0, BLOCK_SIZE)
        mask = cols < N
        w = tl.load(W + cols, mask=mask)
        b = tl.load(B + cols, mask=mask)
        x = tl.load(X + cols, mask=mask, other=0.0).to(tl.float32)
        y = (x - mean) * rstd * w + b
        tl.store(Y + cols, y, mask=mask)


@triton.jit
def attention_kernel(
    Q, K, V, Out, n_context, scale,
    HEAD: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(1) * n_context * HEAD
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, HEAD)
    at_rows = first + rows[:, None] * HEAD + dims[None, :]
    is_row = rows[:, None] < n_context
    q = tl.load(Q + at_rows, mask=is_row, other=0.0)
    m_i = tl.full([BLOCK_M], -float("inf"), dtype=tl.float32)
    l_i = tl.zeros([BLOCK_M], dtype=tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD], dtype=tl.float32)
    for start in range(0, n_context, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N)
        k = tl.load(
            K + first + cols[None, :] * HEAD + dims[:, None],
            mask=cols[None, :] < n_context,
            other=0.0,
        )
        qk = tl.where(cols[None, :] < n_context, tl.dot(q, k) * scale, -float("inf"))
        m_new = tl.maximum(m_i, tl.max(qk, 1))
        p = tl.exp2(qk - m_new[:, None])
        alpha = tl.exp2(m_i - m_new)
        l_i = l_i * alpha + tl.sum(p, 1)
        v = tl.load(
            V + first + cols[:, None] * HEAD + dims[None, :],
            mask=cols[:, None] < n_context,
            other=0.0,
        )
        acc = tl.dot(p.to(v.dtype), v, acc * alpha[:, None])
        m_i = m_new
    tl.store(Out + at_rows, acc / l_i[:, None], mask=is_row)


@triton.jit
def flash_part(
    acc, l_i, m_i, q, k_desc, v_desc, first, scale, rows, start, end,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    for start_n in range(start, end, BLOCK_N):
        k = k_desc.load([first + start_n, 0]).T
        qk = tl.dot(q, k)
        if MASKED:
            mask = rows[:, None] >= start_n + tl.arange(0, BLOCK_N)[None, :]
            qk = qk * scale + tl.where(mask, 0, -1.0e6)
            m_ij = tl.maximum(m_i, tl.max(qk, 1))
            qk -= m_ij[:, None]
        else:
            m_ij = tl.maximum(m_i, tl.max(qk, 1) * scale)
            qk = qk * scale - m_ij[:, None]
        p = tl.math.exp2(qk)
        alpha = tl.math.exp2(m_i - m_ij)
        l_ij = tl.sum(p, 1)
        acc = acc * alpha[:, None]
        v = v_desc.load([first + start_n, 0])
        acc = tl.dot(p.to(v.dtype), v, acc)
        l_i = l_i * alpha + l_ij
        m_i = m_ij
    return acc, l_i, m_i


@triton.jit
def flash_kernel(
    Q, K, V, Out, M, n_heads, n_context, scale,
    HEAD: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    size = n_heads * n_context
    q_desc = tl.make_tensor_descriptor(Q, [size, HEAD], [HEAD, 1], [BLOCK_M, HEAD])
    k_desc = tl.make_tensor_descriptor(K, [size, HEAD], [HEAD, 1], [BLOCK_N, HEAD])
    v_desc = tl.make_tensor_descriptor(V, [size, HEAD], [HEAD, 1], [BLOCK_N, HEAD])
    o_desc = tl.make_tensor_descriptor(Out, [size, HEAD], [HEAD, 1], [BLOCK_M, HEAD])
    start_m = tl.program_id(0) * BLOCK_M
    first = tl.program_id(1) * n_context
    rows = start_m + tl.arange(0, BLOCK_M)
    m_i = tl.zeros([BLOCK_M], dtype=tl.float32) - float("inf")
    l_i = tl.zeros([BLOCK_M], dtype=tl.float32) + 1.0
    acc = tl.zeros([BLOCK_M, HEAD], dtype=tl.float32)
    q = q_desc.load([first + start_m, 0])
    acc, l_i, m_i = flash_part(
        acc, l_i, m_i, q, k_desc, v_desc, first, scale, rows, 0, start_m, BLOCK_N, False
    )
    acc, l_i, m_i = flash_part(
        acc, l_i, m_i, q, k_desc, v_desc, first, scale, rows, start_m, start_m + BLOCK_M, BLOCK_N,
        True,
    )  # fmt: skip
    m_i += tl.math.log2(l_i)
    tl.store(M + first + rows, m_i)
    o_desc.store([first + start_m, 0], (acc / l_i[:, None]).to(Out.dtype.element_ty))


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


HEAD_SIZE = 64
DROP_RATE, SEED = 0.5, 123


@dataclass(frozen=True, slots=True)
class Problem:
    """A launch: which kernel, on what, in blocks of what size, on an input of what shape."""

    kernel: str
    dtype: str
    block: int
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = " x ".join(map(str, self.shape))
        return f"{self.kernel} {sizes} {self.dtype}, block {self.block}"


def make(problem: Problem) -> list[torch.Tensor]:
    """Return the tensors of a problem, the same each time; the last is the output."""
    generator = torch.Generator().manual_seed(0)
    shape, vector = tuple(problem.shape), tuple(problem.shape[-1:])
    shapes = {
        "add": [shape] * 2,
        "dropout": [shape],
        "softmax": [shape],
        "layer_norm": [shape, vector, vector],
        "attention": [shape] * 3,
        "flash": [shape] * 3,
        "matmul": [shape] * 2,
    }[problem.kernel]
    dtype = getattr(torch, problem.dtype)
    tensors = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
    out_dtype = torch.float32 if problem.kernel == "matmul" else dtype
    return [*tensors, torch.empty(shape, dtype=out_dtype)]


def run(problem: Problem, tensors: list[torch.Tensor]) -> None:
    """Launch the kernel of a problem."""
    {
        "add": add,
        "dropout": dropout,
        "softmax": softmax,
        "layer_norm": layer_norm,
        "attention": attention,
        "flash": flash,
        "matmul": matmul,
    }[problem.kernel](*tensors, problem.block)


def add(x, y, out, block):
    """Add two vectors."""
    n = x.numel()
    add_kernel[(triton.cdiv(n, block),)](x, y, out, n, BLOCK_SIZE=block)


def dropout(x, out, block):
    """Drop elements by a seed, without a mask in memory."""
    n = x.numel()
    dropout_kernel[(triton.cdiv(n, block),)](x, out, n, DROP_RATE, SEED, BLOCK_SIZE=block)


def softmax(x, out, block):
    """Take the softmax of each row, which must fit into a block."""
    rows, columns = x.shape
    strides = x.stride(0), out.stride(0)
    softmax_kernel[(rows,)](out, x, *strides, rows, columns, BLOCK_SIZE=block)


def layer_norm(x, weight, bias, out, block):
    """Normalise each row, keeping its mean and deviation as for a backward pass."""
    rows, columns = x.shape
    mean, rstd = x.new_empty(rows), x.new_empty(rows)
    layer_norm_kernel[(rows,)](
        x, out, weight, bias, mean, rstd, x.stride(0), columns, 1e-5, BLOCK_SIZE=block
    )


def attention(q, k, v, out, block):
    """Attend, every query to every key."""
    heads, context, size = q.shape
    scale = size**-0.5 * math.log2(math.e)
    grid = (triton.cdiv(context, block), heads)
    attention_kernel[grid](
        q, k, v, out, context, scale, HEAD=size, BLOCK_M=block, BLOCK_N=min(block, 64)
    )


def flash(q, k, v, out, block):
    """Attend as the tutorial does: each query to the keys up to its own, through descriptors."""
    heads, context, size = q.shape
    scale = size**-0.5 * math.log2(math.e)
    grid = (triton.cdiv(context, block), heads)
    sums = q.new_empty((heads, context), dtype=torch.float32)
    flash_kernel[grid](
        q, k, v, out, sums, heads, context, scale, HEAD=size, BLOCK_M=block, BLOCK_N=min(block, 64)
    )


def matmul(a, b, out, block):
    """Multiply two matrices in grouped order."""
    (m, k), n = a.shape, b.shape[1]
    grid = (triton.cdiv(m, block) * triton.cdiv(n, block),)
    strides = (*a.stride(), *b.stride(), *out.stride())
    matmul_kernel[grid](
        a, b, out, m, n, k, *strides,
        BLOCK_M=block, BLOCK_N=block, BLOCK_K=min(block, 64), GROUP_M=8,
    )  # fmt: skip

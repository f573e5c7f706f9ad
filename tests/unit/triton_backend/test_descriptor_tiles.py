"""Tensor descriptors are tiles from the start: what they become, move, and cost in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from descriptor_kernels import ROWS, copy_2d, copy_3d, gather_rows, same
from run_triton import run
from triton.tools.tensor_descriptor import TensorDescriptor
from triton_to_tiles import tile_ir

from asterope import chips, simulate
from asterope.host import HostKernel
from asterope.ir import grows_by_one
from asterope.runtime import optimise
from library_kernels import random


def test_a_descriptor_load_is_one_tile():
    signature = "tensordesc<fp16[2,4,8]> " * 2 + "i32 " * 4
    kernel = optimise(tile_ir(copy_3d, signature))
    (load,) = (op for op in kernel.walk() if op.name == "load_tile")
    (store,) = (op for op in kernel.walk() if op.name == "store_tile")
    assert not any(op.name in ("load", "store") for op in kernel.walk())
    assert load.attrs["mask_dims"] == store.attrs["mask_dims"] == (0, 1, 2)
    assert grows_by_one(load.operands[3])
    assert grows_by_one(store.operands[4])


@triton.jit
def mixed(x, rows, out, n, BLOCK: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [n, n], [n, 1], [1, BLOCK], padding_option="nan")
    target = tl.make_tensor_descriptor(out, [n, n], [n, 1], [1, BLOCK])
    value = source.gather(tl.load(rows + tl.arange(0, 8)), 3)
    target.scatter(tl.where(value != value, -1.0, value), 10 - tl.arange(0, 8), -2)


def test_the_reference_interpreter_reads_descriptors_the_same():
    rng = np.random.default_rng(0)
    x, out = rng.random(144, np.float32), np.zeros(144, np.float32)
    rows = np.array([0, 11, 5, 12, -1, 5, 7, 1 << 20], np.int32)
    signature, sizes = "*fp32 *i32 *fp32 i32", [12]
    (_, _, got), kernel, _ = run(mixed, signature, [x, rows, out, *sizes], {"BLOCK": 16})
    HostKernel(optimise(kernel)).launch(
        (1, 1, 1), [x.ctypes.data, rows.ctypes.data, out.ctypes.data, 12]
    )
    assert got.tobytes() == out.tobytes()
    assert (got.reshape(12, 12)[3:11, 7:10] == -1).all()


def bytes_of(kernel, *args, **meta):
    with simulate(chips.maia200()) as timeline:
        kernel[(1,)](*args, **meta)
    return timeline.launches[0].result.asked_bytes


def test_only_what_lies_inside_is_moved():
    x = random(20, 32)
    source, target = (TensorDescriptor.from_tensor(t, [4, 16]) for t in (x, random(4, 16)))
    for (row, column), elements in {(0, 0): 64, (18, 0): 32, (-1, 20): 36, (20, 0): 0}.items():
        asked = bytes_of(copy_2d, source, target, row, column, 0)
        assert asked == 4 * (elements + 64), (row, column)
    asked = bytes_of(gather_rows, x, ROWS, random(8, 16), 20, 32, 24, ROWS=8, COLUMNS=16)
    assert asked == 4 * (8 + 5 * 8 + 8 * 16)


@triton.jit
def matmul_of_pointers(a, b, c, M, N, K, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for k in range(0, K, DEPTH):
        depth = k + tl.arange(0, DEPTH)
        on = (rows < M)[:, None] & (depth < K)[None, :]
        left = tl.load(a + rows[:, None] * K + depth[None, :], mask=on, other=0.0)
        on = (depth < K)[:, None] & (columns < N)[None, :]
        right = tl.load(b + depth[:, None] * N + columns[None, :], mask=on, other=0.0)
        total = tl.dot(left, right, total)
    on = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(c + rows[:, None] * N + columns[None, :], total.to(tl.bfloat16), mask=on)


@triton.jit
def matmul_of_descriptors(a, b, c, M, N, K, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    row, column = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
    left = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BLOCK, DEPTH])
    right = tl.make_tensor_descriptor(b, [K, N], [N, 1], [DEPTH, BLOCK])
    target = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BLOCK, BLOCK])
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for k in range(0, K, DEPTH):
        total = tl.dot(left.load([row, k]), right.load([k, column]), total)
    target.store([row, column], total.to(tl.bfloat16))


@triton.jit
def matmul_of_host_descriptors(left, right, target, K, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    row, column = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for k in range(0, K, DEPTH):
        total = tl.dot(left.load([row, k]), right.load([k, column]), total)
    target.store([row, column], total.to(tl.bfloat16))


MATMULS = [matmul_of_pointers, matmul_of_descriptors, matmul_of_host_descriptors]


def product_of(kernel, a, b, stages=1):
    """Return the product that a kernel computes."""
    (M, K), N = a.shape, b.shape[1]
    c, blocks = torch.zeros(M, N, dtype=a.dtype, device=a.device), [[64, 32], [32, 64], [64, 64]]
    args = (a, b, c, M, N, K)
    if kernel is matmul_of_host_descriptors:
        args = (*map(TensorDescriptor.from_tensor, (a, b, c), blocks), K)
    grid = (triton.cdiv(M, 64), triton.cdiv(N, 64))
    kernel[grid](*args, BLOCK=64, DEPTH=32, num_stages=stages)
    return c


def test_products_of_descriptors_are_those_of_pointers():
    a, b = random(72, 328).bfloat16(), random(328, 104, seed=1).bfloat16()
    expected, *found = (product_of(kernel, a, b) for kernel in MATMULS)
    assert expected.any()
    assert all(same(c, expected) for c in found)


def simulated_product(kernel, stages):
    a, b = torch.empty(72, 328, device="meta").bfloat16(), torch.empty(328, 104, device="meta")
    with simulate(chips.maia200(), values=False) as timeline:
        product_of(kernel, a, b.bfloat16(), stages)
    return timeline.launches[0].result


def test_products_of_descriptors_take_the_time_of_pointers():
    by_pointer, *others = (simulated_product(kernel, 3) for kernel in MATMULS)
    for result in others:
        assert result.bytes == by_pointer.bytes
        assert result.time_ps == pytest.approx(by_pointer.time_ps, rel=0.01)


def test_num_stages_pipelines_loops_over_descriptors():
    one, three = (simulated_product(matmul_of_descriptors, stages) for stages in (1, 3))
    assert three.time_ps < one.time_ps

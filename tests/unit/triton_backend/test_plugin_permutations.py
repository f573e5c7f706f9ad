"""Ops that put elements elsewhere or count them, launched with CPU tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import asterope
from library_kernels import random


@triton.jit
def sort_kernel(x, o, M: tl.constexpr, N: tl.constexpr, DESCENDING: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(o + at, tl.sort(tl.load(x + at), descending=DESCENDING))


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.int8,
        *(pytest.param(x, marks=pytest.mark.slow) for x in (torch.bfloat16, torch.int64)),
    ],
)
@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (4, 8), (1, 32)])
def test_rows_are_sorted(dtype, rows, columns):
    x = (random(rows, columns) * 50).to(dtype)
    for descending in (False, True):
        out = torch.empty_like(x)
        sort_kernel[(1,)](x, out, rows, columns, descending)
        assert torch.equal(out, x.sort(1, descending=descending).values)


@triton.jit
def top_kernel(x, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows = tl.arange(0, M)[:, None]
    tl.store(
        o + rows * K + tl.arange(0, K)[None, :],
        tl.topk(tl.load(x + rows * N + tl.arange(0, N)[None, :]), K),
    )


@pytest.mark.parametrize("k", [1, 4, 32])
def test_the_largest_of_each_row_in_order(k):
    x = random(4, 32)
    out = torch.empty(4, k)
    top_kernel[(1,)](x, out, 4, 32, k)
    assert torch.equal(out, x.topk(k).values)


def test_a_merge_of_a_thousand_elements_is_right_and_timed():
    x = random(1, 1024)
    out = torch.empty_like(x)
    with asterope.simulate(asterope.chips.maia200()) as timeline:
        sort_kernel[(1,)](x, out, 1, 1024, False)
    assert torch.equal(out, x.sort(1).values)
    result = timeline.launches[0].result
    # 55 steps, each of a comparison, its direction, a choice, and a pass through the reshaper.
    assert result.vector_ops == 55 * 1024 * 5
    assert result.time_ps >= result.roofline_ps


@triton.jit
def turn_kernel(x, o, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    i, j, k = tl.arange(0, M)[:, None, None], tl.arange(0, N)[None, :, None], tl.arange(0, K)
    at = i * N * K + j * K + k[None, None, :]
    block = tl.load(x + at)
    tl.store(o + at, tl.flip(block, 1))
    tl.store(o + M * N * K + at, tl.flip(block, -1))
    back = tl.permute(block, (2, 0, 1))
    tl.store(o + 2 * M * N * K + tl.arange(0, M * N * K), tl.ravel(back))
    low, high = tl.split(tl.reshape(block, (M, N, K // 2, 2)))
    tl.store(o + 3 * M * N * K + at, tl.interleave(high, low))


@pytest.mark.parametrize("shape", [(2, 4, 8), (1, 1, 2), (4, 1, 32), (1, 16, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_blocks_of_three_dimensions_are_turned(shape, dtype):
    x = (random(*shape) * 50).to(dtype)
    out = torch.zeros(4, *shape, dtype=dtype)
    turn_kernel[(1,)](x, out, *shape)
    assert torch.equal(out[0], x.flip(1))
    assert torch.equal(out[1], x.flip(2))
    assert torch.equal(out[2].flatten(), x.permute(2, 0, 1).flatten())
    assert torch.equal(out[3], x.reshape(-1, 2).flip(1).reshape(shape))


@triton.jit
def look_up_kernel(table, index, o, ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows = tl.arange(0, ROWS)[:, None]
    values = tl.load(table + rows * N + tl.arange(0, N)[None, :])
    at = rows * K + tl.arange(0, K)[None, :]
    tl.store(o + at, tl.gather(values, tl.load(index + at), 1))


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_rows_are_tables(dtype, index_type):
    table = (random(4, 32) * 50).to(dtype)
    index = torch.randint(0, 32, (4, 64), dtype=index_type)
    out = torch.zeros(4, 64, dtype=dtype)
    look_up_kernel[(1,)](table, index, out, 4, 32, 64)
    assert torch.equal(out, table.gather(1, index.long()))


@triton.jit
def count_kernel(x, o, n, B: tl.constexpr, BINS: tl.constexpr):
    """Count a long vector block by block."""
    total = tl.zeros((BINS,), tl.int32)
    for start in range(0, n, B):
        i = start + tl.arange(0, B)
        on = i < n
        total += tl.histogram(tl.load(x + i, mask=on, other=0), BINS, mask=on)
    tl.store(o + tl.arange(0, BINS), total)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("n", [0, 1, 100, 128])
def test_values_are_counted_where_the_mask_is_on_and_they_have_a_bin(n, dtype):
    x = torch.randint(0, 40, (max(n, 1),), dtype=dtype)
    out = torch.zeros(32, dtype=torch.int32)
    count_kernel[(1,)](x, out, n, 32, 32)
    assert out.tolist() == np.bincount(x[:n].numpy().astype(np.int64), minlength=40)[:32].tolist()


@triton.jit
def behind_kernel(x, y, o, B: tl.constexpr):
    i = tl.arange(0, B)
    both = tl.cat(tl.load(x + i), tl.load(y + i), can_reorder=True)
    tl.store(o + tl.arange(0, 2 * B), both)


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool])
def test_a_vector_is_put_behind_another(size, dtype):
    x, y = (random(size, seed=s).to(dtype) for s in (1, 2))
    out = torch.zeros(2 * size, dtype=dtype)
    behind_kernel[(1,)](x, y, out, size)
    assert torch.equal(out, torch.cat([x, y]))


@triton.jit
def divide(a, b, c, d):
    return a // c, b // d, a % c, b % d


@triton.jit
def packed_kernel(x, y, o, p, B: tl.constexpr):
    i = tl.arange(0, B)
    quotient, rest = tl.map_elementwise(divide, tl.load(x + i), tl.load(y + i), pack=2)
    tl.store(o + i, quotient)
    tl.store(p + i, rest)


def test_a_function_may_take_elements_in_packs():
    x, y = torch.randint(0, 1000, (64,)), torch.randint(1, 50, (64,))
    quotient, rest = torch.empty_like(x), torch.empty_like(x)
    packed_kernel[(1,)](x, y, quotient, rest, 64)
    assert torch.equal(quotient, x // y)
    assert torch.equal(rest, x % y)

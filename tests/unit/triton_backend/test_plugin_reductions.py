"""Reductions and scans with functions of their own, launched with CPU tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from library_kernels import random


@triton.jit
def arg_kernel(x, o, v, M: tl.constexpr, N: tl.constexpr, AXIS: tl.constexpr, LEFT: tl.constexpr,
               LARGEST: tl.constexpr):  # fmt: skip
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    block = tl.load(x + at)
    rest = tl.arange(0, M * N // (M if AXIS == 0 else N))
    if LARGEST:
        best, where = tl.max(block, AXIS, return_indices=True, return_indices_tie_break_left=LEFT)
    else:
        best, where = tl.min(block, AXIS, return_indices=True, return_indices_tie_break_left=LEFT)
    tl.store(o + rest, where)
    tl.store(v + rest, best)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (8, 64), (64, 2)])
def test_arg_reductions_give_the_first_of_equals(axis, largest, rows, columns):
    x = (random(rows, columns) * 3).round()  # many are equal
    out = torch.zeros(x.shape[1 - axis], dtype=torch.int32)
    best = torch.zeros(x.shape[1 - axis])
    arg_kernel[(1,)](x, out, best, rows, columns, axis, True, largest)
    wide = x.numpy()
    assert out.tolist() == (np.argmax if largest else np.argmin)(wide, axis).tolist()
    assert best.tolist() == (np.max if largest else np.min)(wide, axis).tolist()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float16, torch.bfloat16])
def test_arg_reductions_that_may_give_any_of_equals_give_one(dtype):
    x = (random(8, 64) * 3).to(dtype)
    out = torch.zeros(8, dtype=torch.int32)
    best = torch.zeros(8, dtype=dtype)
    arg_kernel[(1,)](x, out, best, 8, 64, 1, False, True)
    assert torch.equal(best, x.amax(1))
    assert torch.equal(x.gather(1, out.long()[:, None])[:, 0], best)


@triton.jit
def welford_combine(mean_1, m2_1, n_1, mean_2, m2_2, n_2):
    n = n_1 + n_2
    share = tl.where(n == 0.0, 0.0, n_2 / n)
    delta = mean_2 - mean_1
    return mean_1 + delta * share, m2_1 + m2_2 + delta * delta * n_1 * share, n


@triton.jit
def welford_kernel(x, mean, var, M: tl.constexpr, N: tl.constexpr, n):
    columns = tl.arange(0, N)[None, :]
    block = tl.load(x + tl.arange(0, M)[:, None] * N + columns)
    on = tl.broadcast_to(tl.where(columns < n, 1.0, 0.0), (M, N))
    start = (tl.where(columns < n, block, 0.0), tl.zeros_like(block), on)
    m, m2, count = tl.reduce(start, 1, welford_combine, keep_dims=True)
    rows = tl.arange(0, M)[:, None]
    tl.store(mean + rows, m)
    tl.store(var + rows, m2 / count)


@pytest.mark.parametrize("n", [1, 37])
def test_welford_is_a_mean_and_a_variance(n):
    x = random(4, 128) + 5
    mean, var = torch.zeros(4), torch.zeros(4)
    welford_kernel[(1,)](x, mean, var, 4, 128, n)
    wide = x[:, :n].double()
    torch.testing.assert_close(mean.double(), wide.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), wide.var(1, correction=0), rtol=1e-5, atol=1e-12)


@triton.jit
def nearest_to_ten(a, b):
    return a if tl.abs(a - 10) < tl.abs(b - 10) else b


@triton.jit
def sign(n):
    if n < 0:
        return -1
    if n == 0:
        return 0
    return 1


@triton.jit
def steps_of_collatz(n):
    steps = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@triton.jit
def larger_by_steps(a, b):
    return tl.where(steps_of_collatz(a) >= steps_of_collatz(b), a, b)


@triton.jit
def functions_kernel(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.store(o, tl.reduce(v, 0, nearest_to_ten))
    tl.store(o + 1, tl.reduce(v, None, larger_by_steps))
    tl.store(o + 2 + i, tl.map_elementwise(steps_of_collatz, v))
    tl.store(o + 2 + B + i, tl.associative_scan(v, 0, larger_by_steps))
    tl.store(o + 2 + 2 * B + i, tl.map_elementwise(sign, v - 9))


def collatz(n):
    steps = 0
    while n > 1:
        n, steps = n // 2 if n % 2 == 0 else 3 * n + 1, steps + 1
    return steps


@pytest.mark.parametrize("size", [1, 32])
def test_functions_may_branch_return_early_and_loop(size):
    x = torch.tensor([27, 11, 9, 97, 1, 2, 40, 54] * 4, dtype=torch.int32)[:size]
    out = torch.zeros(2 + 3 * size, dtype=torch.int32)
    functions_kernel[(1,)](x, out, size)
    numbers = x.tolist()
    assert abs(int(out[0]) - 10) == min(abs(n - 10) for n in numbers)
    assert collatz(int(out[1])) == max(map(collatz, numbers))
    assert out[2 : 2 + size].tolist() == [collatz(n) for n in numbers]
    longest = [max(map(collatz, numbers[: i + 1])) for i in range(size)]
    assert [collatz(int(n)) for n in out[2 + size : 2 + 2 * size]] == longest
    assert torch.equal(out[2 + 2 * size :], (x - 9).sign())


@triton.jit
def sums_kernel(x, o, M: tl.constexpr, N: tl.constexpr, AXIS: tl.constexpr, REVERSE: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(o + at, tl.cumsum(tl.load(x + at), AXIS, reverse=REVERSE))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("rows", "columns"), [(1, 64), (2, 8), (16, 32), (1, 1)])
def test_running_sums_go_one_by_one(rows, columns, axis, reverse):
    x = random(rows, columns)
    out = torch.empty_like(x)
    sums_kernel[(1,)](x, out, rows, columns, axis, reverse)
    turned = x.numpy()[::-1, ::-1] if reverse else x.numpy()
    expected = np.add.accumulate(turned, axis)  # in fp32, in order
    assert (out.numpy() == (expected[::-1, ::-1] if reverse else expected)).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.uint8, torch.bool, torch.int64])
def test_running_sums_of_short_integers_are_long(dtype):
    x = (random(8, 64) * 100).to(dtype)
    out = torch.zeros(8, 64, dtype=torch.int64)
    sums_kernel[(1,)](x, out, 8, 64, 1, False)
    assert torch.equal(out, x.long().cumsum(1))


@triton.jit
def recurrence(a_1, b_1, a_2, b_2):
    return a_1 * a_2, b_1 * a_2 + b_2


@triton.jit
def recurrence_kernel(a, b, o, T: tl.constexpr, D: tl.constexpr, chunks):
    """A linear recurrence over chunks: what a state-space model does."""
    d = tl.arange(0, D)
    state = tl.zeros((D,), tl.float32)
    for c in range(chunks):
        at = (c * T + tl.arange(0, T))[:, None] * D + d[None, :]
        gates, values = tl.associative_scan((tl.load(a + at), tl.load(b + at)), 0, recurrence)
        rows = values + gates * state[None, :]
        tl.store(o + at, rows)
        last = (tl.arange(0, T) == T - 1)[:, None]
        state = tl.sum(tl.where(last, rows, 0.0), 0)


def test_a_recurrence_is_carried_over_chunks():
    a, b = torch.rand(64, 16, dtype=torch.float32), random(64, 16)
    out = torch.empty_like(b)
    recurrence_kernel[(1,)](a, b, out, 16, 16, 4)
    state, expected = torch.zeros(16, dtype=torch.float64), []
    for gate, value in zip(a.double(), b.double(), strict=True):
        state = gate * state + value
        expected.append(state)
    torch.testing.assert_close(out.double(), torch.stack(expected), rtol=1e-5, atol=1e-5)


@triton.jit
def moments_kernel(x, o, M: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    block = tl.load(x + at)
    tl.store(o, tl.sum(block.to(tl.float32)))
    tl.store(o + 1, tl.max(block))
    tl.store(o + 2, tl.argmax(tl.reshape(block, (M * N,)), 0).to(tl.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_whole_blocks_reduce_in_narrow_formats(dtype):
    x = (random(16, 16) * 2).round().to(dtype)
    out = torch.zeros(3)
    moments_kernel[(1,)](x, out, 16, 16)
    wide = x.float()
    assert out.tolist() == [wide.sum(), wide.max(), wide.flatten().numpy().argmax()]

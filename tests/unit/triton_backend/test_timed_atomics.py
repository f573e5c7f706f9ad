"""Kernels with atomics inside `asterope.simulate`: values as without, times that add up."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

import asterope
from asterope.errors import KernelError
from library_kernels import random

MAIA = asterope.chips.maia200()


@triton.jit
def _norm_backward(dx_ptr, dy_ptr, dw_ptr, db_ptr, x_ptr, w_ptr, mean_ptr, rstd_ptr, lock_ptr,
                   stride, N, GROUPS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Rows add their part of dw and db to one of GROUPS sums, under its lock."""
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    mask = columns < N
    at = row * stride + columns
    x = tl.load(x_ptr + at, mask=mask, other=0).to(tl.float32)
    dy = tl.load(dy_ptr + at, mask=mask, other=0).to(tl.float32)
    w = tl.load(w_ptr + columns, mask=mask).to(tl.float32)
    rstd = tl.load(rstd_ptr + row)
    centred = tl.where(mask, (x - tl.load(mean_ptr + row)) * rstd, 0.0)
    wdy = tl.where(mask, w * dy, 0.0)
    c1 = tl.sum(centred * wdy, axis=0) / N
    c2 = tl.sum(wdy, axis=0) / N
    tl.store(dx_ptr + at, (wdy - (centred * c1 + c2)) * rstd, mask=mask)
    group = row % GROUPS
    lock_ptr += group
    count_ptr = lock_ptr + GROUPS
    dw_ptr += group * N + columns
    db_ptr += group * N + columns
    dw, db = dy * centred, dy
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    if tl.load(count_ptr) == 0:
        tl.atomic_xchg(count_ptr, 1)
    else:
        dw += tl.load(dw_ptr, mask=mask)
        db += tl.load(db_ptr, mask=mask)
    tl.store(dw_ptr, dw, mask=mask)
    tl.store(db_ptr, db, mask=mask)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def norm_backward(rows, columns, groups):
    """Launch it; return the gradients and the locks."""
    x, dy, w = random(rows, columns), random(rows, columns, seed=1), random(columns, seed=2)
    mean, rstd = x.mean(1), 1 / torch.sqrt(x.var(1, unbiased=False) + 1e-5)
    dx, sums = torch.zeros_like(x), torch.full((2, groups, columns), torch.nan)
    locks = torch.zeros(2 * groups, dtype=torch.int32)
    _norm_backward[(rows,)](dx, dy, *sums, x, w, mean, rstd, locks, columns, columns,
                            GROUPS=groups, BLOCK=triton.next_power_of_2(columns))  # fmt: skip
    return (x, w, dy), (dx, *sums.sum(1)), locks


def test_layer_norm_backward_with_locks_is_right_and_timed():
    rows, columns, groups = 150, 200, 8
    with asterope.simulate(MAIA) as timeline:
        (x, w, dy), got, locks = norm_backward(rows, columns, groups)
    xd, wd, bd = (t.double().requires_grad_() for t in (x, w, torch.zeros(columns)))
    torch.nn.functional.layer_norm(xd, (columns,), wd, bd, 1e-5).backward(dy.double())
    for mine, theirs in zip(got, (xd.grad, wd.grad, bd.grad), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-4)
    assert locks.tolist() == [0] * groups + [1] * groups
    result = timeline.launches[0].result
    assert sum(result.breakdown_ps.values()) == result.time_ps
    # x, dy and dx; locks taken, counts read, first counts set, locks given back; sums of the rest.
    block = 4 * columns
    locked = 4 * (2 * rows + rows + 2 * groups + 2 * rows)
    sums = block * 2 * ((rows - groups) + rows)
    assert result.asked_bytes == rows * (4 * block + 8) + locked + sums


def test_timing_alone_leaves_locks_and_sums_as_they_are():
    with asterope.simulate(MAIA, values=False) as timeline:
        _, (dx, dw, _), locks = norm_backward(30, 64, 4)
    assert not locks.any()
    assert not dx.any()
    assert bool(dw.isnan().all())
    assert timeline.time_ps > 0


@triton.jit
def _split_k(a_ptr, b_ptr, c_ptr, M, N, K, SIZE: tl.constexpr, DEPTH: tl.constexpr,
             PARTS: tl.constexpr):  # fmt: skip
    rows = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    columns = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    k = tl.program_id(2) * DEPTH + tl.arange(0, DEPTH)
    a, b = a_ptr + rows[:, None] * K + k[None, :], b_ptr + k[:, None] * N + columns[None, :]
    total = tl.zeros((SIZE, SIZE), tl.float32)
    for _ in range(tl.cdiv(K, DEPTH * PARTS)):
        total += tl.dot(tl.load(a), tl.load(b))
        a += DEPTH * PARTS
        b += DEPTH * PARTS * N
    inside = (rows[:, None] < M) & (columns[None, :] < N)
    tl.atomic_add(c_ptr + rows[:, None] * N + columns[None, :], total, inside, sem="relaxed")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_split_k_adds_its_parts_once_each(device):
    m, n, k = 64, 96, 256
    a, b = (torch.randint(-3, 4, s, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
            for s in ((m, k), (k, n)))  # fmt: skip
    c = torch.zeros(m, n)
    with asterope.simulate(MAIA, values=device == "cpu") as timeline:
        _split_k[(2, 3, 4)](*(t.to(device) for t in (a, b)), c.to(device), m, n, k,
                            SIZE=32, DEPTH=32, PARTS=4)  # fmt: skip
    if device == "cpu":
        assert torch.equal(c, a.float() @ b.float())
    result = timeline.launches[0].result
    loads = 2 * 32 * 32 * 2 * (k // 32) * 6
    assert result.asked_bytes == loads + 2 * 4 * 4 * m * n
    assert result.bytes["hbm_written"] == 4 * 4 * m * n


@triton.jit
def _tickets(counter_ptr, seen_ptr, n):
    ticket = tl.atomic_add(counter_ptr, 1)
    while ticket < n:
        tl.store(seen_ptr + ticket, 1)
        ticket = tl.atomic_add(counter_ptr, 1)


def test_work_from_a_shared_counter_is_an_error_with_its_line():
    counter, seen = torch.zeros(1, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    with asterope.simulate(MAIA), pytest.raises(KernelError, match="take work") as caught:
        _tickets[(2,)](counter, seen, 8)
    assert "test_timed_atomics.py:" in caught.value.where

"""Atomics in real Triton kernels: against NumPy, with several programs at one address."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

MANY = 3000  # programs of a grid that two threads share
SEMS = (None, "relaxed", "acquire", "release", "acq_rel")


@pytest.fixture
def both_threads(monkeypatch):
    """Share even a small grid among threads."""
    monkeypatch.setattr("asterope.host.executable._SMALL_WORK", 0)
    monkeypatch.setattr("asterope.native.pool.num_cores", lambda: 2)


@triton.jit
def _update(x_ptr, index_ptr, out_ptr, old_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr,
            SEM: tl.constexpr, SCOPE: tl.constexpr):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    on = at < n
    x = tl.load(x_ptr + at, mask=on)
    target = out_ptr + tl.load(index_ptr + at, mask=on, other=0)
    if OP == "add":
        old = tl.atomic_add(target, x, mask=on, sem=SEM, scope=SCOPE)
    elif OP == "max":
        old = tl.atomic_max(target, x, mask=on, sem=SEM, scope=SCOPE)
    elif OP == "min":
        old = tl.atomic_min(target, x, mask=on, sem=SEM, scope=SCOPE)
    elif OP == "and":
        old = tl.atomic_and(target, x, mask=on, sem=SEM, scope=SCOPE)
    elif OP == "or":
        old = tl.atomic_or(target, x, mask=on, sem=SEM, scope=SCOPE)
    elif OP == "xor":
        old = tl.atomic_xor(target, x, mask=on, sem=SEM, scope=SCOPE)
    else:
        old = tl.atomic_xchg(target, x, mask=on, sem=SEM, scope=SCOPE)
    tl.store(old_ptr + at, old, mask=at < 2 * n)


AT = {"add": np.add, "max": np.maximum, "min": np.minimum, "and": np.bitwise_and,
      "or": np.bitwise_or, "xor": np.bitwise_xor}  # fmt: skip
INTEGERS = (torch.int32, torch.int64, torch.uint32, torch.uint64)


def numbers(n, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype.is_floating_point:
        return torch.from_numpy(rng.integers(-40, 40, n) / 4).to(dtype)
    bits = rng.integers(0, 256, n * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(bits).view(dtype)


@pytest.mark.usefixtures("both_threads")
@pytest.mark.parametrize("op", [*AT, "xchg"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_meet_at_few_addresses_without_loss(op, dtype):
    n, cells = 1000, 7
    x, start = numbers(n, dtype), numbers(cells, dtype, 1)
    index = torch.from_numpy(np.random.default_rng(2).integers(0, cells, n))
    out, old = start.clone(), torch.ones(1024, dtype=dtype)
    turn = INTEGERS.index(dtype) + len(op)
    scope = ("cta", "gpu", "sys")[turn % 3]
    _update[(64,)](x, index, out, old, n, op, 16, SEMS[turn % 5], scope)
    if op == "xchg":
        # What was there, and what is there now: nothing was lost, nothing made up.
        for cell in range(cells):
            mine = index == cell
            went = sorted([*x[mine].tolist(), start[cell].item()])
            assert sorted([*old[:n][mine].tolist(), out[cell].item()]) == went
    else:
        expected = start.numpy().copy()
        AT[op].at(expected, index.numpy(), x.numpy())
        np.testing.assert_array_equal(out.numpy(), expected)
    assert not old[n:].any()  # masked off


@pytest.mark.parametrize(("op", "dtype"), [
    *((op, t) for op in ("add", "max", "min", "xchg") for t in (torch.float32, torch.float64)),
    ("add", torch.float16), ("add", torch.bfloat16),
])  # fmt: skip
def test_floats_at_addresses_of_their_own(op, dtype):
    n = 100
    x, start = numbers(n, dtype), numbers(n, dtype, 1)
    x[:4] = torch.tensor([-0.0, 0.0, torch.inf, -torch.inf], dtype=dtype)
    start[:2] = torch.tensor([0.0, -0.0], dtype=dtype)
    index = torch.from_numpy(np.random.default_rng(2).permutation(n))
    out, old = start.clone(), torch.zeros(128, dtype=dtype)
    _update[(2,)](x, index, out, old, n, op, 64, None, None)
    there = start[index]
    expected = {"add": there + x, "max": there.maximum(x), "min": there.minimum(x), "xchg": x}[op]
    assert torch.equal(out[index], expected)
    assert torch.equal(old[:n], there)


@pytest.mark.usefixtures("both_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_float_sums_lose_no_term(dtype):
    """Sums of whole numbers are exact in any order."""
    n = 128
    x, index = torch.ones(n, dtype=dtype), torch.zeros(n, dtype=torch.int64)
    out = torch.zeros(1, dtype=dtype)
    _update[(16,)](x, index, out, torch.zeros(2 * n, dtype=dtype), n, "add", 8, "relaxed", "gpu")
    assert out.item() == n


@triton.jit
def _float8_exchange(x_ptr, y_ptr, old_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(old_ptr + at, tl.atomic_xchg(y_ptr + at, tl.load(x_ptr + at)))


def test_what_the_front_end_refuses_is_its_error():
    x = torch.zeros(16).to(torch.float8_e4m3fn)
    with pytest.raises(triton.TritonError, match="does not support"):
        _float8_exchange[(1,)](x, x.clone(), x.clone(), BLOCK=16)


@triton.jit
def _compare_and_swap(x_ptr, expected_ptr, value_ptr, old_ptr, ROWS: tl.constexpr):
    at = tl.arange(0, ROWS)[:, None] * 4 + tl.arange(0, 4)[None, :]
    old = tl.atomic_cas(x_ptr + at, tl.load(expected_ptr + at), tl.load(value_ptr + at))
    tl.store(old_ptr + at, old)


@pytest.mark.parametrize("dtype", [
    torch.int16, torch.int32, torch.int64, torch.uint64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
])  # fmt: skip
def test_compare_and_swap_compares_bits(dtype):
    x, value = numbers(32, dtype), numbers(32, dtype, 1)
    expected = torch.where(torch.arange(32) % 3 == 0, x, numbers(32, dtype, 2))
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    if dtype.is_floating_point:
        x[0], expected[0] = torch.nan, torch.nan  # the same bits are equal
        x[1], expected[1] = 0.0, -0.0  # equal numbers are not
    got, old = x.clone(), torch.zeros_like(x)
    _compare_and_swap[(1,)](got, expected, value, old, ROWS=8)
    same = x.view(bits) == expected.view(bits)
    want = torch.where(same, value.view(bits), x.view(bits))
    assert torch.equal(got.view(bits), want)
    assert torch.equal(old.view(bits), x.view(bits))


# -- programs that wait for each other ------------------------------------------------------------
@triton.jit
def _locked_sum(x_ptr, lock_ptr, out_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + at)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    tl.store(out_ptr + at, tl.load(out_ptr + at) + x)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


@pytest.mark.usefixtures("both_threads")
def test_a_spin_lock_lets_one_program_in_at_a_time():
    x = torch.from_numpy(np.random.default_rng(0).integers(-9, 9, (MANY, 16)).astype(np.float32))
    lock, out = torch.zeros(1, dtype=torch.int32), torch.zeros(16)
    _locked_sum[(MANY,)](x, lock, out, BLOCK=16)
    assert torch.equal(out, x.sum(0))
    assert lock.item() == 0


@triton.jit
def _chain(x_ptr, flag_ptr, out_ptr, HOW: tl.constexpr):
    """Program k waits for program k - 1 and writes a running sum."""
    k = tl.program_id(0)
    if HOW == "volatile":
        while tl.load(flag_ptr, volatile=True) != k:
            pass
    elif HOW == "plain":  # Triton drops a loop of plain loads that nobody uses
        flag = tl.load(flag_ptr)
        while flag != k:
            flag = tl.load(flag_ptr)
        k = flag
    elif HOW == "body":
        flag = tl.load(flag_ptr, volatile=True)
        while flag != k:
            flag = tl.load(flag_ptr, volatile=True)
    else:
        while tl.atomic_add(flag_ptr, 0) != k:
            pass
    total = tl.load(out_ptr + k) + tl.load(x_ptr + k)
    tl.store(out_ptr + k + 1, total)
    tl.debug_barrier()
    tl.atomic_xchg(flag_ptr, k + 1)


@pytest.mark.usefixtures("both_threads")
@pytest.mark.parametrize("how", ["volatile", "plain", "body", "atomic"])
def test_programs_that_wait_for_earlier_ones_come_through(how):
    x = torch.arange(MANY, dtype=torch.int64)
    flag, out = torch.zeros(1, dtype=torch.int32), torch.zeros(MANY + 1, dtype=torch.int64)
    _chain[(MANY,)](x, flag, out, how)
    assert torch.equal(out[1:], x.cumsum(0))


@triton.jit
def _tickets(counter_ptr, seen_ptr, n, BLOCK: tl.constexpr):
    """Programs take work from a shared counter until none is left."""
    ticket = tl.atomic_add(counter_ptr, 1, sem="relaxed")
    while ticket < n:
        at = ticket * BLOCK + tl.arange(0, BLOCK)
        tl.store(seen_ptr + at, tl.load(seen_ptr + at) + 1)
        ticket = tl.atomic_add(counter_ptr, 1, sem="relaxed")


@pytest.mark.usefixtures("both_threads")
def test_every_ticket_is_taken_once():
    counter, seen = torch.zeros(1, dtype=torch.int32), torch.zeros(500 * 4, dtype=torch.int32)
    _tickets[(30,)](counter, seen, 500, BLOCK=4)
    assert bool((seen == 1).all())
    assert counter.item() == 500 + 30


@triton.jit
def _order(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """What is loaded before an atomic or store is what was there before it, and after it, after."""
    at = tl.arange(0, BLOCK)
    before = tl.load(x_ptr + at)
    old = tl.atomic_add(x_ptr + at, 1)
    between = tl.load(x_ptr + at)
    again = tl.atomic_xchg(x_ptr + at, 50)
    after = tl.load(x_ptr + at)
    for i in range(3):
        tl.atomic_add(x_ptr + at, i)
    last = tl.load(x_ptr + at)
    tl.store(y_ptr + at, before)
    tl.store(y_ptr + BLOCK + at, old)
    tl.store(y_ptr + 2 * BLOCK + at, between)
    tl.store(y_ptr + 3 * BLOCK + at, again)
    tl.store(y_ptr + 4 * BLOCK + at, after)
    tl.store(y_ptr + 5 * BLOCK + at, last)


def test_loads_keep_their_place_among_atomics():
    x, y = torch.arange(32, dtype=torch.int32), torch.zeros(6, 32, dtype=torch.int32)
    start = x.clone()
    _order[(1,)](x, y, BLOCK=32)
    expected = [start, start, start + 1, start + 1, torch.full((32,), 50), torch.full((32,), 53)]
    for got, want in zip(y, expected, strict=True):
        assert torch.equal(got, want.int())


@triton.jit
def _scalar(x_ptr, y_ptr, on):
    tl.store(y_ptr, tl.atomic_add(x_ptr, 5, mask=on != 0))
    if tl.atomic_max(x_ptr, 100) < 100:
        tl.atomic_add(y_ptr + 1, 1)


@pytest.mark.parametrize("on", [0, 2])
def test_scalars_with_a_mask_and_in_a_branch(on):
    x, y = torch.tensor([7], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    _scalar[(1,)](x, y, on)
    assert x.item() == 100
    assert y.tolist() == [7 * (on != 0), 1]


@triton.jit
def _histogram_2d(x_ptr, out_ptr, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A whole column of a tile goes to one address: dimensions repeat addresses."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + rows[:, None] * COLUMNS + columns[None, :])
    to = out_ptr + tl.zeros((ROWS, 1), tl.int32) + columns[None, :]
    tl.atomic_add(to, x, mask=(rows[:, None] < n) & (columns[None, :] >= 1))


def test_a_tile_may_repeat_addresses_along_a_dimension():
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 99, (8, 16)).astype(np.int32))
    out = torch.zeros(16, dtype=torch.int32)
    _histogram_2d[(1,)](x, out, 5, ROWS=8, COLUMNS=16)
    expected = x[:5].sum(0)
    expected[0] = 0
    assert torch.equal(out, expected.int())


@triton.jit
def _descriptor(x_ptr, y_ptr, M, N, OP: tl.constexpr):
    y = tl.make_tensor_descriptor(y_ptr, [M, N], [N, 1], [4, 8])
    m, n = tl.program_id(0) * 4, tl.program_id(1) * 8
    rows, columns = m + tl.arange(0, 4)[:, None], n + tl.arange(0, 8)[None, :]
    x = tl.load(x_ptr + rows * N + columns, mask=(rows < M) & (columns < N), other=1)
    if OP == "add":
        y.atomic_add([m, n], x)
    elif OP == "max":
        y.atomic_max([m, n], x)
    elif OP == "min":
        y.atomic_min([m, n], x)
    else:
        y.atomic_xor([m, n], x)


@pytest.mark.parametrize(("op", "dtype"), [
    ("add", torch.float32), ("add", torch.float16), ("add", torch.int32), ("xor", torch.int64),
    ("max", torch.int32), ("max", torch.uint32), ("min", torch.int64), ("min", torch.uint64),
])  # fmt: skip
def test_descriptors_combine_what_lies_inside(op, dtype):
    m, n = 7, 20
    x, y = numbers(m * n, dtype), numbers(m * n + 64, dtype, 1)
    got = y.clone()
    _descriptor[(2, 3)](x, got, m, n, op)
    expected = y.numpy().copy()
    AT[op](expected[: m * n], x.numpy(), out=expected[: m * n])
    np.testing.assert_array_equal(got.numpy(), expected)

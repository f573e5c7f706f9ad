"""Loops count and stop as Python's do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from run_triton import run
from triton_to_tiles import tile_ir

from asterope import chips
from asterope.runtime import simulate
from ir_builder import assert_same_bits


def check(fn, signature, arguments, expected, constants=None, grid=(1, 1, 1)):
    arrays, kernel, views = run(fn, signature, arguments, constants, grid)
    np.testing.assert_array_equal(arrays[-1], expected)
    assert_same_bits(kernel, views, grid)


@triton.jit
def counts(o, lo, hi, step):
    n = 0
    for i in range(lo, hi, step):
        tl.store(o + n, i)
        n += 1
    tl.store(o + 7, n)


@triton.jit
def counts_down(o, lo, hi):
    n = 0
    for i in range(lo, hi, -3):
        tl.store(o + n, i)
        n += 1
    tl.store(o + 7, n)


def counted(values, dtype):
    expected = np.zeros(8, dtype)
    expected[: len(values)] = values
    expected[7] = len(values)
    return expected


TOP = {"i8": 2**7 - 1, "i16": 2**15 - 1, "i32": 2**31 - 1, "i64": 2**63 - 1}
BOUNDS = [(0, 5, 1), (0, 5, 2), (4, 4, 1), (5, 0, 1), (-6, 7, 5), (0, 1, 100)]


@pytest.mark.parametrize("elem", TOP)
@pytest.mark.parametrize("bounds", [*BOUNDS, "top"])
def test_ranges_of_every_width_give_pythons_numbers(elem, bounds):
    lo, hi, step = (TOP[elem] - 5, TOP[elem], 4) if bounds == "top" else bounds
    out = np.zeros(8, f"i{int(elem[1:]) // 8}")
    signature = f"*{elem} {elem} {elem} {elem}"
    check(counts, signature, [out, lo, hi, step], counted(range(lo, hi, step), out.dtype))


def test_unsigned_bounds_count():
    out = np.zeros(8, np.uint32)
    check(counts, "*u32 u32 u32 u32", [out, 1, 9, 3], counted([1, 4, 7], np.uint32))


@pytest.mark.parametrize(("lo", "hi"), [(9, 0), (8, -1), (0, 0), (0, 5), (-1, -9)])
def test_ranges_with_a_negative_step_go_down(lo, hi):
    # Triton counts lo - i from the other end, so only whole distances are Python's.
    values = [hi + lo - i for i in range(hi, lo, 3)]
    check(counts_down, "*i32 i32 i32", [np.zeros(8, np.int32), lo, hi], counted(values, np.int32))


@triton.jit
def says_how(o, n, B: tl.constexpr):
    i = tl.arange(0, B)
    total = tl.zeros((B,), tl.int32)
    for j in tl.range(0, n, num_stages=4, disallow_acc_multi_buffer=True, flatten=True):
        total += i * j
    for j in tl.range(0, n, 1, loop_unroll_factor=2):
        total += j
    for j in tl.range(n, warp_specialize=False, num_stages=None, loop_unroll_factor=None):
        for k in tl.static_range(3, 0, -1):
            total += j * k
    tl.store(o + i, total)


@pytest.mark.parametrize("n", [0, 1, 4, 5])
def test_options_of_a_range_change_no_value(n):
    i, ns = np.arange(8), np.arange(n)
    expected = i * ns.sum() + ns.sum() + 6 * ns.sum()
    check(says_how, "*i32 i32", [np.zeros(8, np.int32), n], expected, {"B": 8})


def test_a_range_says_how_deep_its_loads_are():
    kernel = tile_ir(says_how, "*i32 i32", {"B": 8})
    depths = [op.attrs.get("num_stages") for op in kernel.walk() if op.name == "for"]
    assert depths.count(4) == 1
    assert set(depths) == {4, 1, None}  # unrolling leaves a rest that has no pipeline


@triton.jit
def sums(x, o, n, STAGES: tl.constexpr, B: tl.constexpr):
    i = tl.arange(0, B)
    total = tl.zeros((B,), tl.float32)
    for j in tl.range(0, n, num_stages=STAGES):
        total += tl.load(x + j * B + i)
    for j in range(n):
        total += tl.load(x + j * B + i)
    tl.store(o + i, total)


def test_a_deeper_range_holds_more_loads_in_tsram_and_is_no_slower():
    found = {}
    for stages in (None, 1, 2, 5):
        x = torch.empty(64 * 1024, device="meta")
        with simulate(chips.maia200(), values=False) as timeline:
            sums[(8,)](x, x, 64, stages, B=1024, num_stages=3)
        found[stages] = timeline.launches[0].result
    # One block of sums, and as many loaded ones as the deeper of the two loops has.
    held = {stages: result.tsram_bytes // 4096 for stages, result in found.items()}
    assert held == {None: 1 + 3, 1: 1 + 3, 2: 1 + 3, 5: 1 + 5}
    assert found[5].time_ps <= found[2].time_ps <= found[1].time_ps


@triton.jit
def whiles(x, o, n, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    rounds = 0
    while (tl.max(v, 0) > 1) and (rounds < n):
        w = v
        while not tl.min(w, 0) < 0:
            w -= 2
            rounds += 1
        if tl.sum(w, 0) < -10 or rounds == 3:
            v = v // 2
        else:
            v, w = w, v
        rounds += 1
    tl.store(o + i, v)
    tl.store(o + B, rounds)


@pytest.mark.parametrize("n", [0, 1, 5, 50])
def test_whiles_go_on_as_long_as_any_condition_says(n):
    x = np.array([4, 9, 5, 12, 7, 8, 30, 6], np.int32)
    v, rounds = x.copy(), 0
    while v.max() > 1 and rounds < n:
        w = v.copy()
        while w.min() >= 0:
            w -= 2
            rounds += 1
        # Integer division rounds towards zero in Triton.
        v = (v / 2).astype(np.int32) if w.sum() < -10 or rounds == 3 else w
        rounds += 1
    check(whiles, "*i32 *i32 i32", [x, np.zeros(9, np.int32), n], [*v, rounds], {"B": 8})


@triton.jit
def leaves_when_found(x, o, n, wanted):
    going, i, at = True, 0, -1
    while going and i < n:
        if tl.load(x + i) == wanted:
            at = i
            going = False
        i += 1
    tl.store(o, at)
    tl.store(o + 1, i)


@pytest.mark.parametrize(("wanted", "expected"), [(5, [2, 3]), (3, [0, 1]), (8, [-1, 4])])
def test_a_flag_leaves_a_loop(wanted, expected):
    x = np.array([3, 4, 5, 6], np.int32)
    arguments = [x, np.zeros(2, np.int32), 4, wanted]
    check(leaves_when_found, "*i32 *i32 i32 i32", arguments, expected)


@triton.jit
def branches_between_blocks(x, o, k, B: tl.constexpr):
    i = tl.arange(0, B)
    a, b = tl.load(x + i), tl.load(x + B + i)
    for j in range(k):
        if j % 3 == 0:
            a, b = b, a
        elif j % 3 == 1:
            if tl.sum(a, 0) > 0:
                a = a - b
            else:
                b = b - a
        else:
            a += j
    tl.store(o + i, a)
    tl.store(o + B + i, b)


def test_branches_in_loops_give_blocks():
    x = np.arange(16, dtype=np.int32)
    a, b = x[:8], x[8:]
    for j in range(8):
        if j % 3 == 0:
            a, b = b, a
        elif j % 3 == 1:
            a, b = (a - b, b) if a.sum() > 0 else (a, b - a)
        else:
            a = a + j
    arguments = [x, np.zeros(16, np.int32), 8]
    check(branches_between_blocks, "*i32 *i32 i32", arguments, [*a, *b], {"B": 8})


@triton.jit
def places(o):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    nx, ny = tl.num_programs(0), tl.num_programs(1)
    at = o + ((z * ny + y) * nx + x) * 3
    tl.assume(nx > 0)
    tl.store(at, x)
    tl.store(at + 1, y * tl.num_programs(2))
    tl.store(at + 2, z)


def test_programs_know_their_place_on_three_axes():
    z, y, x = np.meshgrid(range(2), range(4), range(3), indexing="ij")
    expected = np.stack([x, y * 2, z], -1).reshape(-1)
    check(places, "*i32", [np.zeros(72, np.int32)], expected, grid=(3, 4, 2))

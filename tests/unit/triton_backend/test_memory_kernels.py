"""Loads and stores in real Triton kernels: every kind of pointer, mask, padding and modifier."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from library_kernels import random


# -- pointers --------------------------------------------------------------------------------------
@triton.jit
def _sum_of_many(pointers_ptr, out_ptr, n, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Read arrays whose addresses lie in memory."""
    at = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(COUNT):
        x_ptr = tl.load(pointers_ptr + i).to(tl.pointer_type(tl.float32))
        total += tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, total, mask=at < n)


def test_arrays_whose_addresses_lie_in_memory():
    xs = [random(50, seed=s) for s in range(4)]
    pointers = torch.tensor([x.data_ptr() for x in xs], dtype=torch.uint64)
    out = torch.zeros(50)
    _sum_of_many[(1,)](pointers, out, 50, COUNT=4, BLOCK=64)
    assert torch.equal(out, ((xs[0] + xs[1]) + xs[2]) + xs[3])


@triton.jit
def _pointers_of_pointers(pointers_ptr, out_ptr, COUNT: tl.constexpr):
    """A block of addresses from memory, read, moved, and stored to memory again."""
    at = tl.arange(0, COUNT)
    nested = pointers_ptr.to(tl.pointer_type(tl.pointer_type(tl.float32)))
    first = tl.load(nested + at)
    tl.store(out_ptr + at, tl.load(first + 1))
    tl.store(nested + at, first + 2, mask=at != 1)


def test_a_block_of_addresses_is_read_moved_and_stored():
    xs = [random(8, seed=s) for s in range(4)]
    pointers = torch.tensor([x.data_ptr() for x in xs], dtype=torch.int64)
    before, out = pointers.clone(), torch.zeros(4)
    _pointers_of_pointers[(1,)](pointers, out, COUNT=4)
    assert out.tolist() == [x[1].item() for x in xs]
    assert (pointers - before).tolist() == [8, 0, 8, 8]


@triton.jit
def _chosen(x_ptr, y_ptr, out_ptr, BLOCK: tl.constexpr):
    """Load from one array or the other, element by element, and store likewise."""
    at = tl.arange(0, BLOCK)
    source = tl.where(at % 3 == 0, x_ptr + at, y_ptr + 2 * at)
    v = tl.load(source, mask=at != 5, other=-1.0)
    back = (out_ptr.to(tl.int64) + 4 * (BLOCK - 1 - at)).to(tl.pointer_type(tl.float32))
    tl.store(back, v, mask=at < BLOCK - 1)


def test_pointers_that_are_chosen_and_made_of_integers():
    x, y = random(32), random(64, seed=1)
    out = torch.zeros(32)
    _chosen[(1,)](x, y, out, BLOCK=32)
    at = torch.arange(32)
    expected = torch.where(at % 3 == 0, x, y[::2])
    expected[5] = -1
    assert torch.equal(out.flip(0)[:31], expected[:31])
    assert out[0] == 0


@triton.jit
def _bools(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=True)
    y = tl.load(y_ptr + at, mask=at < n)
    tl.store(out_ptr + at, x ^ y, mask=at < BLOCK)
    tl.store(out_ptr + BLOCK, tl.load(x_ptr) | tl.load(y_ptr + 1))


def test_pointers_to_bools_read_and_write_bytes():
    x, y = (torch.rand(40, generator=torch.Generator().manual_seed(s)) < 0.5 for s in (0, 1))
    out = torch.zeros(65, dtype=torch.bool)
    _bools[(1,)](x, y, out, 40, BLOCK=64)
    assert torch.equal(out[:40], x ^ y)
    assert bool(out[40:64].all())
    assert out[64] == x[0] | y[1]
    assert set(out.view(torch.uint8).tolist()) <= {0, 1}


def test_accesses_of_bools_and_of_bits_as_integers_are_tiles():
    from asterope.runtime import listen, stop_listening

    seen = []

    class Listener:
        wants_values = True

        def on_launch(self, launch):
            seen.append({op.name for op in launch.kernel.kernel.walk()})

    listener = Listener()
    listen(listener)
    x = torch.zeros(64, dtype=torch.bool)
    _bools[(1,)](x, x.clone(), torch.zeros(65, dtype=torch.bool), 40, BLOCK=64)
    stop_listening(listener)
    assert {"load_tile", "store_tile"} <= seen[0]


# -- scalars and masks -----------------------------------------------------------------------------
@triton.jit
def _scalars(x_ptr, out_ptr, on):
    tl.store(out_ptr, tl.load(x_ptr))
    tl.store(out_ptr + 1, tl.load(x_ptr + 1, mask=on > 0, other=7.0))
    tl.store(out_ptr + 2, tl.load(x_ptr + 2), mask=on > 0)
    tl.store(out_ptr + 3 + tl.arange(0, 8), 5.0)
    tl.store(out_ptr + 11 + tl.arange(0, 8), tl.load(x_ptr), mask=on > 0)
    tl.store(out_ptr + 19 + tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :],
             tl.arange(0, 4)[:, None], mask=tl.arange(0, 4)[None, :] > 0)  # fmt: skip


@pytest.mark.parametrize("on", [0, 2])
def test_scalars_and_values_that_repeat(on):
    x, out = random(3), torch.zeros(35)
    _scalars[(1,)](x, out, on)
    a, b, c = x.tolist()
    expected = [a, b if on else 7.0, c if on else 0.0, *[5.0] * 8, *[a if on else 0.0] * 8]
    rows = torch.arange(4.0)[:, None].expand(4, 4) * (torch.arange(4) > 0)
    assert out.tolist() == [*expected, *rows.flatten().tolist()]


@triton.jit
def _same_address(out_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr + at // 4, at)


def test_of_several_elements_at_one_address_one_stays():
    out = torch.full((16,), -1, dtype=torch.int32)
    _same_address[(1,)](out, BLOCK=64)
    assert (out // 4).tolist() == list(range(16))


@triton.jit
def _hints(x_ptr, out_ptr, BLOCK: tl.constexpr, CACHE: tl.constexpr, EVICT: tl.constexpr,
           STORE: tl.constexpr, VOLATILE: tl.constexpr):  # fmt: skip
    at = tl.arange(0, BLOCK)[:, None] * 8 + tl.arange(0, 8)[None, :]
    x = tl.load(x_ptr + at, cache_modifier=CACHE, eviction_policy=EVICT, volatile=VOLATILE)
    tl.store(out_ptr + at, x, cache_modifier=STORE, eviction_policy=EVICT)


@pytest.mark.parametrize(("cache", "evict", "store", "volatile"), [
    (".ca", "evict_first", ".wb", False), (".cg", "evict_last", ".cg", True),
    (".cv", "", ".cs", True), ("", "", ".wt", False),
])  # fmt: skip
def test_cache_hints_change_nothing(cache, evict, store, volatile):
    x = random(16, 8)
    out = torch.zeros_like(x)
    _hints[(1,)](x, out, 16, cache, evict, store, volatile)
    assert torch.equal(out, x)


@triton.jit
def _volatile(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """A volatile load stays where it is, also when nobody uses it, also in a loop."""
    at = tl.arange(0, BLOCK)
    first = tl.load(x_ptr + at, volatile=True)
    plain = tl.load(x_ptr + at)
    tl.store(x_ptr + at, first + 1)
    total = tl.zeros((BLOCK,), tl.int32)
    for _ in range(3):
        now = tl.load(x_ptr + at, volatile=True)
        tl.store(x_ptr + at, now * 2)
        total += now
    tl.load(x_ptr + at, volatile=True)
    tl.store(y_ptr + at, total)
    tl.store(y_ptr + BLOCK + at, plain)


def test_volatile_loads_see_each_store():
    x, y = torch.arange(32, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    start = x.clone()
    _volatile[(1,)](x, y, BLOCK=32)
    assert torch.equal(y[:32], (start + 1) * 7)
    assert torch.equal(y[32:], start)
    assert torch.equal(x, (start + 1) * 8)


# -- block pointers --------------------------------------------------------------------------------
@triton.jit
def _block_pointer(x_ptr, y_ptr, M, N, stride_m, stride_n, from_m, from_n, CHECK: tl.constexpr,
                   PADDING: tl.constexpr, ORDER: tl.constexpr, ROWS: tl.constexpr,
                   COLUMNS: tl.constexpr):  # fmt: skip
    x = tl.make_block_ptr(x_ptr, (M, N), (stride_m, stride_n), (0, 0), (ROWS, COLUMNS), ORDER)
    x = tl.advance(x, (from_m, from_n))
    y = tl.make_block_ptr(y_ptr, (ROWS, COLUMNS), (COLUMNS, 1), (0, 0), (ROWS, COLUMNS), (1, 0))
    tl.store(y, tl.load(x, boundary_check=CHECK, padding_option=PADDING))


CHECKS = [(0,), (1,), (0, 1), (1, 0)]


@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
@pytest.mark.parametrize(
    ("check", "padding"), [((), ""), *itertools.product(CHECKS, ["", "zero", "nan"])], ids=str
)
def test_block_pointers_pad_what_lies_outside(check, padding):
    """In both orders, of rows and of columns, before the start and behind the end."""
    m, n, rows, columns = 11, 13, 8, 16
    for transposed, (from_m, from_n) in itertools.product(
        (False, True), [(0, 0), (4, 2), (-3, -5), (9, 12), (11, 0)]
    ):
        # Around the matrix lies memory that may be read where no check is asked for.
        around = random(m + 64, n + 64, seed=3)
        matrix = around[32 : 32 + m, 32 : 32 + n]
        source = matrix.T.contiguous().T if transposed and len(check) == 2 else matrix
        y = torch.full((rows, columns), 9.0)
        order = (0, 1) if transposed else (1, 0)
        _block_pointer[(1,)](source, y, m, n, *source.stride(), from_m, from_n, check, padding,
                             order, rows, columns)  # fmt: skip
        i = np.arange(from_m, from_m + rows)[:, None]
        j = np.arange(from_n, from_n + columns)[None, :]
        inside = np.ones((rows, columns), np.bool_)
        if 0 in check:
            inside &= (i >= 0) & (i < m)
        if 1 in check:
            inside &= (j >= 0) & (j < n)
        there = around.numpy()[np.clip(32 + i, 0, m + 63), np.clip(32 + j, 0, n + 63)]
        filler = np.nan if padding == "nan" else 0.0
        np.testing.assert_array_equal(y.numpy(), np.where(inside, there, filler))


@triton.jit
def _store_block(y_ptr, M, N, from_m, from_n, CHECK: tl.constexpr):
    y = tl.make_block_ptr(y_ptr, (M, N), (N, 1), (from_m, from_n), (8, 4), (1, 0))
    tl.store(y, tl.full((8, 4), 1.0, tl.float32), boundary_check=CHECK)


@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
@pytest.mark.parametrize(("from_m", "from_n"), [(0, 0), (2, 3), (-5, -2), (5, 5), (6, 0)])
def test_block_pointers_store_only_inside(from_m, from_n):
    y = torch.zeros(6, 6)
    _store_block[(1,)](y, 6, 6, from_m, from_n, (0, 1))
    expected = torch.zeros(6, 6)
    expected[max(from_m, 0) : max(from_m + 8, 0), max(from_n, 0) : max(from_n + 4, 0)] = 1
    assert torch.equal(y, expected)


# -- beyond 2^31 -----------------------------------------------------------------------------------
BEYOND = 1 << 31


@pytest.fixture(scope="module")
def vast():
    """More than 2^32 elements of which only touched pages take memory."""
    return torch.empty(2 * BEYOND + (1 << 16), dtype=torch.int8)


@triton.jit
def _far(x_ptr, out_ptr, start, BLOCK: tl.constexpr):
    """By a 64-bit argument, program number, index vector, and a pointer that moves in a loop."""
    at = tl.arange(0, BLOCK)
    tl.store(x_ptr + start + at, (at + 1).to(tl.int8))
    wide = (tl.program_id(0) + 131072).to(tl.int64) * 16384 + at
    tl.store(out_ptr + at, tl.load(x_ptr + wide))
    spread = at.to(tl.int64) * 134217728  # the last is 2^32
    tl.store(x_ptr + spread, (at + 50).to(tl.int8))
    moving = x_ptr
    for i in range(BLOCK):
        tl.store(out_ptr + BLOCK + i, tl.load(moving))
        moving += 134217728


def test_64_bit_offsets_reach_beyond_2_to_the_31(vast):
    out = torch.zeros(64, dtype=torch.int8)
    _far[(1,)](vast, out, BEYOND, BLOCK=32)
    assert out[:32].tolist() == list(range(1, 33))
    assert out[32:].tolist() == list(range(50, 82))
    assert vast[31 * (1 << 27)].item() == 81


@triton.jit
def _far_rows(x_ptr, y_ptr, stride, first, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows so far apart that their offsets need 64 bits, as a tile and as a block pointer."""
    rows, columns = first + tl.arange(0, ROWS).to(tl.int64), tl.arange(0, COLUMNS)
    tile = x_ptr + rows[:, None] * stride + columns[None, :]
    tl.store(tile, (rows[:, None] * COLUMNS + columns[None, :]).to(tl.int8))
    block = tl.make_block_ptr(x_ptr, (first + ROWS, COLUMNS), (stride, 1), (first, 0),
                              (ROWS, COLUMNS), (1, 0))  # fmt: skip
    to = rows[:, None] * COLUMNS + columns[None, :]
    tl.store(y_ptr + to, tl.load(block, boundary_check=(0, 1)))


@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
def test_tiles_of_rows_far_apart(vast):
    y = torch.zeros(128, dtype=torch.int8)
    stride = 1 << 29
    _far_rows[(1,)](vast, y, stride, 4, ROWS=4, COLUMNS=8)
    assert y[32:64].tolist() == list(range(32, 64))
    for row in range(4, 8):
        start = row * stride
        assert vast[start : start + 8].tolist() == list(range(8 * row, 8 * row + 8))


@triton.jit
def _far_atomics(x_ptr, start, BLOCK: tl.constexpr):
    at = start + tl.arange(0, BLOCK)
    tl.atomic_add(x_ptr + at, 1)
    tl.atomic_cas(x_ptr + at, tl.full((BLOCK,), 1, tl.int32), tl.full((BLOCK,), 9, tl.int32))


def test_atomics_beyond_2_to_the_31_bytes(vast):
    words = vast.view(torch.int32)
    start = (1 << 30) + 16
    words[start : start + 16] = 0
    _far_atomics[(1,)](words, start, BLOCK=16)
    assert words[start : start + 16].tolist() == [9] * 16

"""Block pointers: blocks of arrays at coordinates that move, against slices of PyTorch."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton_to_tiles import tile_ir

from asterope.ir import grows_by_one
from asterope.runtime import optimise
from library_kernels import random

pytestmark = pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")


def block_at(x, start, size, padding=0.0):
    """Cut a square block out of a matrix, `padding` where it lies outside."""
    room = torch.full([n + 2 * size for n in x.shape], padding, dtype=x.dtype)
    room[size : size + x.shape[0], size : size + x.shape[1]] = x
    row, column = (min(max(s, -size), n) + size for s, n in zip(start, x.shape, strict=True))
    return room[row : row + size, column : column + size]


@triton.jit
def copy_block(
    x, y, rows, columns, row_stride, column_stride, at_row, at_column, BLOCK: tl.constexpr,
    CHECK: tl.constexpr, PADDING: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    source = tl.make_block_ptr(
        x, (rows, columns), (row_stride, column_stride), (at_row, at_column), (BLOCK, BLOCK), ORDER
    )
    target = tl.make_block_ptr(y, (BLOCK, BLOCK), (BLOCK, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    tl.store(target, tl.load(source, boundary_check=CHECK, padding_option=PADDING))


@pytest.mark.parametrize("padding", ["zero", "nan"])
@pytest.mark.parametrize("order", [(1, 0), (0, 1)])
@pytest.mark.parametrize("place", [(0, 0), (5, 9), (-3, -2), (40, 2), (1, -20)])
def test_checked_dimensions_are_cut_off(place, order, padding):
    x, y = random(12, 16), torch.zeros(8, 8)
    given = x if order == (1, 0) else x.T.contiguous().T
    strides = given.stride()
    copy_block[(1,)](given, y, 12, 16, *strides, *place, 8, (0, 1), padding, order)
    expected = block_at(x, place, 8, torch.nan if padding == "nan" else 0.0)
    assert torch.equal(y.nan_to_num(9e9), expected.nan_to_num(9e9))


def test_unchecked_dimensions_go_on():
    x, y = random(20, 16), torch.zeros(8, 8)
    copy_block[(1,)](x, y, 4, 12, 16, 1, 2, 7, 8, (1,), "zero", (1, 0))
    assert torch.equal(y, block_at(x[:, :12], (2, 7), 8))
    copy_block[(1,)](x, y, 4, 12, 16, 1, 2, 7, 8, (0,), "zero", (1, 0))
    assert torch.equal(y, block_at(x[:4], (2, 7), 8))
    copy_block[(1,)](x, y, 0, 0, 16, 1, 2, 7, 8, (), "zero", (1, 0))
    assert torch.equal(y, x[2:10, 7:15])


@triton.jit
def walk(x, y, n, m, BLOCK: tl.constexpr):
    source = tl.make_block_ptr(x, (n, m), (m, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    target = tl.make_block_ptr(y, (m, n), (n, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    i = 0
    while i < n:
        for _ in range(0, m, BLOCK):
            value = tl.load(source, boundary_check=(0, 1))
            tl.store(target, tl.trans(value), boundary_check=(0, 1))
            source = tl.advance(source, (0, BLOCK))
            target = target.advance((BLOCK, 0))
        source = tl.advance(source, (BLOCK, -tl.cdiv(m, BLOCK) * BLOCK))
        target = tl.advance(target, (-tl.cdiv(m, BLOCK) * BLOCK, BLOCK))
        i += BLOCK


@pytest.mark.parametrize(("n", "m"), [(16, 32), (21, 35), (1, 1)])
def test_loops_carry_block_pointers(n, m):
    x, y = random(n, m), torch.zeros(m, n)
    walk[(1,)](x, y, n, m, BLOCK=16)
    assert torch.equal(y, x.T)


@triton.jit
def choose(x, y, out, n, flag, BLOCK: tl.constexpr):
    first = tl.make_block_ptr(x, (n, BLOCK), (BLOCK, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    second = tl.make_block_ptr(y, (BLOCK, n), (1, BLOCK), (0, 0), (BLOCK, BLOCK), (0, 1))
    chosen = first
    if flag > 0:
        chosen = second
    if flag > 1:
        chosen = tl.advance(chosen, (2, flag))
    target = tl.make_block_ptr(out, (BLOCK, BLOCK), (BLOCK, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    tl.store(target, tl.load(chosen, boundary_check=(0, 1), padding_option="nan"))


@pytest.mark.parametrize("flag", [0, 1, 3])
def test_branches_choose_between_block_pointers(flag):
    x, y, out = random(9, 16), random(9, 16, seed=1), torch.zeros(16, 16)
    choose[(1,)](x, y, out, 9, flag, BLOCK=16)
    place = (2, flag) if flag > 1 else (0, 0)
    expected = block_at(y.T if flag else x, place, 16, torch.nan)
    assert torch.equal(out.nan_to_num(9e9), expected.nan_to_num(9e9))


@triton.jit(noinline=True)
def doubled(source, n):
    if n < 3:
        return tl.load(source, boundary_check=(0,))
    return 2 * tl.load(source.advance((0, 1)), boundary_check=(0, 1))


@triton.jit
def leaves_early(x, y, n, BLOCK: tl.constexpr):
    source = tl.make_block_ptr(x, (n, BLOCK), (BLOCK, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    target = tl.make_block_ptr(y, (BLOCK, BLOCK), (BLOCK, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    if n > 4:
        source = source.advance((1, 0))
        if n > 6:
            return
    tl.store(target, doubled(source, n))


@pytest.mark.parametrize("n", [2, 4, 6, 8])
def test_block_pointers_pass_calls_and_early_returns(n):
    x, y = random(8, 16), torch.zeros(16, 16)
    leaves_early[(1,)](x, y, n, BLOCK=16)
    expected = {
        2: block_at(x[:2], (0, 0), 16),
        4: 2 * block_at(x[:4], (0, 1), 16),
        6: 2 * block_at(x[:6], (1, 1), 16),
        8: torch.zeros(16, 16),
    }
    assert torch.equal(y, expected[n])


@triton.jit
def line_of_bits(x, y, n, BLOCK: tl.constexpr):
    source = tl.make_block_ptr(x, (n,), (1,), (4,), (BLOCK,), (0,))
    target = tl.make_block_ptr(y, (n,), (1,), (0,), (BLOCK,), (0,))
    tl.store(target, tl.load(source, boundary_check=(0,)), boundary_check=(0,))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float8_e5m2])
def test_one_dimension_and_other_types(dtype):
    x = (random(24) > 0).to(dtype)
    y = torch.ones(24).to(dtype)
    line_of_bits[(1,)](x, y, 19, BLOCK=32)
    expected = torch.ones(24).to(dtype).view(torch.uint8).clone()
    expected = expected.view(dtype)
    expected[:15], expected[15:19] = x[4:19], torch.zeros(4).to(dtype)
    assert torch.equal(y.view(torch.uint8), expected.view(torch.uint8))


def test_a_pointer_in_a_loop_reads_neighbours_as_tiles():
    kernel = optimise(tile_ir(walk, "*fp32 *fp32 i32 i32", {"BLOCK": 16}))
    (load,) = (op for op in kernel.walk() if op.name == "load_tile")
    (store,) = (op for op in kernel.walk() if op.name == "store_tile")
    assert load.attrs["mask_dims"] == store.attrs["mask_dims"] == (0, 1)
    assert grows_by_one(load.operands[2])
    assert grows_by_one(store.operands[3])

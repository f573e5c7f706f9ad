"""Tensor descriptors: blocks of arrays, cut off at the edges, against slices of PyTorch."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from descriptor_kernels import ROWS, copy_2d, copy_3d, gather_rows, same
from triton.tools.tensor_descriptor import TensorDescriptor

from library_kernels import random

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn,
          torch.float8_e5m2]  # fmt: skip
INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16,
            torch.uint32, torch.uint64]  # fmt: skip


def numbers(shape, dtype, seed=0):
    wide = random(*shape, seed=seed, scale=40.0)
    return (wide.abs() if dtype in INTEGERS and not dtype.is_signed else wide).to(dtype)


def block_at(x, start, shape, padding=0.0):
    """Cut a block out of a tensor, `padding` where it lies outside."""
    out = torch.full(shape, padding, dtype=torch.float64).to(x.dtype)
    dims = list(zip(start, shape, x.shape, strict=True))
    inside = [(max(0, s), min(s + n, size)) for s, n, size in dims]
    if all(low < high for low, high in inside):
        to = tuple(slice(low - s, high - s) for s, (low, high) in zip(start, inside, strict=True))
        out[to] = x[tuple(slice(low, high) for low, high in inside)]
    return out


# -- loads and stores of any rank -----------------------------------------------------------------
@triton.jit
def copy_5d(source, target, a, b, c, d, e, to):
    target.store([to, 0, 0, 0, 0], source.load([a, b, c, d, e]))


@triton.jit
def copy_4d(source, target, a, b, c, d, to):
    target.store([to, 0, 0, 0], source.load([a, b, c, d]))


@triton.jit
def copy_1d(source, target, a, to):
    target.store([to], source.load([a]))


COPIES = [copy_1d, copy_2d, copy_3d, copy_4d, copy_5d]
PLACES = {
    1: ((37,), (16,), [(0,), (30,), (-5,), (37,), (-16,), (1 << 30,)]),
    2: ((9, 24), (4, 16), [(0, 0), (7, 16), (-3, -5), (9, 0), (0, 24), (100, -100)]),
    3: ((3, 5, 8), (2, 4, 4), [(0, 0, 0), (2, 3, 7), (-1, -1, -1), (1, 1, 1)]),
    4: ((2, 3, 4, 8), (1, 2, 2, 8), [(0, 0, 0, 0), (1, 2, 3, 4), (-1, 0, 0, 0), (1, -1, -1, -1)]),
    5: ((2, 2, 3, 4, 4), (2, 1, 2, 2, 4), [(0, 0, 0, 0, 0), (1, 1, 2, 3, 1), (0, -1, 0, 0, 0)]),
}


@pytest.mark.parametrize("padding", ["zero", "nan"])
@pytest.mark.parametrize("rank", PLACES)
def test_a_block_is_cut_off_at_the_edges_in_every_rank(rank, padding):
    shape, block, places = PLACES[rank]
    x = random(*shape)
    out = torch.full(block, 7.0)
    source = TensorDescriptor.from_tensor(x, list(block), padding=padding)
    target = TensorDescriptor.from_tensor(out, list(block))
    for place in places:
        COPIES[rank - 1][(1,)](source, target, *place, 0)
        outside = torch.nan if padding == "nan" else 0.0
        assert same(out, block_at(x, place, block, outside)), place


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_every_element_type_moves_unchanged(dtype):
    x, out = numbers((8, 16), dtype), numbers((8, 32), dtype, seed=1)
    kept = out.clone()
    source, target = (TensorDescriptor.from_tensor(t, [4, 16]) for t in (x, out))
    copy_2d[(1,)](source, target, 6, 0, 5)
    assert same(out[5:, :16], torch.cat([x[6:], torch.zeros(1, 16).to(dtype)]))
    assert same(out[:5], kept[:5])
    assert same(out[5:, 16:], kept[5:, 16:])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_float_type_pads_with_nan(dtype):
    x, out = numbers((4, 16), dtype), numbers((4, 16), dtype)
    source = TensorDescriptor.from_tensor(x, [4, 16], padding="nan")
    copy_2d[(1,)](source, TensorDescriptor.from_tensor(out, [4, 16]), 2, 0, 0)
    assert same(out[:2], x[2:])
    assert out[2:].float().isnan().all()


def test_strides_of_the_caller_are_obeyed():
    x = random(16, 64)
    out = torch.zeros(4, 16)
    view = x[::2, 4:44]
    source = TensorDescriptor.from_tensor(view, [4, 16], padding="nan")
    target = TensorDescriptor.from_tensor(out, [4, 16])
    copy_2d[(1,)](source, target, 2, 32, 0)
    assert same(out, block_at(view, (2, 32), (4, 16), torch.nan))
    repeated = x[:1].expand(8, 64)
    copy_2d[(1,)](TensorDescriptor.from_tensor(repeated, [4, 16]), target, 3, 8, 0)
    assert same(out, x[:1, 8:24].expand(4, 16))


def test_a_store_leaves_what_lies_outside():
    x, out = random(4, 16), torch.full((6, 20), -1.0)
    view = out[1:5, :12]
    target = TensorDescriptor(view, [4, 12], [20, 1], [4, 16])
    copy_2d[(1,)](TensorDescriptor.from_tensor(x, [4, 16]), target, 0, 0, 0)
    expected = torch.full((6, 20), -1.0)
    expected[1:5, :12] = x[:, :12]
    assert same(out, expected)


# -- made in the kernel ---------------------------------------------------------------------------
@triton.jit
def shifted(x, out, rows, columns, stride, BLOCK: tl.constexpr, PADDING: tl.constexpr):
    source = tl.make_tensor_descriptor(
        x, [rows, columns], [stride, 1], [BLOCK, BLOCK], padding_option=PADDING
    )
    target = tl.make_tensor_descriptor(out, [BLOCK, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    target.store([0, 0], source.load([1, 2]))


@pytest.mark.parametrize("padding", ["zero", "nan"])
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (3, 9), (1, 1), (0, 8), (-4, 8), (30, 30)])
def test_a_descriptor_may_be_smaller_than_its_block(rows, columns, padding):
    x = random(32, 32)
    out = torch.zeros(8, 8)
    shifted[(1,)](x, out, rows, columns, 32, BLOCK=8, PADDING=padding)
    outside = torch.nan if padding == "nan" else 0.0
    assert same(out, block_at(x[: max(rows, 0), :columns], (1, 2), (8, 8), outside))


@triton.jit
def sizes(desc, out, BLOCK: tl.constexpr):
    made = tl.make_tensor_descriptor(out, [BLOCK, 2 * BLOCK], [64, 1], [BLOCK, BLOCK])
    i = tl.arange(0, 8)
    total = tl.where(i == 0, desc.shape[0], tl.where(i == 1, desc.shape[1], 0))
    total += tl.where(i == 2, desc.strides[0].to(tl.int32), 0)
    total += tl.where(i == 3, desc.block_shape[1], 0) + tl.where(i == 4, made.shape[1], 0)
    total += tl.where(i == 5, made.strides[0].to(tl.int32), 0)
    tl.store(out + i, total)


def test_a_kernel_reads_shape_and_strides():
    out = torch.zeros(8, dtype=torch.int32)
    sizes[(1,)](TensorDescriptor.from_tensor(random(10, 48)[:9, :12], [4, 8]), out, BLOCK=4)
    assert out.tolist() == [9, 12, 48, 8, 8, 64, 0, 0]


@triton.jit
def wide_numbers(x, out, rows, columns, at, shift, BLOCK: tl.constexpr):
    rows, columns = rows - shift, columns - shift
    source = tl.make_tensor_descriptor(
        x, [rows.to(tl.int32), columns.to(tl.int32)], [columns, 1], [BLOCK, BLOCK]
    )
    value = tl.load_tensor_descriptor(source, [(at - shift).to(tl.int32), 0])
    target = tl.make_tensor_descriptor(out, [BLOCK, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    tl.store_tensor_descriptor(target, [0, 0], value)


def test_strides_may_be_64_bits_wide():
    x, out, shift = random(24, 16), torch.zeros(16, 16), 1 << 40
    wide_numbers[(1,)](x, out, 24 + shift, 16 + shift, 20 + shift, shift, BLOCK=16)
    assert same(out, block_at(x, (20, 0), (16, 16)))


# -- rows picked one by one -----------------------------------------------------------------------
@triton.jit
def scatter_rows(x, rows, out, height, width, at, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [ROWS, COLUMNS], [COLUMNS, 1], [ROWS, COLUMNS])
    target = tl.make_tensor_descriptor(out, [height, width], [width, 1], [1, COLUMNS])
    target.scatter(source.load([0, 0]), tl.load(rows + tl.arange(0, ROWS)), at)


@pytest.mark.parametrize("at", [0, 8, 24, -4, 40])
def test_gather_reads_rows_and_zero_outside(at):
    x, out = random(20, 32), torch.zeros(8, 16)
    gather_rows[(1,)](x, ROWS, out, 20, 32, at, ROWS=8, COLUMNS=16)
    rows = [block_at(x, (int(r), at), (1, 16)) for r in ROWS]
    assert same(out, torch.cat(rows))


@pytest.mark.parametrize("at", [0, 8, 24, -4, 40])
def test_scatter_writes_rows_and_nothing_outside(at):
    x, out = random(8, 16), random(20, 32, seed=1)
    rows = ROWS.clone()
    rows[3] = 4
    expected = out.clone()
    wide = torch.nn.functional.pad(expected, (16, 16))
    for row, values in zip(rows.tolist(), x, strict=True):
        if 0 <= row < 20 and -16 < at < 32:
            wide[row, 16 + at : 32 + at] = values
    scatter_rows[(1,)](x, rows, out, 20, 32, at, ROWS=8, COLUMNS=16)
    assert same(out, wide[:, 16:48])


# -- descriptors as values ------------------------------------------------------------------------
@triton.jit
def first_of(pair, at):
    return pair[0].load([at, 0]) + pair[1]


@triton.jit
def from_a_function(x, width, BLOCK: tl.constexpr):
    return tl.make_tensor_descriptor(x, [BLOCK, width], [width, 1], [BLOCK, BLOCK])


@triton.jit
def passed_around(pair, out, at, BLOCK: tl.constexpr):
    target = from_a_function(out, BLOCK, BLOCK)
    target.store([0, 0], first_of(pair, at))


def test_descriptors_in_tuples_and_functions():
    x, out = random(16, 16), torch.zeros(16, 16)
    pair = (TensorDescriptor.from_tensor(x, [16, 16]), 3.0)
    passed_around[(1,)](pair, out, 4, BLOCK=16)
    assert same(out, block_at(x, (4, 0), (16, 16)) + 3.0)


@triton.jit
def replaced_in_a_loop(x, y, out, n, BLOCK: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [n, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for i in range(n):
        total += source.load([i, 0])
        if i % 3 == 2:
            source = tl.make_tensor_descriptor(
                y + i, [n, BLOCK - i], [BLOCK, 1], [BLOCK, BLOCK], padding_option="zero"
            )
    target = tl.make_tensor_descriptor(out, [BLOCK, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    target.store([0, 0], total)


def test_a_loop_carries_and_replaces_a_descriptor():
    x, y, out = random(8, 16), random(9, 16, seed=1), torch.zeros(16, 16)
    replaced_in_a_loop[(1,)](x, y, out, 8, BLOCK=16)
    source, expected = x, torch.zeros(16, 16)
    for i in range(8):
        expected += block_at(source, (i, 0), (16, 16))
        if i % 3 == 2:
            source = y.view(-1)[i:].as_strided((8, 16 - i), (16, 1))
    assert same(out, expected)


@triton.jit
def while_and_select(a, b, out, flag, n, BLOCK: tl.constexpr):
    source = a
    if flag > 0:
        source = b
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    i = 0
    while i < n:
        total += source.load([i, i])
        i += 4
        if i == 8:
            source = b
    target = tl.make_tensor_descriptor(out, [BLOCK, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    target.store([0, 0], total)


@pytest.mark.parametrize("flag", [0, 1])
def test_branches_choose_between_descriptors(flag):
    a, b, out = random(16, 32), random(20, 16, seed=1), torch.zeros(16, 16)
    of = [TensorDescriptor.from_tensor(t, [16, 16]) for t in (a, b)]
    while_and_select[(1,)](*of, out, flag, 16, BLOCK=16)
    expected = torch.zeros(16, 16)
    for i in range(0, 16, 4):
        expected += block_at(b if flag or i >= 8 else a, (i, i), (16, 16))
    assert same(out, expected)


@triton.jit
def chosen(a, b, out, n, BLOCK: tl.constexpr):
    first = tl.make_tensor_descriptor(a, [n, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    second = tl.make_tensor_descriptor(b, [n, BLOCK], [BLOCK, 1], [BLOCK, BLOCK], "nan")
    if n % 2 == 0:
        first = second
    target = tl.make_tensor_descriptor(out, [BLOCK, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    target.store([0, 0], first.load([0, 0]))


@pytest.mark.parametrize("n", [3, 6])
def test_a_chosen_descriptor_keeps_its_padding(n):
    a, b, out = random(8, 16), random(8, 16, seed=1), torch.zeros(16, 16)
    chosen[(1,)](a, b, out, n, BLOCK=16)
    expected = block_at((a, b)[n % 2 == 0][:n], (0, 0), (16, 16), (0.0, torch.nan)[n % 2 == 0])
    assert same(out, expected)


@triton.jit(noinline=True)
def apart(source, at, n):
    if n > 8:
        return source.load([at, 0])
    other = source.load([at + 1, 1])
    return other * 2


@triton.jit
def calls(source, out, at, n, BLOCK: tl.constexpr):
    target = tl.make_tensor_descriptor(out, [BLOCK, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
    if n == 0:
        return
    if n == 2:
        source = tl.make_tensor_descriptor(out, [2, BLOCK], [BLOCK, 1], [BLOCK, BLOCK])
        if at < 0:
            return
    target.store([0, 0], apart(source, at, n))


@pytest.mark.parametrize(("n", "at"), [(0, 0), (9, 3), (4, 3), (2, 0), (2, -1)])
def test_descriptors_pass_calls_and_early_returns(n, at):
    x, out = random(12, 16), torch.ones(16, 16)
    calls[(1,)](TensorDescriptor.from_tensor(x, [16, 16]), out, at, n, BLOCK=16)
    ones = torch.ones(16, 16)
    expected = {
        0: ones,
        9: block_at(x, (3, 0), (16, 16)),
        4: 2 * block_at(x, (4, 1), (16, 16)),
        2: ones if at < 0 else 2 * block_at(ones[:2], (1, 1), (16, 16)),
    }
    assert same(out, expected[n])


@triton.jit
def fewer_dims(x, out, n, BLOCK: tl.constexpr):
    source = tl.make_tensor_descriptor(
        x, [2, n, 3, n], [3 * n * n, 3 * n, n, 1], [1, BLOCK, 1, BLOCK]
    )
    value = source.load([1, 0, 2, 0]).reshape(BLOCK, BLOCK)
    target = tl.make_tensor_descriptor(out, [2, n, n], [n * n, n, 1], [1, BLOCK, BLOCK])
    target.store([1, 0, 0], value.reshape(1, BLOCK, BLOCK))


def test_dimensions_of_size_one_may_be_dropped():
    x, out = random(2, 12, 3, 12), torch.zeros(2, 12, 12)
    fewer_dims[(1,)](x, out, 12, BLOCK=16)
    assert same(out[1], x[1, :, 2])
    assert not out[0].any()

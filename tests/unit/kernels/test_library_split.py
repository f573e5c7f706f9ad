"""Products summed in parts of K: their order of sums, and where they are chosen."""

from __future__ import annotations

import pytest
import torch

from asterope.chips import maia200, replace
from asterope.kernels import (
    Blocks,
    Choice,
    ScaledOperand,
    choose_blocks,
    considered,
    linear,
    quantize_rows,
    scaled_linear,
    watched_choices,
)
from asterope.runtime import simulate

DEEP = Choice(16, 64, 32768, 16, 16)
# As many tiles as columns of blocks: none is idle without a split.
FEW = replace(maia200(), {"clusters": 1, "tiles_per_cluster": 1})


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cut(split, k=64):
    return Blocks(8, 32, k, 8, 3, split)


def in_parts(blocks, k, product):
    """Add the products of the parts of K, in float32 and ascending order."""
    depth = blocks.part_depth(k)
    total = product(0, depth)
    for start in range(depth, k, depth):
        total = total + product(start, min(start + depth, k))
    return total


@pytest.mark.parametrize(
    ("k", "split", "parts"), [(64, 4, 1), (100, 2, 2), (640, 4, 4), (577, 3, 3), (640, 32, 10)]
)
def test_parts_are_whole_blocks_and_none_is_empty(k, split, parts):
    blocks = cut(split)
    assert blocks.parts(k) == parts
    assert blocks.part_depth(k) % blocks.k == 0
    assert 0 < k - (parts - 1) * blocks.part_depth(k) <= blocks.part_depth(k)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        *(pytest.param(x, marks=pytest.mark.slow) for x in (torch.float32, torch.float8_e4m3fn)),
    ],
)
@pytest.mark.parametrize(
    ("m", "n", "k", "split"), [(5, 40, 1000, 2), (16, 64, 512, 4), (1, 33, 777, 16)]
)
def test_parts_are_added_in_ascending_order(dtype, m, n, k, split):
    """Bit for bit what adding the products of its parts gives; then scales, then the bias."""
    x, w = random(m, k, dtype=dtype), random(n, k, seed=1, dtype=dtype)
    x_scale, w_scale, bias = random(m).abs(), random(n, seed=1).abs(), random(n, seed=2)
    blocks = cut(split)
    with watched_choices(instead=blocks):
        got = linear(
            x, w, bias=bias, x_scale=x_scale, weight_scale=w_scale, out_dtype=torch.float32
        )
    total = in_parts(blocks, k, lambda a, b: linear(x[:, a:b], w[:, a:b], out_dtype=torch.float32))
    assert torch.equal(got, total * x_scale[:, None] * w_scale + bias)


@pytest.mark.parametrize("activations", [None, "mxfp4"])
def test_block_scaled_parts_are_added_in_ascending_order(activations):
    m, n, k = 9, 40, 640
    w = quantize_rows(random(n, k, seed=1), "mxfp4")
    x = ScaledOperand(codes=random(m, k, dtype=torch.bfloat16), format="bf16")
    if activations:
        x = quantize_rows(random(m, k), activations)

    def columns(operand, a, b):
        width = operand.shape[1] // operand.codes.shape[1]
        scales = operand.scales
        return ScaledOperand(
            codes=operand.codes[:, a // width : b // width].contiguous(), format=operand.format,
            scales=None if scales is None else scales[:, a // 32 : b // 32].contiguous(),
        )  # fmt: skip

    def product(a, b):
        return scaled_linear(columns(x, a, b), columns(w, a, b), out_dtype=torch.float32)

    blocks, bias = cut(4), random(n, seed=2)
    with watched_choices(instead=blocks):
        got = scaled_linear(x, w, bias=bias, out_dtype=torch.float32)
    assert torch.equal(got, in_parts(blocks, k, product) + bias)


@pytest.mark.parametrize("split", [1, 4])
def test_any_number_of_threads_adds_in_the_same_order(monkeypatch, split):
    x, w = random(64, 2048, dtype=torch.bfloat16), random(256, 2048, seed=1, dtype=torch.bfloat16)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("ASTEROPE_NUM_THREADS", threads)
        with watched_choices(instead=cut(split)):
            found.append(linear(x, w, out_dtype=torch.float32))
    assert all(torch.equal(found[0], other) for other in found)


def test_block_sizes_change_no_bit():
    x, w = random(20, 1024, dtype=torch.bfloat16), random(70, 1024, seed=1, dtype=torch.bfloat16)
    plain = linear(x, w)
    for blocks in (Blocks(1, 16, 32, 8, 3), Blocks(16, 64, 512, 2, 2), Blocks(32, 128, 1024, 8, 4)):
        with watched_choices(instead=blocks):
            assert torch.equal(linear(x, w), plain)


def test_only_a_simulated_product_is_split():
    """Without a chip there is one order of sums, whatever chips there are."""
    sizes = (DEEP.m, DEEP.n, DEEP.k, DEEP.a_bits, DEEP.b_bits)
    assert choose_blocks(*sizes).split == 1
    with simulate(maia200(), values=False):
        assert choose_blocks(*sizes).split > 1
    with simulate(FEW, values=False):
        assert choose_blocks(*sizes).split == 1


def test_a_product_with_work_for_all_tiles_is_not_split():
    found = considered(maia200(), Choice(64, 28672, 4096, 16, 16))
    assert {each.blocks.split for each in found[:8]} == {1}


def test_a_split_product_takes_less_than_half_of_the_time():
    x, w = (torch.empty(rows, DEEP.k, dtype=torch.bfloat16, device="meta") for rows in (16, 64))
    times = {}
    usual = [c.blocks for c in considered(maia200(), DEEP) if not c.blocks.is_placed]
    whole = next(blocks for blocks in usual if blocks.split == 1)
    for name, blocks in (("whole", whole), ("split", usual[0])):
        with watched_choices(instead=blocks), simulate(maia200(), values=False) as timeline:
            linear(x, w)
        times[name] = timeline.time_s
    assert times["split"] < times["whole"] / 2

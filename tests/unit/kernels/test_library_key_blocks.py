"""Blocks of attention: what changes no bit, keys in parts, and the chip they are chosen for."""

from __future__ import annotations

import pytest
import torch

from asterope.chips import maia200, replace
from asterope.kernels import (
    AttentionShape,
    KeyBlocks,
    attention,
    attention_reference,
    choose_key_blocks,
    considered_keys,
    watched_choices,
)
from asterope.runtime import simulate

DECODE = AttentionShape(batch=1, kv_heads=1, share=8, dim=128, tokens=1, past=32767)
PREFILL = AttentionShape(batch=1, kv_heads=8, share=4, dim=128, tokens=512, past=0)


def inputs(batch, kv_heads, share, dim, tokens, past, dtype=torch.float32):
    make = torch.Generator().manual_seed(0)
    q = torch.randn(batch * tokens, kv_heads * share, dim, generator=make)
    k, v = (torch.randn(batch, kv_heads, past + tokens + 3, dim, generator=make) for _ in range(2))
    return q.to(dtype), k.to(dtype), v.to(dtype)


def computed(q, k, v, blocks, **options):
    with watched_choices(instead=blocks):
        return attention(q, k, v, scale=0.2, **options)


@pytest.mark.parametrize(
    "window", [None, 30, *(pytest.param(x, marks=pytest.mark.slow) for x in (1, 70))]
)
@pytest.mark.parametrize(
    ("batch", "kv_heads", "share", "dim", "tokens", "past"),
    [
        (1, 1, 4, 32, 1, 200),
        (2, 2, 2, 24, 5, 130),
        pytest.param(1, 2, 3, 16, 40, 0, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("blocks", [KeyBlocks(4, 16, 4, 3), KeyBlocks(16, 32, 4, 8)], ids=str)
def test_parts_of_the_keys_are_put_together(
    batch, kv_heads, share, dim, tokens, past, window, blocks
):
    """Also where a part holds no key of a row: after its place, or outside of its window."""
    q, k, v = inputs(batch, kv_heads, share, dim, tokens, past)
    got = computed(q, k, v, blocks, past=past, window=window)
    expected = attention_reference(q, k, v, past=past, scale=0.2, window=window)
    assert torch.allclose(got.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 30])
def test_a_sink_is_in_one_of_the_parts(window):
    q, k, v = inputs(2, 2, 2, 24, 5, 130)
    how = {"past": 130, "window": window, "sinks": torch.tensor([0.0, 3.0, -2.0, 1.0])}
    got = computed(q, k, v, KeyBlocks(4, 16, 4, 3), **how)
    expected = attention_reference(q, k, v, scale=0.2, **how)
    assert torch.allclose(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_parts_have_whole_blocks_and_cover_the_keys():
    for split in (1, 2, 5, 32, 1000):
        blocks = KeyBlocks(8, 64, 4, split)
        part, parts = blocks.part_keys(DECODE), blocks.parts(DECODE)
        assert part % 64 == 0
        assert (parts - 1) * part < DECODE.keys <= parts * part
        assert parts <= split


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_program_change_no_bit(dtype):
    q, k, v = inputs(1, 2, 4, 32, 50, 70, dtype)
    plain = attention(q, k, v, past=70, scale=0.2)
    for rows in (1, 8, 64, 256):
        assert torch.equal(computed(q, k, v, KeyBlocks(rows, 64, 3), past=70), plain)


@pytest.mark.parametrize("split", [1, 4])
def test_any_number_of_threads_puts_together_in_the_same_order(monkeypatch, split):
    q, k, v = inputs(4, 4, 2, 64, 1, 511, torch.bfloat16)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("ASTEROPE_NUM_THREADS", threads)
        found.append(computed(q, k, v, KeyBlocks(2, 64, 4, split), past=511))
    assert all(torch.equal(found[0], other) for other in found)


def test_blocks_follow_a_chip_only_where_one_is_simulated():
    for shape in (DECODE, PREFILL):
        usual = choose_key_blocks(shape)
        assert (usual.keys, usual.split) == (64, 1)
        with simulate(maia200(), values=False):
            chosen = choose_key_blocks(shape)
        assert chosen != usual
        assert chosen == considered_keys(maia200(), shape)[0].blocks
        assert choose_key_blocks(shape) == usual


def test_keys_are_split_where_tiles_are_idle_and_nowhere_else():
    assert considered_keys(maia200(), DECODE)[0].blocks.split > 1
    many = replace(maia200(), {"clusters": 1, "tiles_per_cluster": 1})
    assert considered_keys(many, DECODE)[0].blocks.split == 1
    assert {each.blocks.split for each in considered_keys(maia200(), PREFILL)} == {1}


def test_a_small_scratchpad_gets_small_blocks():
    small = replace(maia200(), {"tile.tsram.capacity_bytes": 1 << 17})
    blocks = considered_keys(small, DECODE)[0].blocks
    assert blocks.keys < considered_keys(maia200(), DECODE)[0].blocks.keys or blocks.keys == 64

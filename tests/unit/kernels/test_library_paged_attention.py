"""Attention over pages: the bits of the kernel over keys in one piece, whatever the tables say."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.chips import maia200
from asterope.errors import ShapeError
from asterope.kernels import (
    KeyBlocks,
    Pages,
    attention,
    paged_attention,
    paged_attention_reference,
    watched_choices,
)
from asterope.runtime import simulate

KV_HEADS, SHARE, DIM = 2, 3, 24
MOST = 90
WAYS = settings(deadline=None, derandomize=True, database=None, max_examples=25)


def paged(page, sequences, seed=0, dtype=torch.float32):
    """Return queries, caches and pages of sequences, each of so many keys and new tokens."""
    make = torch.Generator().manual_seed(seed)
    each = -(-MOST // page)
    count = each * len(sequences)
    tables = torch.randperm(count + 3, generator=make, dtype=torch.int32)[:count]
    starts = torch.tensor([0, *(new for _, new in sequences)]).cumsum(0).int()
    keys, values = (
        torch.randn(count + 3, page, KV_HEADS, DIM, generator=make).to(dtype) for _ in range(2)
    )
    lengths = torch.tensor([length for length, _ in sequences], dtype=torch.int32)
    q = torch.randn(int(starts[-1]), KV_HEADS * SHARE, DIM, generator=make).to(dtype)
    return q, keys, values, Pages(tables.view(len(sequences), each), lengths, starts)


def in_one_piece(q, keys, values, pages, **asked):
    """Return what `attention` gives for each sequence alone, its keys copied into one piece."""
    made = []
    for b, length in enumerate(pages.lengths.tolist()):
        new = q[pages.starts[b] : pages.starts[b + 1]]
        held = []
        for x in (keys, values):
            cache = torch.zeros(1, KV_HEADS, MOST + 6, DIM).to(x.dtype)
            mine = x[pages.tables[b].long()].flatten(0, 1)[:length]
            cache[0, :, :length] = mine.transpose(0, 1)
            held.append(cache)
        if len(new):
            made.append(attention(new, *held, past=length - len(new), **asked))
    return torch.cat(made) if made else q.new_empty((0, q.shape[1] * DIM))


# Few numbers, as each kind of number is another kernel to compile.
SEQUENCES = st.lists(st.sampled_from([(1, 1), (70, 1), (90, 7), (90, 0), (33, 33)]), min_size=1,
                     max_size=4)  # fmt: skip


@pytest.mark.slow
@WAYS
@given(
    asked=SEQUENCES, page=st.sampled_from([8, 64]), seed=st.integers(0, 99),
    window=st.sampled_from([None, 20]),
)  # fmt: skip
def test_bits_are_those_over_keys_in_one_piece(asked, page, seed, window):
    q, keys, values, pages = paged(page, asked, seed)
    with watched_choices(instead=KeyBlocks(16, 32, 4)):
        got = paged_attention(q, keys, values, pages, scale=0.2, window=window)
        expected = in_one_piece(q, keys, values, pages, scale=0.2, window=window)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("dtype", "page", "window"), [(torch.bfloat16, 16, None), (torch.float8_e4m3fn, 64, 20)]
)
def test_bits_are_the_same_in_other_types(dtype, page, window):
    q, keys, values, pages = paged(page, [(40, 1), (90, 30)])
    q, keys, values = q.to(torch.bfloat16), keys.to(dtype), values.to(dtype)
    asked = {"scale": 0.2, "key_scale": 0.7, "value_scale": 0.4, "window": window}
    got = paged_attention(q, keys, values, pages, **asked)
    assert torch.equal(got, in_one_piece(q, keys, values, pages, **asked))


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("blocks", [KeyBlocks(4, 16, 4, 3), KeyBlocks(16, 32, 4, 8)], ids=str)
def test_parts_of_the_keys_are_put_together(blocks, window):
    """Also those of a sequence that is shorter than others, and has no key in the last parts."""
    given = paged(8, [(5, 1), (90, 2), (33, 33), (64, 0)])
    with watched_choices(instead=blocks):
        got = paged_attention(*given, scale=0.2, window=window)
    expected = paged_attention_reference(*given, scale=0.2, window=window)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_entries_and_short_runs_cost_time():
    """Tables are read ahead of the keys; rows of several heads lie apart in a page."""
    q = torch.empty((8, 8, 128), dtype=torch.bfloat16, device="meta")
    found = {}
    for page in (0, 16, 128):
        with simulate(maia200(), values=False) as timeline:
            if page:
                tables = torch.arange(8 * 2048 // page, dtype=torch.int32).view(8, -1)
                pages = Pages(
                    tables, torch.full((8,), 2048, dtype=torch.int32),
                    torch.arange(9, dtype=torch.int32),
                )  # fmt: skip
                cache = q.new_empty((2, tables.numel(), page, 2, 128))
                paged_attention(q, cache[0], cache[1], pages, scale=0.1)
            else:
                cache = q.new_empty((2, 8, 2, 2048, 128))
                attention(q, cache[0], cache[1], past=2047, scale=0.1)
        found[page] = timeline.launches[0].result
    assert found[0].time_ps < found[128].time_ps < 1.3 * found[0].time_ps
    assert found[0].time_ps < found[16].time_ps < 1.3 * found[0].time_ps
    # An entry of 4 bytes for 16 keys, which key heads share; where sequences begin and end.
    entries = found[16].hbm_bytes - found[0].hbm_bytes
    assert 8 * 128 * 4 < entries < 8 * 128 * 4 + 128


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tables": [[0, 1, 9, 2, 3, 4]]}, "a page outside 0..8"),
        ({"lengths": [97]}, "not from a sequence's new tokens to 96"),
        ({"lengths": [2]}, "not from a sequence's new tokens to 96"),
        ({"starts": [0, 2]}, "do not go from 0 to 3 rows"),
        ({"starts": [0, 1, 3]}, "not of one number of sequences"),
    ],
)
def test_wrong_tables_are_named(changes, words):
    q, keys, values, pages = paged(16, [(40, 3)])
    changed = {name: torch.tensor(rows, dtype=torch.int32) for name, rows in changes.items()}
    with pytest.raises(ShapeError, match=words):
        paged_attention(q, keys, values, dataclasses.replace(pages, **changed), scale=0.2)


def test_wrong_pages_and_heads_are_named():
    q, keys, values, pages = paged(16, [(40, 3)])
    nowhere = dataclasses.replace(pages, tables=pages.tables.to("meta"))
    with pytest.raises(ShapeError, match="tables are not contiguous int32 with values"):
        paged_attention(q, keys, values, nowhere, scale=0.2)
    with pytest.raises(ShapeError, match="pages of 12 tokens: not a power of two"):
        paged_attention(q, keys[:, :12], values[:, :12], pages, scale=0.2)
    with pytest.raises(ShapeError, match="do not lie alike"):
        paged_attention(q, keys, values[1:], pages, scale=0.2)
    with pytest.raises(ShapeError, match="does not fit 2 key heads"):
        paged_attention(q[:, :5], keys, values, pages, scale=0.2)

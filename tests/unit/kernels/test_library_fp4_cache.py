"""Keys and values in blocks of E2M1: what is written to a cache, and attention over it."""

from __future__ import annotations

import pytest
import torch

from asterope import formats
from asterope.errors import ConfigError, ShapeError
from asterope.kernels import (
    CACHE_FORMATS,
    BlockRows,
    KeyBlocks,
    Pages,
    attention,
    cache_format,
    paged_attention,
    rotate_and_cache,
    watched_choices,
)

NAMES = ["nvfp4", "mxfp4"]
BATCH, KV_HEADS, HEADS, ROOM = 2, 2, 8, 200


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_blocks(x, name, upper=1.0):
    """Return what `formats` makes of numbers, and the numbers that it stands for over `upper`."""
    above = {"global_scale": upper} if CACHE_FORMATS[name].two_level else {}
    made = formats.quantize(x.numpy(), name, packed=True, **above)
    scales = torch.from_numpy(made.scales.copy())
    if name == "nvfp4":
        scales = scales.view(torch.float8_e4m3fn)
    stands_for = torch.from_numpy(formats.dequantize(made)) / upper
    return BlockRows(torch.from_numpy(made.codes.copy()), scales), stands_for


def assert_same(got, want):
    assert torch.equal(got.codes, want.codes)
    assert torch.equal(got.scales.view(torch.uint8), want.scales.view(torch.uint8))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "window", "tokens", "dim"),
    [
        (torch.bfloat16, None, 1, 128), (torch.bfloat16, 40, 5, 64),
        pytest.param(torch.float32, None, 5, 64, marks=pytest.mark.slow),
        pytest.param(torch.float16, 40, 1, 64, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_attention_over_blocks_has_the_bits_of_that_over_what_they_stand_for(
    name, dtype, window, tokens, dim
):
    parts = [in_blocks(random(BATCH, KV_HEADS, ROOM, dim, seed=s), name) for s in (1, 2)]
    query = random(BATCH * tokens, HEADS, dim).to(dtype)
    asked = {"past": 150, "scale": dim**-0.5, "window": window}
    asked["sinks"] = random(query.shape[1], seed=5) if window else None
    asked |= {"key_scale": 0.75, "value_scale": 0.3}
    got = attention(query, *(blocks for blocks, _ in parts), **asked)
    want = attention(query, *(wide.to(dtype) for _, wide in parts), **asked)
    assert got.dtype == dtype
    assert torch.equal(got, want)


def test_heads_of_any_number_of_blocks_are_read():
    parts = [in_blocks(random(1, 2, 70, 96, seed=s), "nvfp4") for s in (1, 2)]
    query = random(3, 4, 96).bfloat16()
    got, want = (
        attention(query, *(pair[i].to(query.dtype) if i else pair[i] for pair in parts),
                  past=60, scale=0.1)
        for i in (0, 1)
    )  # fmt: skip
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_the_keys_are_those_over_what_blocks_stand_for(name):
    parts = [in_blocks(random(1, 1, 256, 64, seed=s), name) for s in (1, 2)]
    query = random(1, 8, 64).bfloat16()
    with watched_choices(instead=KeyBlocks(8, 64, 4, 4)):
        asked = {"past": 255, "scale": 0.1, "sinks": random(8, seed=3)}
        got = attention(query, *(blocks for blocks, _ in parts), **asked)
        want = attention(query, *(wide.bfloat16() for _, wide in parts), **asked)
    assert torch.equal(got, want)


@pytest.mark.parametrize(("name", "page"), [("nvfp4", 16), ("mxfp4", 64)])
def test_pages_of_blocks_give_the_bits_of_those_of_what_they_stand_for(name, page):
    count, dim = 192 // page, 64
    tables = torch.randperm(2 * count, generator=torch.Generator().manual_seed(3)).int()
    pages = Pages(
        tables.view(2, count), torch.tensor([150, 33]).int(), torch.tensor([0, 1, 6]).int()
    )
    parts = [in_blocks(random(2 * count, page, KV_HEADS, dim, seed=s), name) for s in (1, 2)]
    query = random(6, HEADS, dim).bfloat16()
    asked = {"scale": 0.2, "window": 90, "key_scale": 0.7, "value_scale": 0.4}
    got = paged_attention(query, *(blocks for blocks, _ in parts), pages, **asked)
    want = paged_attention(query, *(wide.bfloat16() for _, wide in parts), pages, **asked)
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("name", "dtype", "scales"),
    [
        ("nvfp4", torch.bfloat16, (0.0131, 0.0029)), ("mxfp4", torch.bfloat16, (1.0, 1.0)),
        pytest.param("nvfp4", torch.float32, (1.0, 1.0), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_cache_gets_the_codes_and_scales_of_its_format(name, dtype, scales):
    tokens, dim = 3, 64
    shape = (BATCH, KV_HEADS, 20, dim)
    qkv = (3 * random(BATCH * tokens, (HEADS + 2 * KV_HEADS) * dim)).to(dtype)
    angles = random(20, dim // 2, seed=4)
    asked = {"q_heads": HEADS, "past": 7}
    wide = [torch.zeros(shape) for _ in range(2)]
    narrow = [in_blocks(torch.zeros(shape), name)[0] for _ in range(2)]
    q_wide = rotate_and_cache(qkv, *wide, angles.cos(), angles.sin(), **asked)
    q_narrow = rotate_and_cache(
        qkv,
        *narrow,
        angles.cos(),
        angles.sin(),
        key_scale=scales[0],
        value_scale=scales[1],
        **asked,
    )
    assert torch.equal(q_wide, q_narrow)
    for whole, cached, scale in zip(wide, narrow, scales, strict=True):
        assert_same(cached, in_blocks(whole, name, scale)[0])


def test_a_value_that_is_no_number_stays_one():
    dim, shape = 64, (1, 1, 4, 64)
    for name in NAMES:
        cached = [in_blocks(torch.zeros(shape), name)[0] for _ in range(2)]
        qkv = random(1, 3 * dim).bfloat16()
        qkv[0, 2 * dim + 40] = torch.inf
        q = rotate_and_cache(
            qkv, *cached, torch.ones(4, dim // 2), torch.zeros(4, dim // 2), q_heads=1, past=0
        )
        found = attention(q, *cached, past=0, scale=1.0)[0].isnan()
        block = CACHE_FORMATS[name].group
        assert found.tolist() == [i // block == 40 // block for i in range(dim)]


def test_formats_say_their_bits_and_what_fits_them():
    assert [fmt.bits(torch.bfloat16) for fmt in CACHE_FORMATS.values()] == [16, 8, 4.5, 4.25]
    for name, dim in (("nvfp4", 48), ("mxfp4", 96)):
        with pytest.raises(ShapeError, match=f"do not divide half a head of {dim}"):
            CACHE_FORMATS[name].empty((1, 1, 4, dim), torch.bfloat16, "cpu")
    with pytest.raises(ConfigError, match="'fp5'"):
        cache_format("fp5")


def test_codes_and_scales_that_lie_apart_are_refused():
    rows, _ = in_blocks(random(1, 2, 64, 64), "nvfp4")
    scales = rows.scales.transpose(1, 2).contiguous().transpose(1, 2)
    apart = BlockRows(rows.codes, scales)
    with pytest.raises(ShapeError, match="do not lie alike"):
        attention(random(1, 4, 64), apart, apart, past=3, scale=1.0)
    other, _ = in_blocks(random(1, 2, 64, 64), "mxfp4")
    with pytest.raises(ShapeError, match="differ"):
        attention(random(1, 4, 64), rows, other, past=3, scale=1.0)

"""Keys and values in fp8: what is written to a cache, and attention over it."""

from __future__ import annotations

import pytest
import torch

from asterope.kernels import attention, attention_reference
from asterope.kernels.rotary import rotate_and_cache

FP8 = torch.float8_e4m3fn
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
BATCH, KV_HEADS, HEADS, ROOM, DIM = 2, 2, 8, 200, 64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def empty_caches():
    return [torch.zeros(BATCH, KV_HEADS, ROOM, DIM, dtype=FP8) for _ in range(2)]


@pytest.mark.parametrize(
    ("dtype", "window", "tokens"),
    [
        (torch.bfloat16, None, 1), (torch.bfloat16, 40, 5),
        pytest.param(torch.float16, 40, 1, marks=pytest.mark.slow),
        pytest.param(torch.float32, None, 5, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_attention_over_fp8_is_that_over_the_numbers_it_stands_for(dtype, window, tokens):
    keys, values = (random(BATCH, KV_HEADS, ROOM, DIM, seed=s).to(FP8) for s in (1, 2))
    query = random(BATCH * tokens, HEADS, DIM).to(dtype)
    asked = {"past": 150, "scale": DIM**-0.5, "window": window}
    scaled = {"key_scale": 0.75, "value_scale": 0.3}
    got = attention(query, keys, values, **asked, **scaled)
    want = attention_reference(query, keys, values, **asked, **scaled)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=0, atol=4 * torch.finfo(dtype).eps)
    # A cache of the queries' type that holds the same numbers gives the same bits.
    wide = attention(
        query, keys.to(dtype), values.to(dtype), key_scale=0.75, value_scale=0.3, **asked
    )
    assert torch.equal(got, wide)


@DTYPES
@pytest.mark.parametrize("scales", [(1.0, 1.0), (2.0, 0.5), (0.0173, 3.1)])
def test_a_cache_gets_what_it_is_divided_by_rounded_to_fp8(dtype, scales):
    keys, values = empty_caches()
    tokens, heads = 3, HEADS + 2 * KV_HEADS
    qkv = (300 * random(BATCH * tokens, heads * DIM)).to(dtype)
    still = torch.ones(ROOM, DIM // 2), torch.zeros(ROOM, DIM // 2)
    rotate_and_cache(
        qkv, keys, values, *still, q_heads=HEADS, past=7, key_scale=scales[0], value_scale=scales[1]
    )
    whole = qkv.float().view(BATCH, tokens, heads, DIM).transpose(1, 2)
    parts = whole[:, HEADS : HEADS + KV_HEADS], whole[:, HEADS + KV_HEADS :]
    for cache, part, scale in zip((keys, values), parts, scales, strict=True):
        factor = torch.tensor(1 / scale, dtype=torch.float32)
        want = (part * factor).clamp(-448, 448).to(FP8)
        assert torch.equal(cache[:, :, 7 : 7 + tokens].float(), want.float())
        assert cache[:, :, :7].float().abs().max() == 0
    assert keys.float().abs().max() == 448  # larger ones become that


def test_a_head_norm_rounds_to_the_type_of_its_input_whatever_the_cache_holds():
    tokens, dtype = 4, torch.bfloat16
    qkv = random(BATCH * tokens, (HEADS + 2 * KV_HEADS) * DIM).to(dtype)
    gain = (1 + 0.1 * random(DIM, seed=3)).to(dtype)
    angles = random(ROOM, DIM // 2, seed=4)
    more = {"q_heads": HEADS, "past": 0, "q_norm": gain, "k_norm": gain}
    wide = [torch.zeros(BATCH, KV_HEADS, ROOM, DIM, dtype=torch.float32) for _ in range(2)]
    narrow = empty_caches()
    q_wide = rotate_and_cache(qkv, *wide, angles.cos(), angles.sin(), **more)
    q_narrow = rotate_and_cache(qkv, *narrow, angles.cos(), angles.sin(), **more)
    assert torch.equal(q_wide, q_narrow)
    for one, other in zip(wide, narrow, strict=True):
        assert torch.equal(one.to(FP8).float(), other.float())

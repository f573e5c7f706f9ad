"""Attention over latent vectors: absorbed, expanded, in pages, and what comes before it."""

from __future__ import annotations

import pytest
import torch

from asterope.chips import get, maia200
from asterope.errors import ShapeError
from asterope.kernels import (
    KeyBlocks,
    LatentStep,
    Pages,
    absorbed_attention,
    absorbed_attention_reference,
    expanded_attention,
    expanded_attention_reference,
    expands,
    head_linear,
    head_linear_reference,
    latent_attention,
    turn_and_cache_latents,
    watched_choices,
)
from asterope.runtime import simulate

BATCH, HEADS, LATENT, ROPE, NOPE, VALUE, ROOM = 2, 5, 48, 16, 24, 40, 112
DEEPSEEK = {"heads": 128, "latent": 512, "rope": 64, "nope": 128, "value": 128}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def near(got, expected):
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocks", [None, KeyBlocks(8, 16, 4, 3)], ids=str)
@pytest.mark.parametrize(("tokens", "past"), [(1, 70), (9, 30)])
def test_both_ways_give_what_their_definitions_do(tokens, past, blocks):
    cache = random(BATCH, ROOM, LATENT + ROPE)
    q, turned = (random(BATCH * tokens, HEADS, size, seed=size) for size in (LATENT, ROPE))
    query = random(BATCH * tokens, HEADS, NOPE + ROPE)
    made = random(BATCH, past + tokens, HEADS * (NOPE + VALUE))
    asked = {"past": past, "scale": 0.1}
    with watched_choices(instead=blocks):
        absorbed = absorbed_attention(q, turned, cache, **asked)
        expanded = expanded_attention(query, made, cache, nope=NOPE, **asked)
    near(absorbed, absorbed_attention_reference(q, turned, cache, **asked))
    near(expanded, expanded_attention_reference(query, made, cache, nope=NOPE, **asked))


@pytest.mark.parametrize(("tokens", "past"), [(1, 70), (64, 0)])
def test_absorbed_or_expanded_it_is_the_same_attention(tokens, past):
    """One token over many keys is absorbed, a prompt is expanded."""
    q = random(BATCH * tokens, HEADS, NOPE + ROPE)
    cache, weight = random(BATCH, ROOM, LATENT + ROPE), random(HEADS * (NOPE + VALUE), LATENT) / 7
    got = latent_attention(q, cache, weight, nope=NOPE, past=past, scale=0.1)
    made = cache[:, : past + tokens, :LATENT].double() @ weight.double().T
    near(got, expanded_attention_reference(q, made, cache, nope=NOPE, past=past, scale=0.1))


def test_bits_in_pages_are_those_of_a_cache_in_one_piece():
    tokens, past, page = 3, 40, 16
    cache = random(BATCH, ROOM, LATENT + ROPE)
    order = torch.randperm(BATCH * 7, generator=torch.Generator().manual_seed(1)).int()
    paged = torch.empty(BATCH * 7, page, LATENT + ROPE)
    paged[order.long()] = cache.view(-1, page, LATENT + ROPE)
    pages = Pages(order.view(BATCH, 7), torch.tensor([43, 43]).int(), torch.tensor([0, 3, 6]).int())
    q, turned = (random(BATCH * tokens, HEADS, size) for size in (LATENT, ROPE))
    one = absorbed_attention(q, turned, cache, past=past, scale=0.1)
    assert torch.equal(absorbed_attention(q, turned, paged, pages=pages, scale=0.1), one)


def test_a_cache_in_fp8_is_the_numbers_it_stands_for():
    cache = random(BATCH, ROOM, LATENT + ROPE).to(torch.float8_e4m3fn)
    q, turned = (random(BATCH, HEADS, size, seed=size).bfloat16() for size in (LATENT, ROPE))
    got = absorbed_attention(q, turned, cache, past=60, scale=0.1, cache_scale=0.5)
    wide = cache.double() * 0.5
    expected = absorbed_attention_reference(q, turned, wide, past=60, scale=0.1)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=0.03)


def test_each_head_is_multiplied_by_its_own_matrix_however_it_lies():
    x, stored = random(7, HEADS, NOPE + ROPE), random(HEADS, NOPE + VALUE, LATENT)
    into = stored[:, :NOPE].transpose(1, 2)
    near(head_linear(x[..., :NOPE], into), head_linear_reference(x[..., :NOPE], into))
    y = random(7, HEADS, LATENT)
    near(head_linear(y, stored[:, NOPE:]), head_linear_reference(y, stored[:, NOPE:]))
    assert head_linear(y[:0], stored).shape == (0, HEADS, NOPE + VALUE)


@pytest.mark.parametrize("pairs", [True, False])
def test_latents_are_normalised_and_queries_and_keys_turned(pairs):
    tokens, past = 3, 5
    kv, q = random(BATCH * tokens, 8 + LATENT + ROPE)[:, 8:], random(6, HEADS, NOPE + ROPE)
    gain, angles = random(LATENT, seed=3), random(ROOM, ROPE // 2, seed=4)
    cache, before = torch.zeros(BATCH, ROOM, LATENT + ROPE), q.clone()
    cos, sin = angles.cos(), angles.sin()
    turn_and_cache_latents(kv, q, cache, gain, cos, sin, past=past, eps=1e-6, pairs=pairs)

    def turned(x, place):
        ends = (x[..., 0::2], x[..., 1::2]) if pairs else x.chunk(2, -1)
        c, s = (t[place].double() for t in (cos, sin))
        low, high = (end.double() for end in ends)
        return torch.cat([low * c - high * s, high * c + low * s], -1)

    rows = cache[:, past : past + tokens].flatten(0, 1)
    latent = kv[:, :LATENT].double()
    normal = latent / (latent.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain.double()
    near(rows[:, :LATENT], normal)
    for row in range(BATCH * tokens):
        place = past + row % tokens
        near(rows[row, LATENT:], turned(kv[row, LATENT:], place))
        near(q[row, :, NOPE:], turned(before[row, :, NOPE:], place))
    assert torch.equal(q[..., :NOPE], before[..., :NOPE])
    assert cache[:, :past].abs().max() == cache[:, past + tokens :].abs().max() == 0


@pytest.mark.parametrize(
    ("batch", "tokens", "past", "is_expanded"),
    [(1, 1, 4095, False), (32, 1, 1023, False), (1, 512, 0, True), (1, 64, 4032, False)],
)
def test_the_way_taken_is_the_faster_one(batch, tokens, past, is_expanded):
    """By operations where no chip is simulated, by the closed forms of one that is."""
    step = LatentStep(**DEEPSEEK, batch=batch, tokens=tokens, past=past)
    assert expands(step) == is_expanded
    for chip in (maia200(), get("h100")):
        with simulate(chip, values=False, fidelity="roofline"):
            assert expands(step) == is_expanded


def test_what_does_not_fit_is_named():
    cache, q, turned = (random(BATCH, n, size) for n, size in ((9, 64), (5, 48), (5, 16)))
    with pytest.raises(ShapeError, match="do not fit, each row in one piece"):
        absorbed_attention(q, turned[..., :8], cache, scale=1.0)
    with pytest.raises(ShapeError, match=r"9 \+ 1 tokens are outside the cache's 9"):
        absorbed_attention(q, turned, cache, past=9, scale=1.0)
    with pytest.raises(ShapeError, match="expanded keys and values"):
        expanded_attention(q, random(BATCH, 9, 41), cache, nope=32, past=0, scale=1.0)
    with pytest.raises(ShapeError, match="a weight"):
        latent_attention(q, cache, random(41, 48), nope=32, scale=1.0)
    with pytest.raises(ShapeError, match="each head's part in one piece"):
        head_linear(q, random(5, 3, 47))
    with pytest.raises(ShapeError, match="do not fit"):
        turn_and_cache_latents(
            random(3, 64), q, cache, random(48), *(random(9, 8) for _ in "cs"), past=0, eps=1e-6,
            pairs=True,
        )  # fmt: skip

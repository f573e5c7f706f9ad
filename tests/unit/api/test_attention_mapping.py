"""Attention on a chip: its time, and that the closed form chooses nearly the best blocks."""

from __future__ import annotations

import pytest

from asterope import api, chips
from asterope.errors import ConfigError
from asterope.kernels import KeyBlocks

MAIA = chips.maia200()


def shape(
    heads=32, kv_heads=8, size=128, batch=1, context=4096, phase="decode", page=0, cache="auto"
):  # fmt: skip
    return api.HeadShape(
        heads=heads, kv_heads=kv_heads, size=size, batch=batch, context=context, phase=phase,
        page=page, cache=cache,
    )  # fmt: skip


def latent(batch=1, context=4096, phase="decode", page=0, heads=128):
    return api.LatentHeadShape(
        heads=heads, latent=512, rope=64, nope=128, value=128, batch=batch, context=context,
        phase=phase, page=page,
    )  # fmt: skip


OFTEN = ("decode", "prefill", "decode in pages", "decode in nvfp4")
SHAPES = {
    "decode": shape(),
    "decode of many": shape(batch=8, context=1024),
    "one key head": shape(heads=8, kv_heads=1, context=32768),
    "two key heads": shape(heads=8, kv_heads=2, size=64, context=16384),
    "prefill": shape(context=512, phase="prefill"),
    "decode in pages": shape(batch=2, context=2048, page=16),
    "one key head in pages": shape(heads=8, kv_heads=1, context=32768, page=64),
    "prefill in pages": shape(context=512, phase="prefill", page=16),
    "decode in nvfp4": shape(batch=8, context=8192, cache="nvfp4"),
    "one key head in mxfp4": shape(heads=8, kv_heads=1, context=32768, cache="mxfp4"),
    "prefill in nvfp4": shape(context=512, phase="prefill", cache="nvfp4"),
    "decode in fp8": shape(batch=8, context=8192, cache="fp8"),
    "decode in pages of nvfp4": shape(batch=2, context=2048, page=16, cache="nvfp4"),
    "prefill of small heads": shape(12, 12, 64, context=384, phase="prefill"),
}


@pytest.mark.parametrize(
    "name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in SHAPES]
)
def test_the_closed_form_chooses_nearly_the_best_of_what_it_considers(name):
    found = api.attention_mappings(MAIA, SHAPES[name], most=6)
    assert [each.time_s for each in found] == sorted(each.time_s for each in found)
    (chosen,) = [each for each in found if each.is_chosen]
    assert chosen.time_s <= 1.05 * found[0].time_s
    assert chosen.time_s == api.time_attention(MAIA, SHAPES[name]).time_s
    launched = MAIA.launch_overhead_s
    assert chosen.estimated_s == pytest.approx(chosen.time_s - launched, rel=0.25)


LATENT_SHAPES = {
    "decode": latent(batch=8),
    "one sequence": latent(),
    "few heads": latent(batch=4, heads=16, context=1024),
    "in pages": latent(batch=4, page=64, context=2048),
    "prefill": latent(phase="prefill", context=256),
}


@pytest.mark.parametrize(
    "name", [n if n == "decode" else pytest.param(n, marks=pytest.mark.slow) for n in LATENT_SHAPES]
)
def test_so_it_does_over_latents(name):
    found = api.attention_mappings(MAIA, LATENT_SHAPES[name], most=6)
    (chosen,) = [each for each in found if each.is_chosen]
    assert chosen.time_s <= 1.05 * found[0].time_s
    assert chosen.time_s == api.time_attention(MAIA, LATENT_SHAPES[name]).time_s


@pytest.mark.parametrize("name", ["maia200", "h100"])
def test_latents_are_absorbed_in_decode_and_expanded_in_prefill(name):
    chip = chips.get(name)
    decode, prefill = latent(context=256), latent(context=256, phase="prefill")
    assert decode.mapped(chip).is_latent
    assert not prefill.mapped(chip).is_latent
    assert decode.flop(chip) == 2 * 128 * (256 * 1088 + 512 * 256)
    assert prefill.flop(chip) == 2 * 128 * (256 * 257 // 2 * 320 + 256 * 512 * 256)
    for asked in (decode, prefill):
        time = api.time_attention(chip, asked)
        assert sum(time.parts.values()) == pytest.approx(time.time_s)
        assert time.timed_by == chip.fidelities[-1]
        assert 0 < time.peak_share < 1


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_not_slower_than_with_the_blocks_that_serve_all_shapes(name):
    rows = min(128, SHAPES[name].tokens * SHAPES[name].heads // SHAPES[name].kv_heads)
    usual = KeyBlocks(1 << (rows - 1).bit_length(), 64, 4)
    time_s = api.attention_launches(MAIA, SHAPES[name], blocks=usual).time_s
    assert api.time_attention(MAIA, SHAPES[name]).time_s <= time_s


def test_keys_of_one_head_go_to_many_tiles():
    (best, *_) = api.attention_mappings(MAIA, SHAPES["one key head"])
    assert best.split > 1
    assert best.programs == best.split
    time = api.time_attention(MAIA, SHAPES["one key head"])
    assert "_merge_parts_kernel" in time.mapping
    whole = api.attention_launches(MAIA, SHAPES["one key head"], blocks=KeyBlocks(8, 128, 4))
    assert time.time_s < whole.time_s / 2


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("name", ["maia200", "h100", "maia100"])
def test_each_chip_is_timed_by_the_best_it_has(name, phase):
    chip, asked = chips.get(name), shape(context=256, phase=phase)
    time = api.time_attention(chip, asked)
    assert time.timed_by == chip.fidelities[-1]
    assert sum(time.parts.values()) == pytest.approx(time.time_s)
    assert time.bound_by in time.parts
    assert 0 < time.peak_share < 1
    keys = [256] if phase == "decode" else range(1, 257)
    assert time.flop == 4 * 32 * 128 * sum(keys)


def test_there_are_no_mappings_where_nothing_is_known_of_the_inside():
    assert api.attention_mappings(chips.get("h100"), shape()) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kv_heads": 5}, "do not share 5 key heads"),
        ({"batch": 0}, "0 is not a size"),
        ({"page": 12}, "12 is not a power of two"),
    ],
)
def test_wrong_heads_and_sizes_are_named(wrong, words):
    with pytest.raises(ConfigError, match=words):
        shape(**wrong)

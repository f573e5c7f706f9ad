"""A KV cache in fp8: scales, what it does to a model, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from asterope.errors import CheckpointError, ConfigError
from asterope.llm import load_model, with_cache
from llm_checkpoints import raw_config, write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(
        write_checkpoint(tmp_path_factory.mktemp("qwen3"), raw_config(model_type="qwen3")),
        dtype="float32",
    )


@pytest.fixture(scope="module")
def windows(model):
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (3, 24), generator=drawn)


def logits(model, tokens):
    return model.forward(tokens, model.new_cache(*tokens.shape))


def test_scales_put_the_largest_key_and_value_at_the_largest_number(model, windows):
    fp8 = with_cache(model, "fp8", windows)
    wide, narrow = (one.new_cache(*windows.shape) for one in (model, fp8))
    model.forward(windows, wide)
    fp8.forward(windows, narrow)
    assert narrow.num_bytes * 4 == wide.num_bytes
    first = fp8.layers[0]  # of the later ones the inputs are other, by the first one's rounding
    for scale, whole, cached in (
        (first.key_scale, wide.keys[0], narrow.keys[0]),
        (first.value_scale, wide.values[0], narrow.values[0]),
    ):
        assert scale == pytest.approx(float(whole.abs().max()) / 448)
        assert float(cached.float().abs().max()) == 448
        off = (cached.float() * scale - whole).abs()
        assert (off <= whole.abs() / 16 + scale * 2**-9).all()


def test_tokens_one_by_one_give_what_they_give_at_once(model, windows):
    fp8 = with_cache(model, "fp8", windows)
    at_once = logits(fp8, windows)
    cache = fp8.new_cache(*windows.shape)
    steps = [fp8.forward(windows[:, i : i + 1], cache) for i in range(windows.shape[1])]
    torch.testing.assert_close(torch.cat(steps, 1), at_once, rtol=1e-4, atol=1e-4)


def test_a_cache_in_fp8_changes_little_and_auto_nothing(model, windows):
    before, after = logits(model, windows), logits(with_cache(model, "fp8", windows), windows)
    assert not torch.equal(before, after)
    assert (before - after).std() < 0.1 * before.std()
    assert torch.equal(before, logits(with_cache(model, "auto"), windows))


def test_without_a_text_scales_are_one_and_shapes_stay_one_layer(model):
    shapes = dataclasses.replace(model.on_meta(), layers=[model.on_meta().layers[0]] * 4)
    fp8 = with_cache(shapes, "fp8")
    assert {id(layer) for layer in fp8.layers} == {id(fp8.layers[0])}
    assert (fp8.layers[0].key_scale, fp8.layers[0].value_scale) == (1.0, 1.0)
    assert fp8.described == "unquantized, 8-bit KV cache"


def test_formats_and_tokens_that_do_not_exist_are_refused(model):
    with pytest.raises(ConfigError, match="'fp5'"):
        with_cache(model, "fp5")
    with pytest.raises(ConfigError, match="made into tokens for another model"):
        with_cache(model, "fp8", torch.full((1, 8), model.config.vocab_size))


def test_keys_that_are_not_finite_are_named(model, windows):
    layers = list(model.layers)
    qkv = dataclasses.replace(
        layers[1].qkv, weight=torch.full_like(layers[1].qkv.weight, torch.inf)
    )
    layers[1] = dataclasses.replace(layers[1], qkv=qkv)
    with pytest.raises(CheckpointError) as raised:
        with_cache(dataclasses.replace(model, layers=layers), "fp8", windows)
    assert raised.value.where == "model.layers.1.self_attn"

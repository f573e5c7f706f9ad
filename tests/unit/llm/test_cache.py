"""A KV cache in fewer bits: scales, what it does to a model, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from asterope.errors import CheckpointError, ConfigError, ShapeError
from asterope.llm import load_model, with_cache
from llm_checkpoints import raw_config, write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(
        write_checkpoint(
            tmp_path_factory.mktemp("qwen3"), raw_config(model_type="qwen3", head_dim=64)
        ),
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


def test_the_largest_key_gets_the_largest_number_under_the_scale_above_blocks(model, windows):
    nvfp4 = with_cache(model, "nvfp4", windows)
    wide, narrow = (one.new_cache(*windows.shape) for one in (model, nvfp4))
    model.forward(windows, wide)
    nvfp4.forward(windows, narrow)
    largest = float(wide.keys[0].abs().max())
    assert nvfp4.layers[0].key_scale == pytest.approx(largest / (6 * 448))
    assert float(narrow.keys[0].scales.float().max()) == 448


@pytest.mark.parametrize(("name", "bits"), [("nvfp4", 4.5), ("mxfp4", 4.25)])
def test_blocks_take_their_codes_and_scales(model, windows, name, bits):
    wide, narrow = (one.new_cache(*windows.shape) for one in (model, with_cache(model, name)))
    assert narrow.num_bytes * 32 == wide.num_bytes * bits


def test_a_format_without_scales_of_layers_reads_no_text(model, windows):
    one, other = (with_cache(model, "mxfp4", text) for text in (None, windows))
    assert {(layer.key_scale, layer.value_scale) for layer in other.layers} == {(1.0, 1.0)}
    assert torch.equal(logits(one, windows), logits(other, windows))


@pytest.mark.parametrize("name", ["fp8", "nvfp4", pytest.param("mxfp4", marks=pytest.mark.slow)])
def test_tokens_one_by_one_give_what_they_give_at_once(model, windows, name):
    narrow = with_cache(model, name, windows)
    at_once = logits(narrow, windows)
    cache = narrow.new_cache(*windows.shape)
    steps = [narrow.forward(windows[:, i : i + 1], cache) for i in range(windows.shape[1])]
    torch.testing.assert_close(torch.cat(steps, 1), at_once, rtol=1e-4, atol=1e-4)


def test_fewer_bits_change_more_and_auto_nothing(model, windows):
    before = logits(model, windows)
    off = {
        name: float((logits(with_cache(model, name, windows), windows) - before).std())
        for name in ("auto", "fp8", "nvfp4", "mxfp4")
    }
    assert off["auto"] == 0 < off["fp8"] < off["nvfp4"] < off["mxfp4"] < 0.5 * before.std()


def test_without_a_text_scales_are_one_and_shapes_stay_one_layer(model):
    shapes = dataclasses.replace(model.on_meta(), layers=[model.on_meta().layers[0]] * 4)
    fp8 = with_cache(shapes, "fp8")
    assert {id(layer) for layer in fp8.layers} == {id(fp8.layers[0])}
    assert (fp8.layers[0].key_scale, fp8.layers[0].value_scale) == (1.0, 1.0)
    assert fp8.described == "unquantized, fp8 KV cache"


def test_heads_that_blocks_do_not_divide_are_refused(model):
    config = dataclasses.replace(model.config, head_dim=48)
    with pytest.raises(ShapeError, match="blocks of 16 do not divide half a head of 48") as raised:
        with_cache(dataclasses.replace(model, config=config), "nvfp4")
    assert raised.value.hint == "use auto, fp8"


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

"""Quantization layer by layer: what each layer is calibrated on, and what comes out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from asterope.errors import CheckpointError, ConfigError, ShapeError
from asterope.llm import PlainLinear, load_model, quantize_layers
from asterope.quant import QuantizedLinear, algorithm, scheme
from llm_checkpoints import raw_config, tensors_of, write_checkpoint

# Blocks of 32 divide what goes into each projection, and rows of inputs depend on each other.
CONFIG = raw_config(hidden_size=64, intermediate_size=96, num_attention_heads=4)
PLACES = ("qkv", "output", "gate_up", "down")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model", CONFIG)


@pytest.fixture(scope="module")
def model(directory):
    return load_model(directory, dtype="float32")


@pytest.fixture(scope="module")
def windows(model):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (6, 24), generator=generator)


def logits(model, windows):
    return model.forward(windows, model.new_cache(*windows.shape))


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "fp8_tensor"])
def test_round_to_nearest_is_what_loading_gives(directory, model, windows, fmt):
    loaded = load_model(directory, scheme=scheme(fmt), dtype="float32")
    made = quantize_layers(model, scheme(fmt), algorithm("rtn"), windows)
    for mine, theirs in zip(made.layers, loaded.layers, strict=True):
        for place in PLACES:
            for name, tensor in getattr(theirs, place).tensors.items():
                found = getattr(mine, place).tensors[name]
                assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "mxfp4/same"])
def test_calibrated_weights_give_logits_nearer_to_the_originals(model, windows, fmt):
    expected = logits(model, windows)
    errors = [
        float(
            (logits(quantize_layers(model, scheme(fmt), how, windows), windows) - expected).norm()
        )
        for how in map(algorithm, ("rtn", "gptq"))
    ]
    assert errors[1] < 0.9 * errors[0]


def test_equalized_layers_compute_the_same_but_for_rounding(model, windows):
    factor = torch.ones(64)
    factor[5::32] = 32.0
    outliers = dataclasses.replace(
        model,
        layers=[
            dataclasses.replace(
                layer, mlp_norm=layer.mlp_norm * factor,
                gate_up=PlainLinear(layer.gate_up.weight / factor),
            )
            for layer in model.layers
        ],
    )  # fmt: skip
    expected = logits(outliers, windows)
    errors = [
        float((logits(quantize_layers(outliers, scheme("mxfp4/same"), how, windows), windows)
               - expected).norm())
        for how in map(algorithm, ("rtn", "awq", "awq_gptq"))
    ]  # fmt: skip
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * errors[0]
    made = quantize_layers(outliers, scheme("mxfp4/same"), algorithm("awq"), windows)
    changed = outliers.layers[0].mlp_norm / made.layers[0].mlp_norm
    assert torch.equal(changed.log2(), changed.log2().round())
    assert float(changed.log2().abs().max()) >= 1


def test_the_original_is_left_as_it_was(model, windows):
    before = logits(model, windows)
    made = quantize_layers(model, scheme("mxfp4"), algorithm("gptq"), windows)
    assert torch.equal(logits(model, windows), before)
    assert "gptq" in made.scheme
    assert all(
        isinstance(getattr(layer, p), QuantizedLinear) for layer in made.layers for p in PLACES
    )


@pytest.mark.slow
def test_windows_weigh_alike_however_they_are_batched(model, windows):
    long = windows.repeat(120, 1)  # more than a batch holds
    one, many = (
        quantize_layers(model, scheme("mxfp4"), algorithm("gptq"), w).layers[1]
        for w in (windows, long)
    )
    same = [
        np.mean(getattr(one, p).codes.numpy() == getattr(many, p).codes.numpy()) for p in PLACES
    ]
    assert min(same) > 0.99


def test_progress_counts_layers(model, windows):
    seen = []
    quantize_layers(
        model, scheme("mxfp8"), algorithm("mse"), windows, progress=lambda *step: seen.append(step)
    )
    assert seen == [(1, 2), (2, 2)]


def test_what_cannot_be_calibrated_is_named(model, windows, tmp_path):
    gptq = algorithm("gptq")
    made = quantize_layers(model, scheme("mxfp4"), algorithm("rtn"), windows)
    with pytest.raises(ConfigError, match="is quantized already"):
        quantize_layers(made, scheme("mxfp4"), gptq, windows)
    with pytest.raises(ConfigError, match="token 99999 is outside"):
        quantize_layers(model, scheme("mxfp4"), gptq, torch.full((1, 4), 99999))
    tensors = tensors_of(CONFIG)
    tensors["model.layers.1.input_layernorm.weight"].fill_(60000.0)
    huge = load_model(write_checkpoint(tmp_path / "huge", CONFIG, tensors=tensors), dtype="float16")
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\."):
        quantize_layers(huge, scheme("mxfp4"), gptq, windows)
    raw = {**CONFIG, "intermediate_size": 100}
    odd = load_model(write_checkpoint(tmp_path / "odd", raw), dtype="float32")
    with pytest.raises(ShapeError, match=r"model\.layers\.0\.mlp\.down_proj"):
        quantize_layers(odd, scheme("mxfp4"), gptq, windows)

"""Rounding that is tuned: where it starts, what a layer computes, and that it ends nearer."""

from __future__ import annotations

import pytest
import torch
from tuned_layers import tuned_layer

from asterope.llm import load_model, quantize_layers
from asterope.llm.differentiable import layer_output
from asterope.llm.states import start_states
from asterope.quant import LearnedRounding, algorithm, quantize_weight, scheme
from llm_checkpoints import raw_config, write_checkpoint

CONFIG = raw_config(hidden_size=64, intermediate_size=96, num_attention_heads=4)
PLACES = ("qkv", "output", "gate_up", "down")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "model"
    return load_model(write_checkpoint(place, CONFIG), dtype="float32")


@pytest.fixture(scope="module")
def windows(model):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (6, 24), generator=generator)


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4+h16", "mxfp6", "fp8_row", "fp8_block128"])
def test_rounding_starts_at_the_codes_of_another_weight_and_near_the_first(fmt):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(48, 128, generator=generator)
    kept = weight.clone()
    # Codes that are not the nearest of `weight`, as GPTQ's are not.
    start = quantize_weight(
        weight + 0.2 * torch.randn(48, 128, generator=generator), scheme(fmt), name="w"
    )
    rounding = LearnedRounding(weight, start)
    assert torch.equal(weight, kept)
    assert torch.equal(rounding.quantized().dequantize(), start.dequantize())
    if start.scheme.rotation is None:
        assert torch.allclose(rounding(), start.dequantize(), rtol=1e-6)
        nearer = (rounding.latent * rounding.scale - weight).abs()
        assert bool((nearer <= (start.dequantize() - weight).abs() + 1e-6).all())
    rounding().square().sum().backward()
    assert float(rounding.latent.grad.abs().max()) > 0


@pytest.mark.parametrize("changes", [
    {}, {"model_type": "qwen2"}, {"model_type": "qwen3"},
    {"model_type": "mistral", "sliding_window": 7},
], ids=["llama", "biases", "head norms", "windows"])  # fmt: skip
def test_the_differentiable_layer_computes_what_the_model_does(tmp_path, windows, changes):
    raw = raw_config(hidden_size=64, intermediate_size=96, num_attention_heads=4, **changes)
    model = load_model(write_checkpoint(tmp_path / "model", raw), dtype="float32")
    layer = model.layers[1]
    (states,) = start_states(model, [windows])
    x = states.residual.view(*windows.shape, -1).clone()
    states.advance(model, 1, layer)
    made = layer_output(
        model.config, 1, x, lambda place, x: getattr(layer, place).apply(x),
        lambda name: getattr(layer, name),
    )  # fmt: skip
    expected = (states.residual + states.branch).view(made.shape)
    assert torch.allclose(made, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fmt",
    [
        *(pytest.param(fmt, marks=pytest.mark.slow) for fmt in ("mxfp4/same+r4", "fp8_block/same")),
        "nvfp4/fp8",
    ],
)
def test_a_tuned_layer_gives_nearly_what_the_original_gives(model, windows, fmt):
    start, tuned, error_before, error_after = tuned_layer(model, windows, fmt)
    assert error_after < 0.9 * error_before
    for place in PLACES:
        assert torch.equal(
            getattr(tuned, place).block_scales(), getattr(start, place).block_scales()
        )


@pytest.mark.slow
def test_the_algorithm_by_its_name_tunes_each_layer(model, windows):
    made = quantize_layers(model, scheme("mxfp4"), algorithm("tuned"), windows[:2, :8])
    start = quantize_layers(model, scheme("mxfp4"), algorithm("awq_gptq"), windows[:2, :8])
    assert made.scheme == "mxfp4 weights, bf16 activations, tuned"
    for mine, theirs in zip(made.layers, start.layers, strict=True):
        assert not torch.equal(mine.gate_up.codes, theirs.gate_up.codes)

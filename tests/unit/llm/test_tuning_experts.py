"""Experts that are tuned: what a router in training sends, and that a layer ends nearer."""

from __future__ import annotations

import pytest
import torch
from tuned_layers import tuned_layer

from asterope.llm import load_model
from asterope.llm.differentiable import layer_output
from asterope.llm.sent_rows import SentRows
from asterope.llm.states import start_states
from llm_checkpoints import MIXTURES, raw_config, write_checkpoint

RARELY = ("gpt_oss", "mixtral", "olmoe", "qwen2_moe")
FAMILIES = (*(pytest.param(name, marks=pytest.mark.slow) for name in RARELY), "qwen3_moe")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    raw = raw_config(model_type=request.param, **sizes, **MIXTURES[request.param])
    place = tmp_path_factory.mktemp(request.param) / "model"
    return load_model(write_checkpoint(place, raw), dtype="float32")


@pytest.fixture(scope="module")
def windows(model):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (4, 24), generator=generator)


def test_a_router_in_training_sends_what_the_model_s_sends(model, windows):
    layer = model.layers[0]
    (states,) = start_states(model, [windows])
    x = states.residual.view(*windows.shape, -1).clone().requires_grad_()
    states.advance(model, 0, layer)
    sent = []

    def linear(place, x):
        if place not in {"gate_up", "down"}:
            made = layer.linears[place].apply(x)
            return made * sent[0].beside if place == "shared_down" else made
        weight = layer.linears[place].weight
        if place == "gate_up":
            sent.append(SentRows.of(layer.router, x))
            x = sent[0].rows
        parts = zip(x.split(sent[0].counts), weight.chunk(len(sent[0].counts)), strict=True)
        made = torch.cat([rows @ own.T for rows, own in parts])
        bias = layer.linears[place].bias
        if bias is not None:
            made = made + bias.view(len(sent[0].counts), -1).repeat_interleave(
                torch.tensor(sent[0].counts), 0
            )
        return made if place == "gate_up" else sent[0].returned(made)

    made = layer_output(model.config, 0, x, linear, layer.named_vectors.get)
    expected = (states.residual + states.branch).view(made.shape)
    assert torch.allclose(made, expected, atol=1e-5, rtol=1e-5)
    made.square().sum().backward()
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("fmt", ["mxfp4/same+r4", pytest.param("nvfp4", marks=pytest.mark.slow)])
def test_a_tuned_layer_of_experts_gives_nearly_what_the_original_gives(model, windows, fmt):
    start, tuned, error_before, error_after = tuned_layer(model, windows, fmt)
    assert error_after < 0.9 * error_before
    assert torch.equal(tuned.down.block_scales(), start.down.block_scales())
    assert tuned.router is start.router

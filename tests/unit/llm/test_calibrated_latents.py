"""Calibrating attention over latents, its experts and those beside them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tuned_layers import tuned_layer

from asterope.llm import KeptLayers, evaluate, load_model, quantize_layers
from asterope.llm.differentiable import layer_output
from asterope.llm.equalized import equalized
from asterope.llm.layer_inputs import layer_inputs
from asterope.llm.rounded_units import units_of
from asterope.llm.sent_rows import SentRows
from asterope.llm.states import start_states
from asterope.quant import PLACES, algorithm, scheme
from llm_checkpoints import LATENT, raw_config, tensors_of, write_checkpoint

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
SECOND = {
    "model_type": "deepseek_v2", "architectures": ["DeepseekV2ForCausalLM"], "q_lora_rank": None,
    "topk_method": "group_limited_greedy",
}  # fmt: skip
"""Queries without latents: they read what makes those of keys reads."""
OUTLIERS = [3, 17]
"""Channels of what norms give that are larger than others."""
READERS = (
    "q_a_proj.weight", "q_b_proj.weight", "q_proj.weight", "kv_a_proj_with_mqa.weight",
    "gate_proj.weight", "up_proj.weight", "mlp.gate.weight",
)  # fmt: skip


@pytest.fixture(scope="module", params=["queries of latents", "queries without"])
def model(request, tmp_path_factory):
    raw = raw_config(**LATENT, **SIZES)
    raw |= SECOND if request.param.endswith("without") else {}
    raw = {name: value for name, value in raw.items() if value is not None}
    tensors = tensors_of(raw)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight") and "kv_a" not in name:
            tensor[OUTLIERS] *= 16
        if tensor.dim() == 2 and name.endswith(READERS):
            tensor[:, OUTLIERS] /= 16
    place = tmp_path_factory.mktemp("latent") / "model"
    return load_model(write_checkpoint(place, raw, tensors=tensors), dtype="float32")


@pytest.fixture(scope="module")
def windows(model):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (8, 32), generator=generator)


def test_every_place_sees_its_inputs(model, windows):
    (states,) = start_states(model, [windows])
    for index, layer in enumerate(model.layers):
        found = layer_inputs(model, index, layer, [states]).sums
        assert found.keys() == layer.linears.keys()
        for place, sums in found.items():
            if place not in {"gate_up", "down"} or layer.router is None:
                assert [each.num_tokens for each in sums] == [windows.numel()]
            assert all(len(each.products) == layer.linears[place].weight.shape[1] for each in sums)
        if layer.latent.q_norm is not None:
            normed = found["q_up"][0].sample / layer.latent.q_norm
            assert torch.allclose(normed.square().mean(1), torch.ones(len(normed)), atol=1e-3)
        states.advance(model, index, layer)


def test_equalized_layers_compute_the_same_bits(model, windows):
    schemes = dict.fromkeys(PLACES, scheme("nvfp4/same"))
    (states,) = start_states(model, [windows])
    layers = []
    with torch.inference_mode():
        for index, layer in enumerate(model.layers):
            sums = layer_inputs(model, index, layer, [states]).sums
            made, _ = equalized(layer, schemes, units_of(model, index), sums)
            for name in ("attention_norm", "mlp_norm", "query_norm"):
                before, after = layer.named_vectors[name], made.named_vectors[name]
                assert before is None or bool((before[OUTLIERS] > after[OUTLIERS]).all())
            layers.append(made)
            states.advance(model, index, layer)
        changed = dataclasses.replace(model, layers=layers)
        logits = [
            each.forward(windows, each.new_cache(*windows.shape)) for each in (model, changed)
        ]
    assert torch.equal(*logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gptq", "awq_gptq", "svdquant"])
def test_each_algorithm_loses_less_than_rounding_and_resumes_to_the_same(
    model, windows, tmp_path, name
):
    how = algorithm(name)
    plan = how.plan(scheme("mxfp4+r4" if how.rank else "mxfp4"))
    nearest = quantize_layers(model, scheme("mxfp4"), algorithm("rtn"), windows)
    kept = KeptLayers(tmp_path, "all that matters")
    made, again = (quantize_layers(model, plan, how, windows, kept=kept) for _ in range(2))
    models = {"rtn": nearest, name: made, "again": again}
    generator = torch.Generator().manual_seed(1)
    unseen = torch.randint(3, model.config.vocab_size, (256,), generator=generator).tolist()
    _, found = evaluate(model, models, unseen, context=32)
    assert found[name].kl < 0.8 * found["rtn"].kl
    assert found["again"] == found[name]


def test_the_differentiable_layer_computes_what_the_model_does(model, windows):
    (states,) = start_states(model, [windows])
    for index, layer in enumerate(model.layers):
        x = (states.residual + (0 if states.branch is None else states.branch)).clone()
        states.advance(model, index, layer)
        sent = []

        def linear(place, x, layer=layer, sent=sent):
            if layer.router is None or place not in {"gate_up", "down"}:
                return layer.linears[place].apply(x)
            if place == "gate_up":
                sent.append(SentRows.of(layer.router, x))
                x = sent[0].rows
            weights = layer.linears[place].weight.chunk(len(sent[0].counts))
            parts = zip(x.split(sent[0].counts), weights, strict=True)
            made = torch.cat([rows @ own.T for rows, own in parts])
            return made if place == "gate_up" else sent[0].returned(made)

        x = x.view(*windows.shape, -1)
        made = layer_output(model.config, index, x, linear, layer.named_vectors.get)
        expected = (states.residual + states.branch).view(made.shape)
        assert torch.allclose(made, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_tuned_layer_gives_nearly_what_the_original_gives(model, windows):
    _, tuned, error_before, error_after = tuned_layer(model, windows, "mxfp4/same")
    assert error_after < 0.9 * error_before
    assert torch.equal(tuned.latent.kv_up, model.layers[0].latent.kv_up)

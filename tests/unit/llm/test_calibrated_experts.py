"""Calibrating experts: whose inputs they see, what becomes of the router, what is kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from asterope.llm import KeptLayers, PlainLinear, evaluate, load_model, quantize_layers
from asterope.llm.equalized import equalized
from asterope.llm.layer_inputs import layer_inputs
from asterope.llm.rounded_units import units_of
from asterope.llm.states import start_states
from asterope.quant import PLACES, algorithm, scheme
from llm_checkpoints import MIXTURES, raw_config, tensors_of, write_checkpoint

CONFIG = raw_config(
    model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], hidden_size=64, head_dim=16,
    num_attention_heads=4, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2,
    norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
)  # fmt: skip
SHUNNED = 2
"""The expert that no token goes to."""
OUTLIERS = [3, 17]
"""Channels of what the experts read that are larger than others."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tensors = tensors_of(CONFIG)
    tensors["model.embed_tokens.weight"][:, 0] = 0.2  # of every token, whatever layers do
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[0] = 0.0
        if name.endswith("post_attention_layernorm.weight"):
            tensor[0] = 1.0
            tensor[OUTLIERS] *= 16
        if name.endswith("mlp.gate.weight"):
            tensor[SHUNNED], tensor[:, 0] = 0.0, 0.0
            tensor[SHUNNED, 0] = -1e4
        if name.endswith(("mlp.gate.weight", "gate_proj.weight", "up_proj.weight")):
            tensor[:, OUTLIERS] /= 16
    directory = write_checkpoint(tmp_path_factory.mktemp("model") / "moe", CONFIG, tensors=tensors)
    return load_model(directory, dtype="float32")


@pytest.fixture(scope="module")
def windows(model):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (16, 64), generator=generator)


@pytest.fixture(scope="module")
def inputs(model, windows):
    with torch.inference_mode():
        return layer_inputs(model, 0, model.layers[0], start_states(model, [windows]))


def test_experts_see_the_tokens_the_router_sends_and_one_without_any_sees_all(
    model, windows, inputs
):
    seen = {place: [s.num_tokens for s in sums] for place, sums in inputs.sums.items()}
    everything = 2 * windows.numel()
    assert inputs.few_tokens == {f"model.layers.0.mlp.experts.{SHUNNED}": 0}
    assert seen["qkv"] == seen["output"] == [windows.numel()]
    assert seen["gate_up"] == seen["down"]
    assert seen["down"][SHUNNED] == everything
    assert sum(seen["down"]) == 2 * everything
    gated = [s.products for e, s in enumerate(inputs.sums["gate_up"]) if e != SHUNNED]
    torch.testing.assert_close(inputs.sums["gate_up"][SHUNNED].products, sum(gated))
    # What it gives for the tokens of another: its own weights, not theirs.
    layer, x = model.layers[0], inputs.sums["gate_up"][SHUNNED].sample
    size = len(layer.gate_up.weight) // 4
    gate, up = layer.gate_up.weight[SHUNNED * size :][:size].chunk(2)
    mean = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)).square().mean(0)
    likeness = [
        float(torch.corrcoef(torch.stack([mean, of.importance]))[0, 1])
        for of in inputs.sums["down"]
    ]
    assert likeness[SHUNNED] > 0.9
    assert max(likeness[:SHUNNED] + likeness[SHUNNED + 1 :]) < 0.7


def test_equalized_experts_and_their_router_compute_the_same_bits(model, windows, inputs):
    schemes = dict.fromkeys(PLACES, scheme("nvfp4/same"))
    with torch.inference_mode():
        layer = model.layers[0]
        made, sums = equalized(layer, schemes, units_of(model, 0), inputs.sums)
        changed = dataclasses.replace(model, layers=[made, *model.layers[1:]])
        logits = [
            each.forward(windows, each.new_cache(*windows.shape)) for each in (model, changed)
        ]
    assert torch.equal(*logits)
    assert not torch.equal(made.router.linear.weight, layer.router.linear.weight)
    scales = [a.products.diagonal() / b.products.diagonal() for a, b in zip(
        sums["down"], inputs.sums["down"], strict=True,
    )]  # fmt: skip
    assert not torch.equal(scales[0], scales[1])


@pytest.mark.slow
@pytest.mark.parametrize("family", MIXTURES)
def test_each_family_is_calibrated_and_equalized(family, tmp_path):
    raw = raw_config(model_type=family, architectures=None, hidden_size=64, num_attention_heads=4,
                     intermediate_size=96, **MIXTURES[family])  # fmt: skip
    tensors = tensors_of(raw)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor[OUTLIERS] *= 16
        if "layers" in name and tensor.shape[1:] == (64,):
            tensor[:, OUTLIERS] /= 16
    model = load_model(write_checkpoint(tmp_path / "model", raw, tensors=tensors))
    generator = torch.Generator().manual_seed(0)
    windows, unseen = torch.randint(3, 101, (2, 16, 32), generator=generator)
    plan, names = scheme("mxfp4"), ("rtn", "gptq", "awq_gptq")
    models = {name: quantize_layers(model, plan, algorithm(name), windows) for name in names}
    _, found = evaluate(model, models, unseen.flatten().tolist(), context=32)
    assert found["gptq"].kl < 0.9 * found["rtn"].kl
    assert found["awq_gptq"].kl < 0.9 * found["gptq"].kl


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["mxfp4", "nvfp4/same"])
def test_each_algorithm_loses_less_than_rounding_and_resumes_to_the_same(
    model, windows, tmp_path, plan
):
    plan = scheme(plan)
    names = ("rtn", "gptq", "awq_gptq")
    models = {name: quantize_layers(model, plan, algorithm(name), windows) for name in names}
    text = windows.flatten().tolist()
    _, found = evaluate(model, models, text, context=64)
    assert found["gptq"].kl < 0.9 * found["rtn"].kl
    assert found["awq_gptq"].kl < 0.9 * found["rtn"].kl
    assert len(models["gptq"].few_tokens) == 2
    kept = KeptLayers(tmp_path, "all that matters")
    again = [
        quantize_layers(model, plan, algorithm("awq_gptq"), windows, kept=kept) for _ in range(2)
    ]
    _, scored = evaluate(model, dict(zip("ab", again, strict=True)), text, context=64)
    assert scored["a"] == scored["b"] == found["awq_gptq"]
    assert again[1].few_tokens == models["awq_gptq"].few_tokens
    assert isinstance(again[1].layers[0].router.linear, PlainLinear)

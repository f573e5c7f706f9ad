"""Mixes of layers that differ: without experts among those with, beside others, over latents."""

from __future__ import annotations

import pytest
import torch

import asterope as ast
from asterope import api, chips
from asterope.quant import PLACES, Mix, scheme
from llm_checkpoints import LATENT, MIXTURES
from tokenized_checkpoint import SMALL, write_tokenized

WORKLOAD = api.Workload(chip=chips.get("maia200"), batch=4, context=64, fidelity="roofline")
TOKENS = tuple(b"def f(x):\n    return x + 1\n" * 4)
FAMILIES = {
    "deepseek_v3": {**LATENT, "first_k_dense_replace": 1},
    "qwen2_moe": {**MIXTURES["qwen2_moe"], "mlp_only_layers": [1]},
}


@pytest.fixture(
    scope="module", params=["qwen2_moe", pytest.param("deepseek_v3", marks=pytest.mark.slow)]
)
def original(request, tmp_path_factory):
    raw = {**SMALL, "num_hidden_layers": 2, "model_type": request.param, "architectures": None}
    directory = tmp_path_factory.mktemp("uneven") / request.param
    return ast.load(write_tokenized(directory, raw | FAMILIES[request.param]))


@pytest.mark.slow
def test_places_that_differ_between_layers_have_their_costs(original):
    text = api.ScoredText(what="a program", tokens=TOKENS)
    places = api.measure_places(original, (scheme("mxfp4"),), text, WORKLOAD)
    assert all(row.kl > 0 and row.bytes_saved > 0 for row in places.rows())
    mix = places.plain.replaced(0, "gate_up", scheme("mxfp4")).replaced(1, "qkv", scheme("mxfp4"))
    _, found = places.measure(mix)
    assert places.costs.time_s(mix) == pytest.approx(found.time_s, abs=1e-12)
    assert places.costs.weight_bytes(mix) == found.weight_bytes


@pytest.mark.slow
@pytest.mark.parametrize("other", ["fp8", None])
def test_a_mix_is_saved_under_the_names_of_each_layer(original, other, tmp_path):
    first, second = scheme("mxfp4"), other and scheme(other)
    mix = Mix(((first, None, second, first), (second, first, first, None)))
    small = original.quantize(mix)
    again = ast.load(small.save(tmp_path / "small"))
    assert again.scheme == mix
    for ours, theirs in zip(small.model.layers, again.model.layers, strict=True):
        assert ours.linears.keys() == theirs.linears.keys()
        for place, linear in ours.linears.items():
            assert getattr(linear, "scheme", None) == getattr(theirs.linears[place], "scheme", None)
    tokens = torch.tensor([TOKENS[:30]])
    logits = [x.model.forward(tokens, x.model.new_cache(1, 30)) for x in (small, again)]
    assert torch.equal(*logits)
    assert set(mix.of(0)) == set(PLACES)

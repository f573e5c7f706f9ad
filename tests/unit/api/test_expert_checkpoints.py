"""Mixtures of experts: quantized, saved expert by expert, read again, by transformers too."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch

import asterope as ast
from asterope.llm import module_names, routers
from asterope.quant import QuantizedLinear, scheme
from llm_checkpoints import MIXTURES
from tokenized_checkpoint import SMALL, write_tokenized

TEXT = "def f(x):\n    return x + 1\n" * 30


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A checkpoint of one layer of each family."""
    found = {}
    for name, changes in MIXTURES.items():
        raw = {**SMALL, **changes, "model_type": name, "architectures": None}
        directory = tmp_path_factory.mktemp(name) / name
        found[name] = ast.load(write_tokenized(directory, raw), dtype="bfloat16")
    return found


@pytest.mark.parametrize(
    ("family", "fmt"),
    [
        pytest.param("qwen3_moe", "nvfp4", marks=pytest.mark.slow),
        pytest.param("mixtral", "mxfp4/fp8", marks=pytest.mark.slow),
        pytest.param("mixtral", "fp8_block128/same", marks=pytest.mark.slow),
        pytest.param("gpt_oss", "mxfp4", marks=pytest.mark.slow),
        pytest.param("olmoe", "mxfp4", marks=pytest.mark.slow),
        pytest.param("qwen2_moe", "mxfp4", marks=pytest.mark.slow),
    ],
)
def test_a_quantized_mixture_loads_back_identically(originals, family, fmt, tmp_path):
    small = originals[family].quantize(fmt)
    assert small.scheme == scheme(fmt)
    again = ast.load(small.save(tmp_path / "small"))
    assert again.scheme == small.scheme
    assert (
        again.model.weight_bytes == small.model.weight_bytes < originals[family].model.weight_bytes
    )
    assert again.perplexity(TEXT) == small.perplexity(TEXT)
    shapes = ast.from_config(tmp_path / "small")
    assert shapes.scheme == small.scheme
    stored = json.loads((tmp_path / "small" / "config.json").read_text())["quantization_config"]
    assert stored["ignore"][0] == "lm_head"
    for pattern, router in zip(stored["ignore"][1:], routers(small.config), strict=True):
        assert re.match(pattern.removeprefix("re:"), f"model.layers.0.{router}")
    assert stored["config_groups"]["group_0"]["targets"] == ["Linear"]


def test_experts_have_global_scales_of_their_own_and_gate_and_up_have_one(originals):
    layer = originals["qwen3_moe"].quantize("nvfp4").model.layers[0]
    scales = layer.gate_up.row_scale.view(6, 2 * 64)
    assert bool((scales == scales[:, :1]).all())
    assert len(scales[:, 0].unique()) == 6
    assert len(layer.down.row_scale.view(6, 64)[:, 0].unique()) == 6


def test_transformers_loads_experts_to_the_same_weights(originals, tmp_path):
    """Of nvfp4 it leaves the global scale of experts out, as of 5.23."""
    transformers = pytest.importorskip("transformers")
    small = originals["qwen3_moe"].quantize("mxfp4")
    small.save(tmp_path / "small")
    tokens = torch.tensor([list(TEXT[:40].encode())])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "small", dtype=torch.bfloat16
        )
        theirs(tokens)  # unpacks the weights
    layer, experts = small.model.layers[0], theirs.model.layers[0].mlp.experts
    for ours, found in ((layer.gate_up, experts.gate_up_proj), (layer.down, experts.down_proj)):
        assert isinstance(ours, QuantizedLinear)
        assert torch.equal(ours.dequantize().view(found.shape), found.detach().float())


def test_modules_are_named_as_checkpoints_of_the_family_name_them(originals):
    assert (
        module_names(originals["mixtral"].config)[0]["down"][4] == "block_sparse_moe.experts.4.w2"
    )
    gate_up = module_names(originals["qwen3_moe"].config)[0]["gate_up"]
    assert gate_up[2:4] == ("mlp.experts.1.gate_proj", "mlp.experts.1.up_proj")

"""Models that other tools quantized: their weights, their logits, and what is saved of them."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import asterope as ast
from asterope.errors import CheckpointError, ConfigError, UnsupportedError
from asterope.llm import load_model
from foreign_checkpoints import FOREIGN, write_both

PLACES = ("qkv", "output", "gate_up", "down")
LAYER = "model.layers.0"


@pytest.fixture(scope="module", params=FOREIGN.values(), ids=FOREIGN)
def foreign(request):
    return request.param


@pytest.fixture(scope="module")
def both(foreign, tmp_path_factory):
    return write_both(tmp_path_factory.mktemp("foreign"), foreign)


def linears(model):
    return [getattr(layer, place) for layer in model.layers for place in PLACES]


def test_weights_are_those_of_the_layout_s_definition(both):
    theirs, plain = (load_model(directory, dtype="float32") for directory in both)
    for quantized, original in zip(linears(theirs), linears(plain), strict=True):
        assert torch.equal(quantized.dequantize(), original.weight)


@pytest.mark.slow
def test_logits_are_those_of_the_weights(both, foreign):
    """Up to the rounding of activations on the way: by up to a sixteenth to fp8."""
    theirs, plain = (load_model(directory, dtype="float32") for directory in both)
    tokens = torch.arange(40, 72)[None]
    found, wanted = (m.forward(tokens, m.new_cache(1, 32)) for m in (theirs, plain))
    error = float((found - wanted).norm() / wanted.norm())
    assert error < (0.02 if foreign.activations == "bf16" else 0.15)


def test_it_is_saved_as_compressed_tensors_with_the_same_values(both, foreign, tmp_path):
    """That layout stores reciprocals of global scales: nvfp4's may move by their last bit."""
    model = ast.load(both[0])
    assert (model.scheme.weights, model.scheme.activations) == (
        foreign.weights,
        foreign.activations,
    )
    again = ast.load(model.save(tmp_path / "ours"))
    assert again.scheme == model.scheme
    assert again.source.config["quantization_config"]["quant_method"] == "compressed-tensors"
    for a, b in zip(linears(again.model), linears(model.model), strict=True):
        if foreign.weights == "nvfp4":
            torch.testing.assert_close(a.dequantize(), b.dequantize(), rtol=2**-23, atol=0)
        else:
            assert torch.equal(a.dequantize(), b.dequantize())


def test_it_is_not_quantized_again(both):
    with pytest.raises(ConfigError, match="already quantized"):
        ast.load(both[0]).quantize("mxfp6")


# -- layers that are left unquantized --------------------------------------------------------------
NVFP4 = FOREIGN["modelopt-nvfp4"]


def leaving(*names):
    return dataclasses.replace(NVFP4, config=NVFP4.config | {"ignore": ["lm_head", *names]})


def test_layers_left_unquantized_are_saved_so(tmp_path):
    kept = f"{LAYER}.mlp.down_proj"
    theirs, _ = write_both(tmp_path, leaving(kept), kept=(kept,))
    model = ast.load(theirs)
    again = ast.load(model.save(tmp_path / "ours"))
    assert kept in again.source.config["quantization_config"]["ignore"]
    assert torch.equal(again.model.layers[0].down.weight, model.model.layers[0].down.weight)


def test_fused_projections_of_which_some_are_left_unquantized_are_refused(tmp_path):
    kept = f"{LAYER}.self_attn.k_proj"
    theirs, _ = write_both(tmp_path, leaving(kept), kept=(kept,))
    with pytest.raises(UnsupportedError, match="quantized differently") as caught:
        load_model(theirs)
    assert kept in caught.value.what


def test_codes_of_a_layer_that_is_said_to_be_unquantized_are_not_taken_for_weights(tmp_path):
    foreign = FOREIGN["modelopt-fp8"]
    config = foreign.config | {"ignore": ["*down_proj"]}
    theirs, _ = write_both(tmp_path, dataclasses.replace(foreign, config=config))
    with pytest.raises(CheckpointError, match=r"down_proj\.weight is float8_e4m3fn codes"):
        load_model(theirs)


def test_scales_of_a_cache_are_those_of_its_projections_or_one(tmp_path):
    foreign = FOREIGN["modelopt-fp8"]
    config = foreign.config | {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    theirs, _ = write_both(tmp_path, dataclasses.replace(foreign, config=config))
    stored = load_file(theirs / "model.safetensors")
    stored[f"{LAYER}.self_attn.k_proj.k_scale"] = torch.tensor(0.25)
    save_file(stored, theirs / "model.safetensors", {"format": "pt"})
    model = ast.load(theirs).model
    assert model.cache_format.name == "fp8"
    assert (model.layers[0].key_scale, model.layers[0].value_scale) == (0.25, 1.0)


@pytest.mark.parametrize(
    "foreign",
    [f for f in FOREIGN.values() if f.config["quant_method"] == "modelopt"],
    ids=[name for name, f in FOREIGN.items() if f.config["quant_method"] == "modelopt"],
    indirect=True,
)
def test_what_a_tool_wrote_beside_config_json_is_read(both, foreign, tmp_path):
    theirs = shutil.copytree(both[0], tmp_path / "theirs")
    raw = json.loads((theirs / "config.json").read_text())
    algorithm = raw.pop("quantization_config")["quant_algo"]
    (theirs / "config.json").write_text(json.dumps(raw))
    own = {"quant_algo": algorithm, "exclude_modules": ["lm_head"], "kv_cache_quant_algo": None}
    (theirs / "hf_quant_config.json").write_text(json.dumps({"quantization": own}))
    found, wanted = (ast.load(directory) for directory in (theirs, both[0]))
    assert found.scheme == wanted.scheme
    assert torch.equal(
        found.model.layers[0].qkv.dequantize(), linears(wanted.model)[0].dequantize()
    )
    again = ast.load(found.save(tmp_path / "ours"))
    assert again.scheme == found.scheme

"""KV caches in fewer bits: calibrated, saved as compressed-tensors has them, and read again."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import asterope as ast
from asterope.errors import CheckpointError, UnsupportedError
from tokenized_checkpoint import SMALL, write_tokenized


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("if a < b:\n    return [c for c in d]\n" * 200)
    return file


@pytest.fixture(scope="module")
def small(model, text):
    """A quantized model whose cache is in fp8."""
    return model.quantize("mxfp4/fp8").with_cache("fp8", calibrate=text)


@pytest.fixture(scope="module")
def wide_heads(tmp_path_factory):
    """A quantized model whose heads hold blocks."""
    place = tmp_path_factory.mktemp("wide") / "wide"
    return ast.load(write_tokenized(place, SMALL | {"head_dim": 64})).quantize("mxfp4/fp8")


def logits(one):
    tokens = torch.arange(3, 40)[None]
    return one.model.forward(tokens, one.model.new_cache(1, 40))


def test_what_is_saved_computes_the_same(small, tmp_path):
    place = small.save(tmp_path / "small")
    config = json.loads((place / "config.json").read_text())["quantization_config"]
    assert config["kv_cache_scheme"] == {
        "num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True,
    }  # fmt: skip
    tensors = load_file(place / "model.safetensors")
    layer = small.model.layers[0]
    stored = (
        tensors["model.layers.0.self_attn.k_scale"],
        tensors["model.layers.0.self_attn.v_scale"],
    )
    assert (float(stored[0]), float(stored[1])) == (layer.key_scale, layer.value_scale)
    again = ast.load(place)
    assert again.model.cache_format.name == "fp8"
    assert again.scheme == small.scheme
    assert torch.equal(logits(again), logits(small))


def test_its_configuration_is_one_that_compressed_tensors_reads(small, tmp_path):
    quantization = pytest.importorskip("compressed_tensors.quantization")
    place = small.save(tmp_path / "small")
    config = json.loads((place / "config.json").read_text())["quantization_config"]
    config.pop("asterope")
    read = quantization.QuantizationConfig.model_validate(config)
    assert read.kv_cache_scheme.num_bits == 8
    assert read.kv_cache_scheme.strategy == "tensor"


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        pytest.param(
            "nvfp4",
            {"strategy": "tensor_group", "group_size": 16, "dynamic": "local"},
            marks=pytest.mark.slow,
        ),
        ("mxfp4", {"strategy": "group", "group_size": 32, "dynamic": True}),
    ],
)
def test_a_cache_in_blocks_is_stored_as_weights_in_them_are(
    wide_heads, text, tmp_path, name, scheme
):
    small = wide_heads.with_cache(name, calibrate=text, calibration_windows=1)
    place = small.save(tmp_path / "small")
    config = json.loads((place / "config.json").read_text())["quantization_config"]
    usual = {"num_bits": 4, "type": "float", "symmetric": True}
    assert config["kv_cache_scheme"] == usual | scheme
    has_scales = "model.layers.0.self_attn.k_scale" in load_file(place / "model.safetensors")
    assert has_scales == (name == "nvfp4")
    again, shapes = ast.load(place), ast.from_config(place)
    assert again.model.cache_format == shapes.model.cache_format == small.model.cache_format
    assert torch.equal(logits(again), logits(small))


@pytest.mark.parametrize("name", ["nvfp4", "mxfp4"])
def test_compressed_tensors_reads_the_configuration_of_a_cache_in_blocks(
    wide_heads, tmp_path, name
):
    quantization = pytest.importorskip("compressed_tensors.quantization")
    place = wide_heads.with_cache(name).save(tmp_path / "small")
    config = json.loads((place / "config.json").read_text())["quantization_config"]
    config.pop("asterope")
    read = quantization.QuantizationConfig.model_validate(config)
    assert read.kv_cache_scheme.num_bits == 4


def test_scales_come_from_the_text(model, text, small):
    wide = model.quantize("mxfp4/fp8").with_cache("fp8", calibrate=text, calibration_windows=1)
    pairs = zip(small.model.layers, wide.model.layers, strict=True)
    assert all(a.key_scale >= b.key_scale > 0 for a, b in pairs)


def test_a_scale_that_is_missing_or_wrong_is_named(small, tmp_path):
    place = small.save(tmp_path / "small")
    name = "model.layers.0.self_attn.v_scale"
    whole = load_file(place / "model.safetensors")
    for changed, words in (
        ({name: torch.tensor([0.0])}, "is 0.0, not a positive number"),
        ({name: torch.ones(2)}, "not a number"),
        ({}, "missing"),
    ):
        rest = {key: value for key, value in whole.items() if key != name}
        save_file(rest | changed, place / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError) as raised:
            ast.load(place)
        assert name in str(raised.value)
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_bits", 4), ("dynamic", True), ("strategy", "attn_head"), ("later", 1), ("type", "int")],
)
def test_a_cache_in_another_format_is_refused(small, tmp_path, field, value):
    place = small.save(tmp_path / "small")
    config = json.loads((place / "config.json").read_text())
    config["quantization_config"]["kv_cache_scheme"][field] = value
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError) as raised:
        ast.load(place)
    assert raised.value.where.endswith(f"kv_cache_scheme.{field}")


def test_a_stored_cache_is_timed_whatever_its_scales(small, tmp_path):
    shapes = ast.from_config(small.save(tmp_path / "small"))
    assert shapes.model.cache_format.name == "fp8"
    times = [one.simulate(batch=4, context=32).time_s for one in (shapes, small)]
    assert times[0] == times[1]


def test_a_cache_beside_unquantized_weights_is_not_stored(model, text, tmp_path):
    with pytest.raises(UnsupportedError, match="KV cache in fp8"):
        model.with_cache("fp8", calibrate=text).save(tmp_path / "plain")
    assert not (tmp_path / "plain").exists()

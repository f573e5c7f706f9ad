"""Checkpoints of attention over latents: quantized, saved, read again, and what is refused."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import asterope as ast
from asterope.errors import UnsupportedError
from asterope.quant import QuantizedLinear, scheme
from llm_checkpoints import LATENT
from tokenized_checkpoint import SMALL, write_tokenized

TEXT = "def f(x):\n    return x + 1\n" * 30


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A checkpoint of a layer without experts and one with them."""
    raw = {**SMALL, **LATENT, "num_hidden_layers": 2, "dtype": "bfloat16"}
    return ast.load(
        write_tokenized(tmp_path_factory.mktemp("latent") / "tiny", raw), dtype="bfloat16"
    )


@pytest.mark.parametrize(
    ("fmt", "algorithm"),
    [
        ("mxfp4", "rtn"),
        pytest.param("mxfp4", "awq_gptq", marks=pytest.mark.slow),
        pytest.param("fp8_block/same", "rtn", marks=pytest.mark.slow),
    ],
)
def test_a_quantized_checkpoint_loads_back_identically(original, fmt, algorithm, tmp_path):
    text = {}
    if algorithm != "rtn":
        (tmp_path / "text.txt").write_text(TEXT * 20)
        text = {"calibrate": tmp_path / "text.txt", "calibration_windows": 1}
    small = original.quantize(fmt, algorithm=algorithm, **text)
    again = ast.load(small.save(tmp_path / "small"))
    assert again.scheme == small.scheme == scheme(fmt)
    assert again.model.weight_bytes == small.model.weight_bytes < original.model.weight_bytes
    for ours, theirs in zip(small.model.layers, again.model.layers, strict=True):
        for place, linear in ours.linears.items():
            assert torch.equal(linear.dequantize(), theirs.linears[place].dequantize())
        assert all(map(torch.equal, ours.vectors, theirs.vectors))
    stored = json.loads((tmp_path / "small" / "config.json").read_text())["quantization_config"]
    ignored = [pattern.removeprefix("re:") for pattern in stored["ignore"]]
    for kept in ("model.layers.0.self_attn.kv_b_proj", "model.layers.1.mlp.gate"):
        assert any(re.match(pattern, kept) for pattern in ignored)
    first, second = small.model.layers
    assert first.router is None
    assert second.shared is not None
    for layer in (first, second):
        assert all(isinstance(x, QuantizedLinear) for x in layer.linears.values())
        assert layer.latent.kv_up.dtype == torch.bfloat16


def test_weights_are_counted_as_they_are_held(original):
    numbers = sum(
        x.numel() for x in load_file(original.source.directory / "model.safetensors").values()
    )
    corrections = 2 * original.config.experts.count  # float32 beside bf16
    assert original.model.weight_bytes == 2 * numbers + corrections
    shapes = ast.from_config(original.source.directory)
    assert shapes.model.weight_bytes == original.model.weight_bytes


def test_experts_are_scored_in_float32(original):
    """Scores of many experts are near each other: in bf16 others would be chosen."""
    router = original.model.layers[1].router
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    got = router.linear.apply(x)
    torch.testing.assert_close(got, x.float() @ router.linear.weight.float().T)
    assert not torch.equal(got, got.bfloat16().float())


def test_fp8_of_the_maker_is_read_and_what_makes_keys_is_widened(original, tmp_path):
    """As DeepSeek ships it: blocks of 128 x 128, of `kv_b_proj` as well."""
    tensors = {}
    for name, x in load_file(original.source.directory / "model.safetensors").items():
        tensors[name] = x
        if name.endswith(("_proj.weight", "with_mqa.weight")):
            scale = x.float().abs().max() / 448
            blocks = [-(-size // 128) for size in x.shape]
            tensors[name] = (x.float() / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = torch.full(blocks, float(scale))
    directory = tmp_path / "maker"
    directory.mkdir()
    config = json.loads((original.source.directory / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
        "weight_block_size": [128, 128],
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors")
    found = ast.load(directory)
    name = "model.layers.1.self_attn.kv_b_proj.weight"
    wide = tensors[name].float() * tensors[f"{name}_scale_inv"][0, 0]
    assert torch.equal(found.model.layers[1].latent.kv_up, wide.to(found.model.dtype))
    assert isinstance(found.model.layers[1].latent.q_up, QuantizedLinear)


def test_a_cache_that_a_checkpoint_asks_for_is_not_used_and_that_is_said(original, tmp_path):
    place = original.quantize("mxfp4").save(tmp_path / "small")
    config = json.loads((place / "config.json").read_text())
    config["quantization_config"]["kv_cache_scheme"] = {
        "num_bits": 8, "type": "float", "strategy": "tensor",
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    found = ast.load(place)
    assert found.model.cache_format.name == "auto"
    assert "KV cache" in found.source.notes[0]


def test_what_latents_cannot_have_is_refused_by_name(original):
    with pytest.raises(UnsupportedError, match="latent"):
        original.with_cache("fp8")

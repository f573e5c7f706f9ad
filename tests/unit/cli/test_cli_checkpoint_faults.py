"""Checkpoints that cannot be run: one line that names the place, exit code 2, nothing written."""

from __future__ import annotations

import json

import pytest
import torch

from llm_checkpoints import raw_config, tensors_of
from tokenized_checkpoint import SMALL, write_tokenized

UP = "model.layers.0.mlp.up_proj.weight"


def no_config(place):
    (place / "config.json").unlink()
    return "there is no config.json"


def config_is_no_json(place):
    (place / "config.json").write_text("{oops")
    return "config.json: cannot be read"


def truncated(place):
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return "model.safetensors: is not a whole safetensors file"


def truncated_in_its_header(place):
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    return "model.safetensors: is not a whole safetensors file"


def empty_weights(place):
    (place / "model.safetensors").write_bytes(b"")
    return "model.safetensors: is not a whole safetensors file"


def no_weights(place):
    (place / "model.safetensors").unlink()
    return "there is no .safetensors file"


def pickled(place):
    (place / "model.safetensors").unlink()
    torch.save(tensors_of(SMALL), place / "pytorch_model.bin")
    return "pytorch_model.bin is a pickle"


def misshapen(place):
    write_tokenized(place, tensors=tensors_of(SMALL) | {UP: torch.zeros(128, 63)})
    return f"tensor {UP} has shape [128, 63], config.json asks for [128, 64]"


def missing_tensor(place):
    tensors = tensors_of(SMALL)
    del tensors[UP]
    write_tokenized(place, tensors=tensors)
    return f"tensor {UP} is missing"


def not_a_number(place):
    tensors = tensors_of(SMALL)
    tensors[UP][3, 4] = float("nan")
    write_tokenized(place, tensors=tensors)
    return f"tensor {UP} is NaN at [3, 4]"


def infinite(place):
    tensors = tensors_of(SMALL)
    tensors[UP][0, 7] = float("inf")
    write_tokenized(place, tensors=tensors)
    return f"tensor {UP} is infinite at [0, 7]"


def unknown_architecture(place):
    changed = SMALL | {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (place / "config.json").write_text(json.dumps(changed))
    return "architecture 'bert' ('BertForMaskedLM') is not supported"


def impossible_heads(place):
    (place / "config.json").write_text(json.dumps(SMALL | {"num_key_value_heads": 3}))
    return "num_key_value_heads: "


def block_does_not_divide(place):
    write_tokenized(place, raw_config(vocab_size=256))
    return "blocks of 32 (mxfp4) do not divide K = 48"


def tokenizer_is_no_json(place):
    (place / "tokenizer.json").write_text("{oops")
    return "tokenizer.json: cannot be read"


def tokenizer_of_another_model(place):
    write_tokenized(place, SMALL | {"vocab_size": 64})
    return "the tokenizer gave token"


FAULTS = (
    no_config, config_is_no_json, truncated, truncated_in_its_header, empty_weights, no_weights,
    pickled, misshapen, missing_tensor, not_a_number, infinite, unknown_architecture,
    impossible_heads, block_does_not_divide, tokenizer_is_no_json, tokenizer_of_another_model,
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_run_refuses_a_checkpoint_and_writes_nothing(fault, asterope, tmp_path):
    place = write_tokenized(tmp_path / "model")
    reason = fault(place)
    ended = asterope("run", place, "--format", "mxfp4", "--out", tmp_path / "report" / "new")
    assert reason in ended.error
    assert str(place) in ended.error
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


WHEN_SAVED = (truncated, pickled, misshapen, not_a_number, block_does_not_divide)


@pytest.mark.parametrize("fault", WHEN_SAVED, ids=lambda fault: fault.__name__)
def test_quantize_refuses_a_checkpoint_and_writes_nothing(fault, asterope, tmp_path):
    place = write_tokenized(tmp_path / "model")
    reason = fault(place)
    ended = asterope("quantize", place, "--format", "mxfp4", "--out", tmp_path / "new")
    assert reason in ended.error
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_format_without_blocks_takes_any_width(asterope, tmp_path):
    place = write_tokenized(tmp_path / "model", raw_config(vocab_size=256))
    ended = asterope("quantize", place, "--format", "fp8_row", "--out", "new", "--json")
    assert ended.json["scheme"].startswith("fp8_row")


def test_a_quantized_checkpoint_is_not_quantized_again(asterope, tmp_path):
    place = write_tokenized(tmp_path / "model")
    assert asterope("quantize", place, "--format", "mxfp8", "--out", "mxfp8").code == 0
    ended = asterope("quantize", "mxfp8", "--format", "mxfp4", "--out", "mxfp4")
    assert "already quantized (mxfp8 weights" in ended.error
    assert not (tmp_path / "mxfp4").exists()


@pytest.mark.parametrize("command", [("run",), ("eval",), ("generate", "x")], ids=lambda c: c[0])
def test_a_checkpoint_that_is_not_there_is_named(command, asterope):
    name, *rest = command
    assert "no-such-model: is not a directory" in asterope(name, "no-such-model", *rest).error


def test_text_needs_a_tokenizer(asterope, tmp_path):
    place = write_tokenized(tmp_path / "model")
    (place / "tokenizer.json").unlink()
    ended = asterope("generate", place, "def main(")
    assert "there is no tokenizer.json" in ended.error
    assert "hint: copy it" in ended.error

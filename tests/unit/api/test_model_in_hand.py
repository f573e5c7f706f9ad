"""A model in the hand: load, quantize, score, generate, save, and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

import asterope as ast
from asterope import api
from asterope.errors import (
    CheckpointError,
    ConfigError,
    FormatError,
    OutputError,
    ShapeError,
    UnsupportedError,
)
from llm_checkpoints import raw_config
from tokenized_checkpoint import SMALL, write_tokenized

TEXT = "It was a dark and stormy night; the rain fell in torrents."


def test_quantizing_leaves_the_original_as_it_was(model):
    before = model.perplexity(TEXT)
    small = model.quantize("mxfp4")
    assert small.scheme.weights == "mxfp4"
    assert small.perplexity(TEXT) != before
    assert model.scheme is None
    assert model.perplexity(TEXT) == before


def test_quantizing_a_quantized_model_rounds_the_original(model):
    twice = model.quantize("mxfp4").quantize("mxfp8")
    assert twice.perplexity(TEXT) == model.quantize("mxfp8").perplexity(TEXT)


def test_bf16_means_unquantized(model):
    assert model.quantize("bf16") is model


def test_activations_may_stand_in_the_format(model):
    short, long = model.quantize("mxfp4/fp8"), model.quantize("mxfp4", activations="fp8")
    assert short.scheme == long.scheme


@pytest.mark.parametrize(
    "fmt",
    [
        "fp8_tensor",
        "nvfp4",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("fp8", "mxfp8", "mxfp6", "mxfp4")),
    ],
)
def test_a_saved_model_loads_back_identically(fmt, model, tmp_path):
    small = model.quantize(fmt)
    again = ast.load(small.save(tmp_path / "small"))
    assert again.scheme == small.scheme
    assert again.perplexity(TEXT) == small.perplexity(TEXT)


def test_a_saved_checkpoint_says_how_it_is_quantized(model, tmp_path):
    directory = model.quantize("mxfp4").save(tmp_path / "small")
    config = json.loads((directory / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert {oct(path.stat().st_mode)[-3:] for path in directory.iterdir()} == {"644"}


def test_saving_over_something_is_refused(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("kept")
    with pytest.raises(OutputError, match="not empty") as caught:
        model.save(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_pieces_of_text_add_up_to_what_is_generated(model):
    sampling = ast.llm.Sampling(temperature=1.0, seed=3)
    pieces = list(model.stream("naïve", max_new_tokens=24, sampling=sampling))
    assert "".join(pieces) == model.generate("naïve", max_new_tokens=24, temperature=1.0, seed=3)


def test_what_needs_weights_says_so(tmp_path):
    shapes = ast.from_config("qwen3-8b")
    assert not shapes.has_weights
    for use in (shapes.generate, shapes.perplexity, lambda _: shapes.save(tmp_path / "x")):
        with pytest.raises(UnsupportedError, match="has no weights") as caught:
            use("text")
        assert caught.value.where == "qwen3-8b"
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_tokenizer_reads_no_text(model):
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        dataclasses.replace(model, tokenizer=None).perplexity(TEXT)


def test_a_format_that_does_not_exist_is_refused_by_name(model):
    with pytest.raises(FormatError, match="'mxfp5'") as caught:
        model.quantize("mxfp5")
    assert caught.value.where == "format"


def test_a_block_that_does_not_divide_names_the_layer_and_the_checkpoint(tmp_path):
    place = write_tokenized(tmp_path / "odd", raw_config(vocab_size=256))
    with pytest.raises(ShapeError, match="blocks of 32") as caught:
        ast.load(place).quantize("mxfp4")
    assert caught.value.where == f"{place}: model.layers.0.self_attn.q_proj"


def test_a_stored_scheme_is_kept(model, tmp_path):
    stored = ast.load(model.quantize("mxfp8").save(tmp_path / "mxfp8"))
    assert stored.scheme.weights == "mxfp8"
    assert ast.from_config(tmp_path / "mxfp8").scheme == stored.scheme
    with pytest.raises(ConfigError, match="already quantized"):
        stored.quantize("mxfp4")


def test_a_model_may_be_made_of_a_directory_a_file_or_a_table(checkpoint):
    found = [ast.from_config(x) for x in (checkpoint, checkpoint / "config.json", SMALL)]
    assert len({shapes.config for shapes in found}) == 1
    assert not any(shapes.has_weights for shapes in found)
    assert [shapes.name for shapes in found] == ["small", "small", "config"]


def test_the_type_of_activations_may_be_chosen(checkpoint):
    assert ast.load(checkpoint, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="'int3'"):
        ast.load(checkpoint, dtype="int3")


@pytest.mark.parametrize("name", ["llama-3.1-71b", "no/such/place", "missing.json"])
def test_a_model_that_is_not_there_is_named(name):
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        ast.from_config(name)
    assert name in str(caught.value)


def test_a_directory_comes_before_the_shipped_model_of_its_name(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / api.SHIPPED_NAME).symlink_to(checkpoint)
    assert ast.load(api.SHIPPED_NAME).config.vocab_size == SMALL["vocab_size"]


def test_the_shipped_model_has_its_name():
    assert api.SHIPPED_NAME == "stdlib-llama"
    try:
        directory = ast.shipped_model()
    except CheckpointError as error:
        assert error.what == "no model ships with this installation"
    else:
        assert directory.name == api.SHIPPED_NAME

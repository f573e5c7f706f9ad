"""The run behind `asterope run`: what it scores, compares, leaves out, and records."""

from __future__ import annotations

import dataclasses

import pytest

import asterope as ast
from asterope import api
from asterope.errors import CheckpointError, ConfigError, FormatError, ShapeError
from tokenized_checkpoint import SMALL, write_tokenized

ROOFLINE = ast.EstimateOptions(batch=1, context=32, fidelity="roofline")


def options(checkpoint, **more):
    chosen = {"estimate": ROOFLINE, "max_text_tokens": 64, "max_new_tokens": 0, "formats": ()}
    return ast.RunOptions(checkpoint=checkpoint, **(chosen | more))


def test_a_run_of_a_quantized_checkpoint_takes_it_as_it_is(model, tmp_path):
    stored = model.quantize("mxfp8").save(tmp_path / "mxfp8")
    found = ast.run(options(stored))
    assert [row.scheme for row in found.accuracy.rows] == ["mxfp8 weights, bf16 activations"]
    assert found.estimate.scheme == "mxfp8 weights, bf16 activations"
    assert any("no original to compare with" in note for note in found.notes)


def test_a_run_without_tokenizer_scores_random_tokens_and_says_so(checkpoint, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).symlink_to(checkpoint / name)
    found = ast.run(options(bare, max_new_tokens=4))
    assert found.accuracy.is_random
    assert found.sample is None
    assert "random tokens" in found.accuracy.text
    assert any("perplexity says nothing" in note for note in found.notes)


@pytest.mark.slow
def test_a_format_that_does_not_fit_is_left_out_unless_it_is_chosen(tmp_path):
    place = write_tokenized(tmp_path / "odd", SMALL | {"intermediate_size": 144})
    found = ast.run(options(place, format="fp8", formats=("mxfp4",)))
    assert [row.format for row in found.accuracy.rows] == ["original", "fp8_row"]
    assert any(note.startswith("mxfp4 was left out: ") for note in found.notes)
    with pytest.raises(ShapeError):
        ast.run(options(place, format="mxfp4"))


def test_an_unquantized_run_has_one_row(checkpoint):
    found = ast.run(options(checkpoint, format="bf16"))
    assert [row.format for row in found.accuracy.rows] == ["original"]
    assert found.estimate.scheme == "unquantized"


@pytest.mark.slow
def test_a_small_model_is_compared_in_all_formats(checkpoint):
    stages = []
    found = ast.run(
        options(checkpoint, formats=None, max_text_tokens=64),
        lambda stage, done, total: stages.append(stage),
    )
    names = {row.format.removesuffix("_row") for row in found.accuracy.rows}
    assert names == {"original", *api.COMPARED_FORMATS}
    assert list(dict.fromkeys(stages))[:2] == ["load", "quantize to mxfp4"]


def test_a_run_records_how_it_was_made(checkpoint):
    found = ast.run(options(checkpoint, command="asterope run x"))
    assert found.command == "asterope run x"
    assert found.versions["asterope"] == ast.__version__
    assert {"torch", "triton", "numpy"} <= found.versions.keys()
    assert found.created.endswith("+00:00")


def test_runs_give_the_same_numbers(checkpoint):
    first, second = (ast.run(options(checkpoint, max_new_tokens=4)) for _ in range(2))
    assert first.accuracy == second.accuracy
    assert first.estimate == second.estimate
    assert first.sample.quantized == second.sample.quantized


@pytest.mark.parametrize(
    ("changes", "error", "place"),
    [
        ({"format": "mxfp5"}, FormatError, "format"),
        ({"formats": ("mxfp4", "mxfp5")}, FormatError, "format"),
        ({"estimate": dataclasses.replace(ROOFLINE, context=4096)}, ConfigError, "context"),
        ({"rule": "two_level"}, FormatError, "rule"),
    ],
    ids=["format", "formats", "context", "rule"],
)
def test_what_is_wrong_is_found_before_anything_is_quantized(changes, error, place, checkpoint):
    stages = []
    with pytest.raises(error) as caught:
        ast.run(options(checkpoint, **changes), lambda stage, done, total: stages.append(stage))
    assert caught.value.where == place
    assert set(stages) <= {"load"}


@pytest.mark.parametrize("field", ["max_text_tokens", "max_new_tokens"])
def test_a_count_outside_its_limits_is_refused(field, checkpoint):
    with pytest.raises(ConfigError, match="-1 is outside") as caught:
        options(checkpoint, **{field: -1})
    assert caught.value.where == field


def test_the_default_text_is_of_modules_held_out_of_training(model):
    text = api.text_of(model, None, max_tokens=2000)
    assert len(text.tokens) == 2000
    assert "calendar.py, cmd.py" in text.what
    assert "calendar.py" in api.HELD_OUT_MODULES


def test_a_text_shorter_than_asked_is_scored_whole(model, tmp_path):
    (tmp_path / "short.txt").write_text("only this")
    text = api.text_of(model, tmp_path / "short.txt", max_tokens=100)
    assert text.what == f"all 9 tokens of {tmp_path / 'short.txt'}"


def test_a_text_without_tokenizer_is_refused(model, tmp_path):
    (tmp_path / "short.txt").write_text("only this")
    bare = dataclasses.replace(model, tokenizer=None)
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        api.text_of(bare, tmp_path / "short.txt", max_tokens=100)

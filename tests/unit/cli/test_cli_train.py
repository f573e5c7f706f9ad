"""`asterope train`: what it writes, that it goes on, and what it refuses."""

from __future__ import annotations

import warnings

import pytest

import asterope as ast

TEXT = "def f(x):\n    return x + 1\n" * 50


@pytest.fixture(autouse=True)
def _transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers  # noqa: F401 - slow, and it warns about its own dependencies


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


def test_what_is_written_is_what_training_in_python_gives(asterope, checkpoint, text, tmp_path):
    args = ["train", checkpoint, "-o", "out", "--format", "nvfp4/same", "--text", text]
    args += ["--steps", 3, "--windows-per-step", 2, "--start", "rtn"]
    found = asterope(*args, "--json").json
    assert "trained" in found["scheme"]
    assert sorted(found["held_out_losses"]) == ["0", "3"]
    assert found["weight_bytes"] < found["original_weight_bytes"]
    plan = ast.llm.TrainingPlan(steps=3, windows_per_step=2)
    made = ast.train(ast.load(checkpoint), "nvfp4/same", text=text, plan=plan, start="rtn")
    stored = ast.load(tmp_path / "out")
    assert stored.scheme == made.model.scheme
    assert stored.perplexity(TEXT[:300]) == made.model.perplexity(TEXT[:300])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "text.txt"]


def test_words_say_how_training_went(asterope, checkpoint, text, tmp_path):
    ended = asterope("train", checkpoint, "-o", "out", "--text", text, "--steps", 1, "--seed", 1)
    assert ended.code == 0
    assert ended.out.endswith("out\n")
    assert "mxfp4 weights" in ended.err
    assert "held-out loss" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "text.txt"]


def test_wrong_options_are_named(asterope, checkpoint, text):
    command = ["train", checkpoint, "-o", "out", "--text", text]
    assert "--cross-entropy" in asterope(*command, "--cross-entropy", 2).error
    assert "nothing to train for" in asterope(*command, "--format", "bf16").error
    assert "did you mean gptq" in asterope(*command, "--start", "gptqq").error
    assert "adds a branch" in asterope(*command, "--start", "svdquant").error
    assert "not empty" in asterope("train", checkpoint, "-o", text.parent).error

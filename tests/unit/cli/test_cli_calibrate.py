"""`asterope quantize --algorithm`: what is calibrated on, what is written, what is refused."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time

import pytest
import torch

import asterope as ast
from asterope import api

TEXT = "def f(x):\n    return x + 1\n" * 400


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text(TEXT)
    return file


def test_a_text_alone_asks_for_gptq_and_what_is_written_is_what_was_made(
    asterope, checkpoint, text, tmp_path
):
    found = asterope(
        "quantize",
        checkpoint,
        "-o",
        "out",
        "--calibrate",
        text,
        "--calibration-windows",
        2,
        "--json",
    ).json
    assert "gptq" in found["scheme"]
    assert found["calibrated_on"].startswith("2 windows of")
    original = ast.load(checkpoint)
    calibration = api.read_calibration(original, "gptq", text, num_windows=2)
    made = api.with_scheme(original, api.resolve_scheme("mxfp4"), None, calibration)
    stored = ast.load(tmp_path / "out")
    assert stored.perplexity("def f(y):\n    return y") == made.perplexity(
        "def f(y):\n    return y"
    )
    nearest = original.quantize("mxfp4")
    assert made.perplexity(TEXT[:800]) != nearest.perplexity(TEXT[:800])


@pytest.mark.slow
def test_a_rotated_checkpoint_reads_back_rotated(asterope, checkpoint, tmp_path):
    made = ast.load(checkpoint).quantize("nvfp4/same+h")
    assert asterope("quantize", checkpoint, "-o", "out", "--format", "nvfp4/same+h").code == 0
    stored = ast.load(tmp_path / "out")
    assert stored.scheme == made.scheme
    assert stored.scheme.rotation == 16
    assert stored.perplexity(TEXT[:600]) == made.perplexity(TEXT[:600])


def test_each_kind_of_file_gives_the_same_windows(checkpoint, text, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = tmp_path / "texts.jsonl"
    lines.write_text("\n".join([json.dumps({"text": TEXT, "id": 3}), "", json.dumps(TEXT)]))
    table = tmp_path / "texts.parquet"
    parquet.write_table(pyarrow.table({"text": [TEXT, None, TEXT]}), table)
    model = ast.load(checkpoint)
    found = [api.read_calibration(model, "mse", f, num_windows=3) for f in (text, lines, table)]
    assert all(torch.equal(each.windows, found[0].windows) for each in found)
    assert found[0].windows.shape == (3, min(512, model.config.max_context))


def test_without_a_file_library_sources_are_read_the_same_each_time(checkpoint):
    model = ast.load(checkpoint)
    one, again, other = (
        api.read_calibration(model, "gptq", num_windows=4, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(one.windows, again.windows)
    assert not torch.equal(one.windows, other.windows)
    assert api.read_calibration(model) is None


def test_a_calibrated_model_is_not_taken_for_a_rounded_one(checkpoint, text):
    model = ast.load(checkpoint)
    by_gptq = model.quantize("mxfp4", algorithm="gptq", calibrate=text)
    again = by_gptq.quantize("mxfp4")
    assert (by_gptq.algorithm, again.algorithm) == ("gptq", "rtn")
    expected = model.quantize("mxfp4").perplexity(TEXT[:600])
    assert again.perplexity(TEXT[:600]) == expected != by_gptq.perplexity(TEXT[:600])
    twice = again.quantize("mxfp4", algorithm="gptq", calibrate=text)
    assert twice.perplexity(TEXT[:600]) == by_gptq.perplexity(TEXT[:600])


def test_eval_scores_formats_by_an_algorithm(asterope, checkpoint, text):
    args = ["eval", checkpoint, "--format", "mxfp4", "--text", text, "--max-text-tokens", 300]
    args += ["--calibrate", text, "--calibration-windows", 2]
    found = asterope(*args, "--json").json
    assert found["algorithm"] == "gptq"
    shown = asterope(*args)
    assert shown.code == 0
    assert "by gptq, calibrated on 2 windows of" in shown.err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "cannot be read"),
        ("short.txt", "a", "fewer than a window"),
        ("bytes.txt", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("rows.jsonl", '{"txt": "a"}\n', "has no field 'text'"),
        ("rows.jsonl", "{\n", "is not JSON"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(asterope, checkpoint, tmp_path, name, content, words):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = asterope("quantize", checkpoint, "-o", "out", "--calibrate", file).error
    assert words in error
    assert name in error
    assert not (tmp_path / "out").exists()


def test_algorithms_that_do_not_exist_or_look_at_nothing_are_refused(asterope, checkpoint, text):
    command = ["quantize", checkpoint, "-o", "out"]
    assert "did you mean gptq" in asterope(*command, "--algorithm", "gptqq").error
    error = asterope(*command, "--algorithm", "rtn", "--calibrate", text).error
    assert "looks at no text" in error


@pytest.mark.slow
def test_a_command_killed_at_any_moment_goes_on_to_the_same_bytes(asterope, checkpoint, tmp_path):
    args = ["quantize", checkpoint, "--algorithm", "awq_gptq", "--format", "mxfp4/same"]
    assert asterope(*args, "-o", "whole").code == 0
    code = "import sys; from asterope.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *map(str, args), "-o", "part"]
    generator, kept = random.Random(0), tmp_path / ".part.layers"
    left = 0
    for _ in range(10):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while left == 0 and process.poll() is None and not kept.exists():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(0.0, 0.05) if left else 0.0)
        process.kill()
        process.wait()
        left += kept.exists()
        if (tmp_path / "part").exists():
            break
    assert left > 0
    assert (tmp_path / "part").exists() or asterope(*args, "-o", "part").code == 0
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "part" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not list(tmp_path.glob(".part*"))


def test_a_recipe_is_format_algorithm_and_cache_in_one(asterope, checkpoint, text):
    command = ["quantize", checkpoint, "--calibrate", text, "--calibration-windows", "2"]
    found = asterope(*command, "-o", "best", "--recipe", "mxfp4-best", "--json").json
    assert found["scheme"] == "mxfp4 weights, fp8 activations, awq_gptq, fp8 KV cache"
    parts = ["--format", "mxfp4/fp8", "--algorithm", "awq_gptq", "--kv", "fp8"]
    assert asterope(*command, "-o", "parts", *parts, "--json").json["scheme"] == found["scheme"]


def test_a_recipe_goes_alone(asterope, checkpoint):
    command = ["quantize", checkpoint, "-o", "out", "--recipe", "mxfp4-bets"]
    assert "did you mean mxfp4-best" in asterope(*command).error
    assert "chooses formats and algorithm" in asterope(*command, "--format", "nvfp4").error
    assert "chooses the formats" in asterope(*command, "--budget", "ppl<1.1x").error


def test_caches_are_scored_beside_the_original(asterope, checkpoint, text):
    found = asterope(
        "eval", checkpoint, "--text", text, "--kv", "fp8", "--calibrate", text, "--json",
        "--algorithm", "mse",
    ).json  # fmt: skip
    assert [row["format"] for row in found["rows"]] == ["original", "bf16"]
    assert found["rows"][1]["kl"] > 0

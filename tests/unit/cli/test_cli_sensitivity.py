"""`asterope sensitivity` and `asterope quantize --budget`."""

from __future__ import annotations

import json
import re

import pytest

import asterope as ast
from asterope.quant import Mix
from tokenized_checkpoint import SMALL, write_tokenized

TEXT = "def f(x):\n    return x + 1\n" * 8


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A checkpoint of two layers, and a text of a window."""
    place = tmp_path_factory.mktemp("two")
    (place / "text.txt").write_text(TEXT)
    return write_tokenized(place / "two", {**SMALL, "num_hidden_layers": 2}), place / "text.txt"


def test_places_and_mixes_are_listed_and_drawn(asterope, two, tmp_path):
    directory, text = two
    args = ["sensitivity", directory, "--formats", "fp8", "--text", text, "--points", 1]
    shown = asterope(*args, "--fidelity", "roofline", "--report", tmp_path / "mixes.html")
    for words in ("fp8_row in one place: KL", "gate_up", "tokens/s", "$/M tokens", "original"):
        assert words in shown.out
    assert "tokens of" in shown.err
    page = (tmp_path / "mixes.html").read_text(encoding="utf-8")
    assert "Accuracy against speed and memory" in page
    assert "asterope" in page.split("How to reproduce")[1]
    found = json.loads(re.search(r'<script id="report"[^>]*>(.*?)</script>', page).group(1))
    assert {row["format"] for row in found["places"]} == {"fp8_row"}
    assert len(found["places"]) == 2 * 4
    assert [row["kind"] for row in found["mixes"][:2]] == ["original", "one format"]


def test_machines_read_the_same(asterope, two):
    directory, text = two
    args = ["sensitivity", directory, "--formats", "fp8", "--text", text, "--points", 0, "--json"]
    found = asterope(*args, "--batch", 2, "--context", 64, "--price", 1).json
    assert (found["batch"], found["context"], found["chip"]) == (2, 64, "maia200:bench")
    original, everywhere = found["mixes"]
    assert (original["name"], everywhere["name"]) == ("original", "fp8_row")
    assert everywhere["kl"] > 0 == original["kl"]
    assert found["algorithm"] == "rtn"


def test_a_budget_gives_a_mixed_checkpoint_and_says_what_was_measured(asterope, two, tmp_path):
    directory, text = two
    args = ["quantize", directory, "-o", "out", "--budget", "bytes<0.9x", "--formats", "mxfp4,fp8"]
    ended = asterope(*args, "--text", text)
    assert ended.code == 0
    assert "bytes<0.9x: perplexity" in ended.err
    stored = ast.load(tmp_path / "out")
    assert isinstance(stored.scheme, Mix)
    args[3] = "again"
    found = asterope(*args, "--text", text, "--json").json
    assert found["measured"]["weight_bytes"] == stored.model.weight_bytes == found["weight_bytes"]
    assert found["scheme"].startswith("mix of")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--budget", "bytes<0.1x"], "no mix is within bytes<0.1x; the best that was reached has"),
        (["--budget", "accuracy"], "--budget: 'accuracy' is no budget"),
        (["--budget", "ppl<1.1x", "--format", "mxfp4"], "--budget: chooses the formats"),
        (["--formats", "mxfp4"], "--formats: is for --budget"),
        (["--budget", "ppl<1.1x", "--formats", "mxfp5"], "no format named 'mxfp5'"),
        (
            ["--budget", "ppl<9x", "--algorithm", "tuned", "--calibration-windows", "1"],
            "algorithm: tuned tunes whole layers",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    asterope, two, tmp_path, args, words
):
    directory, text = two
    error = asterope("quantize", directory, "-o", "out", "--text", text, *args).error
    assert words in error
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_is_named_first(asterope, two, tmp_path):
    error = asterope("sensitivity", two[0], "--report", tmp_path).error
    assert "is a directory" in error

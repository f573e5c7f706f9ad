"""`asterope simulate gemm M N K`: simulated, timed as an operator, or by the roofline."""

from __future__ import annotations

import json

import pytest

from asterope import chips


def test_each_chip_is_timed_by_the_best_it_has(asterope):
    ended = asterope(
        "simulate", "gemm", "64", "512", "512", "--format", "bf16",
        "--compare", "h100,b200,maia100", "--json",
    )  # fmt: skip
    assert ended.code == 0
    found = {row["chip"].partition(":")[0]: row for row in ended.json}
    assert {name: row["timed_by"] for name, row in found.items()} == {
        "maia200": "tile", "h100": "operator", "b200": "operator", "maia100": "roofline",
    }  # fmt: skip
    for name, row in found.items():
        chip = chips.get(name)
        assert row["flop"] == 2 * 64 * 512 * 512
        assert row["time_s"] >= row["flop"] / chip.peak_flop_per_s["bf16"]
        assert sum(row["parts"].values()) == pytest.approx(row["time_s"])
        assert row["bound_by"] in row["parts"]


def test_a_format_that_a_chip_cannot_multiply_runs_in_the_next_wider_one(asterope):
    ended = asterope(
        "simulate", "gemm", "256", "512", "512", "--format", "mxfp4/same",
        "--chip", "h100", "--compare", "a100,b200", "--json",
    )  # fmt: skip
    assert [row["rate"] for row in ended.json] == ["fp8", "bf16", "fp4"]


def test_six_bits_are_not_multiplied_as_four(asterope):
    ended = asterope(
        "simulate", "gemm", "512", "512", "512", "--format", "mxfp6/same", "--chip", "b200",
        "--json",
    )  # fmt: skip
    assert [row["rate"] for row in ended.json] == ["fp8"]


def test_explain_says_how_a_product_was_cut(asterope):
    ended = asterope("simulate", "gemm", "64", "512", "4096", "--chip", "h100", "--explain")
    assert "blocks of" in ended.out
    assert "launch" in ended.out


def test_explain_shows_the_blocks_that_were_considered(asterope):
    sizes = ("simulate", "gemm", "64", "512", "1024", "--format", "mxfp8/same", "--explain")
    (row,) = asterope(*sizes, "--json").json
    times = [each["time_s"] for each in row["mappings"]]
    assert times == sorted(times)
    assert [each["is_chosen"] for each in row["mappings"]].count(True) == 1
    assert row["time_s"] in times
    assert {each["split"] for each in row["mappings"]} == {1}
    out = asterope(*sizes).out
    assert "chosen" in out
    assert "split" in out


def test_explain_says_what_is_where_and_why_the_runner_up_lost(asterope):
    sizes = ("simulate", "gemm", "64", "512", "1024", "--format", "mxfp8/same", "--explain")
    (row,) = asterope(*sizes, "--json").json
    assert {each["stationary"] for each in row["mappings"]} == {"x", "w", "y"}
    out = " ".join(asterope(*sizes).out.split())
    assert "Chosen: sums stay in TSRAM, nothing is pinned in CSRAM" in out
    best = next(each for each in row["mappings"] if each["is_chosen"])
    second = next(each for each in row["mappings"] if each["stationary"] != "y")
    assert f"{second['time_s'] / best['time_s'] - 1:+.1%} of the time" in out
    assert f"Runner-up: a panel of {second['stationary']} stays in TSRAM" in out
    assert "In closed form its" in out


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (("8", "8"), "2 sizes given, a product has three"),
        (("8", "0", "32"), "0 is not a size"),
        (("8", "8", "33"), "blocks of 32"),
    ],
)
def test_wrong_sizes_are_named(asterope, sizes, words):
    ended = asterope("simulate", "gemm", *sizes, "--chip", "h100", "--format", "mxfp4")
    assert ended.code == 2
    assert words in ended.err


def test_sizes_are_for_gemm_only(asterope):
    ended = asterope("simulate", "llama-3.1-8b", "8", "8", "8")
    assert ended.code == 2
    assert "for gemm" in ended.err


def test_a_report_and_a_trace_of_a_product_are_written(asterope, tmp_path):
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    sizes = ("256", "256", "512", "--format", "bf16")
    ended = asterope("simulate", "gemm", *sizes, "--report", str(page), "--trace", str(trace))
    assert ended.code == 0
    assert f"report: {page}" in ended.err
    text = page.read_text()
    assert "gemm 256 x 256 x 512" in text
    assert "on maia200:bench" in text
    assert 'id="product-occupancy"' in text
    assert json.loads(trace.read_text())["traceEvents"]


@pytest.mark.parametrize("option", ["--report", "--trace"])
def test_what_has_no_instructions_cannot_be_drawn(asterope, tmp_path, option):
    sizes = ("256", "256", "512", "--format", "bf16", "--chip", "h100")
    ended = asterope("simulate", "gemm", *sizes, option, str(tmp_path / "out"))
    assert ended.code == 2
    assert f"{option}: the inside of h100 is not public" in ended.err


def test_a_report_goes_into_a_file(asterope, tmp_path):
    ended = asterope("simulate", "gemm", "8", "8", "32", "--report", str(tmp_path))
    assert "is a directory" in ended.err

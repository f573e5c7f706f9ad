"""`asterope simulate moe TOKENS HIDDEN INTERMEDIATE EXPERTS TOP_K`."""

from __future__ import annotations

import pytest

SIZES = ("simulate", "moe", "8", "256", "128", "8", "2", "--format", "mxfp4/fp8")


def test_it_is_timed_on_each_chip_and_explained(asterope):
    rows = asterope(*SIZES, "--compare", "h100", "--explain", "--json").json
    assert [row["timed_by"] for row in rows] == ["tile", "operator"]
    mappings = rows[0]["mappings"]
    assert {each["product"] for each in mappings} == {"gate_up", "down"}
    assert [each["time_s"] for each in mappings if each["is_chosen"]] == [rows[0]["time_s"]] * 2
    assert rows[1]["mappings"] == []
    out = asterope(*SIZES, "--explain", "--expert-loads", "even").out
    for words in ("2 of 8 experts of 128 (8 have tokens)", "M x N x K", "gate_up", "chosen"):
        assert words in out


def test_a_page_of_it_is_written(asterope, tmp_path):
    page = tmp_path / "page.html"
    assert asterope(*SIZES, "--report", str(page)).code == 0
    assert "8 tokens of 256" in page.read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("8", "256"), "2 sizes given, a layer of experts has 5"),
        (("8", "256", "128", "8", "9"), "9 of 8 experts"),
        (("8", "256", "128", "8", "2", "--expert-loads", "odd"), "--expert-loads: there is no"),
        (("8", "250", "128", "8", "2", "--format", "mxfp4"), "250"),
    ],
)
def test_wrong_input_is_named(asterope, given, words):
    ended = asterope("simulate", "moe", *given)
    assert ended.code == 2
    assert words in ended.err

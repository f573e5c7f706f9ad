"""`asterope simulate attention HEADS KV_HEADS SIZE`."""

from __future__ import annotations

import json

import pytest

HEADS = ("simulate", "attention", "8", "2", "64", "--context", "256", "--batch", "2")


def test_both_phases_are_timed_on_each_chip(asterope):
    rows = asterope(*HEADS, "--compare", "h100", "--json").json
    shown = [(row["phase"], row["batch"], row["timed_by"]) for row in rows]
    assert shown == [
        ("decode", 2, "tile"), ("decode", 2, "operator"),
        ("prefill", 1, "tile"), ("prefill", 1, "operator"),
    ]  # fmt: skip
    assert all(row["context"] == 256 for row in rows)


def test_explain_shows_the_blocks_that_were_considered(asterope):
    (row,) = asterope(*HEADS, "--phase", "decode", "--explain", "--json").json
    times = [each["time_s"] for each in row["mappings"]]
    assert times == sorted(times)
    assert row["time_s"] in times
    assert [each["is_chosen"] for each in row["mappings"]].count(True) == 1
    out = asterope(*HEADS, "--phase", "decode", "--explain").out
    assert "attention, decode, 8 heads on 2 of 64, 2 sequences of 256" in out
    for word in ("rows x keys", "split", "chosen", "launch", "leakage"):
        assert word in out


def test_a_cache_in_pages_is_read_through_its_table(asterope):
    (row,) = asterope(*HEADS, "--phase", "decode", "--page-size", "16", "--explain", "--json").json
    assert row["mapping"].startswith("_paged_attention_kernel")
    assert row["time_s"] in [each["time_s"] for each in row["mappings"]]


def test_a_cache_in_fewer_bits_takes_its_bytes(asterope):
    given = (*HEADS, "--phase", "decode", "--context", "8192", "--batch", "64")
    (wide,), (narrow,) = (asterope(*given, "--kv", kv, "--json").json for kv in ("fp8", "nvfp4"))
    assert narrow["hbm_bytes"] / wide["hbm_bytes"] == pytest.approx(4.5 / 8, rel=0.01)
    assert narrow["time_s"] < wide["time_s"]
    assert "nvfp4 cache" in asterope(*given, "--kv", "nvfp4").out


def test_latents_have_five_sizes(asterope):
    sizes = ("simulate", "attention", "8", "64", "16", "32", "32", "--latent", "--context", "256")
    rows = asterope(*sizes, "--explain", "--json").json
    assert "_absorbed_attention_kernel" in rows[0]["mapping"]
    assert all(row["time_s"] in [each["time_s"] for each in row["mappings"]] for row in rows)
    out = asterope(*sizes, "--phase", "decode").out
    assert "8 heads over latents of 64 + 16" in out


def test_a_report_and_a_trace_of_the_first_phase_are_written(asterope, tmp_path):
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    ended = asterope(*HEADS, "--phase", "prefill", "--report", str(page), "--trace", str(trace))
    assert ended.code == 0
    assert "attention, prefill, 8 heads on 2 of 64, 1 sequence of 256" in page.read_text()
    assert json.loads(trace.read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("8", "2"), "2 sizes given, attention has 3"),
        (("8", "2", "64", "--latent"), "3 sizes given, attention has 5"),
        (("8", "3", "64"), "8 query heads do not share 3 key heads evenly"),
        (("8", "2", "64", "--format", "mxfp4"), "attention is computed in bf16"),
        (("8", "2", "64", "--phase", "both?"), "there is no phase 'both?'"),
        (("8", "2", "64", "--context", "0"), "0 is not a size"),
        (("8", "2", "64", "--kv", "fp5"), "there is no 'fp5'"),
        (("8", "2", "48", "--kv", "mxfp4"), "do not divide half a head of 48"),
        (("128", "512", "64", "128", "128", "--latent", "--kv", "fp8"), "latents are cached in"),
        (("8", "2", "64", "--page-size", "24"), "--page-size: 24 is not a power of two"),
    ],
)
def test_wrong_input_is_named(asterope, given, words):
    ended = asterope("simulate", "attention", *given)
    assert ended.code == 2
    assert words in ended.err

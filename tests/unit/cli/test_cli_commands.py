"""Each command on something small: what it prints, what it writes, and the same as JSON."""

from __future__ import annotations

import json

import pytest

from asterope import chips, llm
from llm_checkpoints import MIXTURES, raw_config

FAST = ("--format", "mxfp4", "--batch", "2", "--context", "64")
ROOFLINE = (*FAST, "--fidelity", "roofline")


def test_run_writes_a_page_and_its_data_and_nothing_else(asterope, checkpoint, tmp_path):
    ended = asterope(
        "run", checkpoint, *ROOFLINE, "--formats", "", "--max-text-tokens", "64",
        "--max-new-tokens", "0", "--out", "new/report",
    )  # fmt: skip
    assert ended.code == 0
    written = sorted((tmp_path / "new" / "report").iterdir())
    assert [path.name for path in written] == ["report.html", "report.json"]
    assert {oct(path.stat().st_mode)[-3:] for path in written} == {"644"}
    found = json.loads(written[1].read_text())
    assert " ".join(found["verdict"].split()) in " ".join(ended.out.split())
    rows, estimate = found["accuracy"]["rows"], found["estimate"]
    assert [row["format"] for row in rows] == ["original", "mxfp4"]
    assert [row["is_chosen"] for row in rows] == [False, True]
    assert [chip["name"] for chip in estimate["chips"]] == ["maia200:bench", "h200", "b200"]
    priced = {(row["chip"], row["phase"]) for row in estimate["costs"] if row["usd_per_mtok"] > 0}
    assert priced == {
        (chip["name"], phase) for chip in estimate["chips"] for phase in ("decode", "prefill")
    }


def test_run_continues_a_prompt_with_both_models(asterope, checkpoint):
    ended = asterope(
        "run", checkpoint, *ROOFLINE, "--compare", "", "--formats", "", "--max-text-tokens", "64",
        "--max-new-tokens", "2", "--prompt", "if a < b:", "--json",
    )  # fmt: skip
    sample = ended.json["sample"]
    assert sample["prompt"] == "if a < b:"
    assert sample["num_tokens"] == 2


def test_run_as_json_prints_what_it_writes(asterope, checkpoint, tmp_path):
    ended = asterope(
        "run", checkpoint, *ROOFLINE, "--compare", "", "--formats", "", "--max-text-tokens", "32",
        "--max-new-tokens", "0", "--json",
    )  # fmt: skip
    assert ended.json == json.loads((tmp_path / "asterope-report" / "report.json").read_text())
    assert "report.html" in ended.err


def test_quantize_writes_a_checkpoint_that_scores_the_same(asterope, checkpoint, tmp_path):
    made = asterope("quantize", checkpoint, "--out", "small-mxfp4", "--format", "mxfp4", "--json")
    assert made.json["scheme"] == "mxfp4 weights, bf16 activations"
    assert made.json["weight_bytes"] < made.json["original_weight_bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["small-mxfp4"]
    score = ("--max-text-tokens", "64", "--context", "32", "--json")
    stored = asterope("eval", "small-mxfp4", *score).json["rows"][0]
    direct = asterope("eval", checkpoint, "--format", "mxfp4", *score).json["rows"][1]
    assert stored["scheme"] == direct["scheme"]
    assert stored["perplexity"] == direct["perplexity"]


def test_eval_finds_more_damage_with_fewer_bits(asterope, checkpoint):
    formats = ("--format", "mxfp4,fp8", "--max-text-tokens", "64", "--json")
    original, four, eight = asterope("eval", checkpoint, *formats).json["rows"]
    assert original["kl"] == 0
    assert four["kl"] > eight["kl"] > 0
    assert original["bits_per_weight"] > eight["bits_per_weight"] > four["bits_per_weight"]


def test_eval_of_a_text_file_says_which_tokens_it_scored(asterope, checkpoint, tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("It was a dark and stormy night. " * 4)
    ended = asterope("eval", checkpoint, "--text", text, "--max-text-tokens", 50, "--json")
    assert ended.json["num_tokens"] == 50
    assert "first 50 tokens" in ended.json["text"]
    assert [row["format"] for row in ended.json["rows"]] == ["original"]


def test_generate_prints_the_prompt_and_what_follows(asterope, checkpoint):
    prompt = ("generate", checkpoint, "def main(", "--max-new-tokens", "5")
    ended = asterope(*prompt)
    assert ended.out.startswith("def main(")
    assert ended.out == f"def main({asterope(*prompt, '--json').json['text']}\n"


def test_generate_is_reproducible_when_it_samples(asterope, checkpoint):
    drawn = ("generate", checkpoint, "x", "--max-new-tokens", 8, "--temperature", 1.5, "--json")
    first = asterope(*drawn, "--seed", 1).json["text"]
    assert first == asterope(*drawn, "--seed", 1).json["text"]
    assert first != asterope(*drawn, "--seed", 2).json["text"]


def test_simulate_prints_times_and_writes_a_trace(asterope, checkpoint, tmp_path):
    ended = asterope("simulate", checkpoint, *FAST, "--trace", "out.json", "--json")
    tile = [step for step in ended.json["steps"] if step["fidelity"] == "tile"]
    assert [step["phase"] for step in tile] == ["decode", "prefill"]
    assert ended.json["costs"] == []
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    names = {event["name"] for event in events if event["ph"] == "X"}
    assert any(name.startswith("decode qkv") for name in names)
    assert any(name.startswith("prefill qkv") for name in names)
    assert "ui.perfetto.dev" in ended.err


def test_simulate_of_one_phase_times_only_that(asterope, checkpoint):
    ended = asterope(
        "simulate", checkpoint / "config.json", *ROOFLINE, "--phase", "prefill", "--json"
    )
    assert {step["phase"] for step in ended.json["steps"]} == {"prefill"}


def test_cost_of_a_published_model_lists_every_assumption(asterope):
    ended = asterope(
        "cost", "qwen3-8b", "--format", "mxfp4", "--batch", 4, "--context", 512, "--fidelity",
        "roofline", "--price", "1.60", "--pue", "1.2", "--json",
    )  # fmt: skip
    stated = {(row["subject"], row["name"]): row for row in ended.json["assumptions"]}
    assert stated["maia200:bench", "usd_per_chip_hour"]["value"] == 1.60
    assert stated["all chips", "pue"]["value"] == 1.2
    assert {name for _, name in stated} >= {"utilisation", "usd_per_kwh", "overhead_power_ratio"}
    assert all(row["source"] for row in ended.json["assumptions"])


def test_cost_of_a_measured_speed_is_price_over_tokens(asterope):
    ended = asterope(
        "cost", "--tokens-per-s", 10_000, "--chip", "h200", "--price", 3.6, "--utilisation", 0.5,
        "--json",
    )  # fmt: skip
    assert ended.json["usd_per_mtok"] == pytest.approx(3.6 / 3600 / 10_000 * 1e6 / 0.5)


def test_cost_prints_tables_for_people(asterope):
    ended = asterope("cost", "llama-3.1-8b", *ROOFLINE)
    assert ended.code == 0
    for word in (
        "Step time",
        "Cost of a million tokens",
        "Break-even",
        "Memory",
        "What it rests on",
    ):
        assert word in ended.out


def test_chips_lists_all_chips(asterope):
    assert [chip["name"] for chip in asterope("chips", "--json").json] == list(chips.names())
    assert all(name in asterope("chips").out for name in chips.names())


def test_what_is_shown_of_a_chip_can_be_changed_and_read_again(asterope, tmp_path):
    shown = asterope("chips", "show", "maia200")
    (tmp_path / "mine.toml").write_text(shown.out.replace("2e9, source", "1e9, source", 1))
    again = asterope("chips", "show", "mine.toml", "--json").json
    clock = next(row for row in again["figures"] if row["path"] == "clock_hz")
    assert (clock["value"], clock["unit"]) == (1e9, "Hz")


def test_models_lists_all_published_configurations(asterope):
    rows = asterope("models", "--json").json
    assert [row["name"] for row in rows] == list(llm.published_names())
    assert all(row["can_be_simulated"] or row["reason"] for row in rows)
    assert "llama-3.1-70b" in asterope("models").out


def test_chips_share_a_step_its_energy_and_its_price(asterope, checkpoint):
    words = (checkpoint, *FAST, "--compare", "", "--tensor-parallel", "2", "--price", "1.5")
    found = asterope("cost", *words, "--json").json
    for row, cost in zip(found["steps"], found["costs"], strict=True):
        assert row["num_chips"] == cost["num_chips"] == 2
        per_hour = row["tokens_per_s"] * 3600 * cost["utilisation"]
        assert cost["usd_per_mtok"] == pytest.approx(2 * 1.5 / per_hour * 1e6)
        assert row["breakdown_s"]["network"] > 0
    assert found["memory"][0]["num_chips"] == 2
    shown = asterope("cost", *words).out
    assert "2 chips share it" in shown
    assert "fits on each of 2 chips" in shown


def test_chips_share_experts_whose_loads_are_assumed(asterope, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(raw_config(**MIXTURES["qwen3_moe"], model_type="qwen3_moe",
                                            architectures=None, hidden_size=64)))  # fmt: skip
    words = ("simulate", str(config), *FAST, "--phase", "decode", "--expert-parallel", "2")
    found = asterope(*words, "--expert-loads", "even", "--json").json
    assert {row["num_chips"] for row in found["steps"]} == {2}
    assert "spread evenly" in found["notes"][0]
    assert "2 chips share the experts" in found["notes"][1]
    assert "random or even" in asterope(*words, "--expert-loads", "skewed").error
    turns = asterope(*words, "--overlap", "halves", "--json").json
    assert all(row["hidden_s"] > 0 for row in turns["steps"])
    assert any("hidden behind kernels" in note for note in turns["notes"])
    assert "none or halves" in asterope(*words, "--overlap", "thirds").error


def test_chips_that_cannot_share_a_model_are_refused(asterope, checkpoint):
    ended = asterope("simulate", checkpoint, *FAST, "--tensor-parallel", "7")
    assert ended.code != 0
    assert "cannot be shared by 7 chips" in ended.error
    assert "tensor_parallel" in asterope("cost", checkpoint, "--tensor-parallel", "0").error

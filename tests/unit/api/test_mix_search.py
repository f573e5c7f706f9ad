"""Places one by one, fronts, budgets: what is predicted is measured, or said to differ."""

from __future__ import annotations

import dataclasses

import pytest

import asterope as ast
from asterope import api, chips
from asterope.errors import ConfigError
from asterope.quant import PLACES, Mix, QuantizedLinear, parse_budget, scheme
from tokenized_checkpoint import SMALL, write_tokenized

SCHEMES = (scheme("mxfp4"), scheme("fp8"))
MAIA = chips.get("maia200")
# Small layers wait for launches; behind slow memory their bytes tell.
SLOW = chips.replace(MAIA, {"hbm.bandwidth_bytes_per_s": MAIA.hbm.bandwidth_bytes_per_s / 1000})
WORKLOAD = api.Workload(chip=SLOW, batch=8, context=128, fidelity="roofline")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A checkpoint of two layers."""
    directory = tmp_path_factory.mktemp("two") / "two"
    return ast.load(write_tokenized(directory, {**SMALL, "num_hidden_layers": 2}))


@pytest.fixture(scope="module")
def text(original):
    return api.ScoredText(what="a program", tokens=tuple(b"def f(x):\n    return x + 1\n" * 8))


@pytest.fixture(scope="module")
def places(original, text):
    return api.measure_places(
        original, SCHEMES, text, WORKLOAD, assumptions=api.Pricing().of(WORKLOAD.chip)
    )


def test_each_place_is_listed_once_a_format(places):
    rows = list(places.rows())
    assert [(row.layer, row.place, row.format) for row in rows] == [
        (layer, place, chosen.name) for layer in (0, 1) for place in PLACES for chosen in SCHEMES
    ]
    assert all(row.kl > 0 and row.bytes_saved > 0 for row in rows)
    saved = {row.format: row.time_saved_s for row in rows if row.place == "down"}
    assert saved["mxfp4"] > saved["fp8_row"] > 0


def test_a_place_alone_is_the_mix_with_that_place(places):
    row = next(r for r in places.rows() if (r.layer, r.place, r.format) == (1, "down", "mxfp4"))
    model, found = places.measure(places.plain.replaced(1, "down", SCHEMES[0]), "one")
    assert (found.kl, found.predicted_kl) == (row.kl, row.kl)
    assert found.perplexity_ratio == row.perplexity_ratio
    _, before = places.measure(None, "original")
    assert before.time_s - found.time_s == pytest.approx(row.time_saved_s, abs=1e-12)
    assert before.weight_bytes - found.weight_bytes == row.bytes_saved
    assert isinstance(model.model.layers[1].down, QuantizedLinear)
    assert (before.kind, found.kind, before.kl) == ("original", "mix", 0.0)
    assert found.layers == (("bf16",) * 4, ("bf16", "bf16", "bf16", "mxfp4"))


@pytest.mark.parametrize("by", ["time", "bytes"])
def test_fronts_fall_in_loss_and_predict_costs_exactly(places, by):
    front = places.front(by)
    assert [p.cost for p in front] == sorted({p.cost for p in front})
    losses = [p.predicted_kl for p in front]
    assert losses == sorted(losses, reverse=True)
    assert front[-1].mix == places.plain
    for point in (front[0], front[len(front) // 2]):
        _, row = places.measure(point.mix)
        assert point.cost == (row.time_s if by == "time" else row.weight_bytes)
        assert point.predicted_kl == pytest.approx(places.predicted_kl(point.mix))
        assert row.predicted_kl == pytest.approx(point.predicted_kl)


def test_mixes_are_compared_with_the_original_and_each_format(places):
    rows = api.compare_mixes(places, num_points=3)
    kinds = [row.kind for row in rows]
    assert kinds == ["original"] + ["one format"] * 2 + ["mix"] * (len(rows) - 3)
    assert [row.name for row in rows[:3]] == ["original", "mxfp4", "fp8_row"]
    assert len(rows) >= 5
    assert all(row.usd_per_mtok > 0 for row in rows)
    found = api.mix_report(places, rows)
    assert (found.num_layers, found.num_tokens, found.algorithm) == (2, 216, "rtn")


@pytest.mark.parametrize("limit", ["bytes<0.9x", "time<0.9999x", "tokens/s>1.0001x"])
def test_a_budget_of_costs_is_kept_at_least_loss(places, limit):
    budget = parse_budget(limit)
    _, row = api.fit_budget(places, budget)
    _, before = places.measure(None)
    fields = {"bytes": "weight_bytes", "time": "time_s", "tokens/s": "tokens_per_s"}
    field = fields[budget.measure]
    assert budget.allows(getattr(row, field), getattr(before, field))
    front = places.front("bytes" if budget.measure == "bytes" else "time")
    better = [p for p in front if p.predicted_kl < row.predicted_kl - 1e-12]
    assert all(
        not budget.allows(getattr(places.measure(p.mix)[1], field), getattr(before, field))
        for p in better[:1]
    )


@pytest.mark.parametrize("measure", ["ppl", "kl"])
def test_a_budget_of_loss_is_kept_as_measured(places, measure):
    front = places.front("time")
    _, fastest = places.measure(front[0].mix)
    limit = f"kl<{fastest.kl / 2}" if measure == "kl" else "ppl<1.004x"
    budget = parse_budget(limit)
    _, row = api.fit_budget(places, budget)
    before = places.reference.quality.perplexity
    assert budget.allows(row.kl if measure == "kl" else row.perplexity, before)
    assert row.kind == "mix"
    generous = parse_budget("kl<100" if measure == "kl" else "ppl<100x")
    assert api.fit_budget(places, generous)[1].time_s == front[0].cost


def test_where_nothing_is_faster_the_smallest_within_a_loss_is_taken(original, text):
    small_step = dataclasses.replace(WORKLOAD, chip=MAIA, fidelity="tile")
    places = api.measure_places(original, [scheme("fp8/same")], text, small_step)
    assert len(places.front("time")) == 1
    _, row = api.fit_budget(places, parse_budget("ppl<100x"))
    assert row.weight_bytes == places.front("bytes")[0].cost


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("bytes<0.1x", r"no mix is within bytes<0.1x; the best that was reached has 0\.[3-9]\d*x"),
        ("time<1us", r"time<1(\.0*)? µs; the best that was reached has [\d.]+ [µm]s"),
        ("tokens/s>1e9", "reached has"),
        ("ppl<0.5x", "reached has 1x"),
        ("kl<1e-12", r"reached has \d"),
        ("ppl<2", r"reached has \d{2,}"),
    ],
)
def test_a_budget_that_nothing_reaches_names_what_was(places, limit, words):
    with pytest.raises(ConfigError, match=words) as caught:
        api.fit_budget(places, parse_budget(limit))
    assert caught.value.where == "budget"


def test_a_calibrated_search_measures_what_it_saves(original, text, tmp_path):
    calibration = api.read_calibration(original, "gptq", num_windows=2)
    places = api.measure_places(original, SCHEMES[:1], text, WORKLOAD, calibration=calibration)
    rounded = {(r.layer, r.place): r.kl for r in api.measure_places(
        original, SCHEMES[:1], text, WORKLOAD).rows()}  # fmt: skip
    assert any(row.kl != rounded[row.layer, row.place] for row in places.rows())
    model, row = api.fit_budget(places, parse_budget("bytes<0.9x"))
    again = ast.load(model.save(tmp_path / "mixed"))
    assert places.reference.score_model(again.model).kl == row.kl
    assert isinstance(again.scheme, Mix)
    with pytest.raises(ConfigError, match="already quantized"):
        api.measure_places(again, SCHEMES, text, WORKLOAD)


def test_formats_that_do_not_fit_are_named(original, text, tmp_path):
    odd = ast.load(write_tokenized(tmp_path / "odd", {**SMALL, "intermediate_size": 72}))
    places = api.measure_places(odd, (scheme("mxfp4"), scheme("fp8")), text, WORKLOAD)
    assert len(places.left_out) == 1
    assert places.left_out[0].startswith("mxfp4 was left out in down: blocks of 32")
    assert ("down", "mxfp4") not in {(row.place, row.format) for row in places.rows()}
    assert ("down", "fp8_row") in {(row.place, row.format) for row in places.rows()}
    with pytest.raises(ConfigError, match=r"mxfp4\+h256 was left out in qkv: rotated blocks"):
        api.measure_places(original, [scheme("mxfp4+h256")], text, WORKLOAD)
    with pytest.raises(ConfigError, match="has no weights"):
        api.measure_places(ast.from_config(SMALL), SCHEMES, text, WORKLOAD)


@pytest.mark.slow
def test_between_two_formats_a_mix_loses_far_less_than_halfway():
    """On a trained model a few places lose most, and they stay in the finer format."""
    model = ast.load(ast.shipped_model())
    step = api.Workload(chip=MAIA, batch=32, context=512, fidelity="roofline")
    text = api.text_of(model, None, max_tokens=1024)
    places = api.measure_places(model, (scheme("nvfp4"), scheme("fp8")), text, step)
    _, small = places.measure(scheme("nvfp4"))
    _, fine = places.measure(scheme("fp8"))
    halfway = (small.weight_bytes + fine.weight_bytes) / 2
    _, mixed = api.fit_budget(places, parse_budget(f"bytes<{halfway}"))
    assert mixed.weight_bytes < halfway
    assert mixed.kl < 0.6 * (small.kl + fine.kl) / 2

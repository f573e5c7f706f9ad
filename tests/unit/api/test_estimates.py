"""Estimates: the steps that a simulation gives, the prices that the cost model gives."""

from __future__ import annotations

import json

import pytest

import asterope as ast
from asterope import chips
from asterope.cost import cost_of_step
from asterope.errors import ChipError, ConfigError
from asterope.report import plain

OPTIONS = ast.EstimateOptions(compare=("h200", "b200"), batch=4, context=128)


@pytest.fixture(scope="module")
def small(model):
    """The small model in MXFP4."""
    return model.quantize("mxfp4")


@pytest.fixture(scope="module")
def found(small, model):
    """It timed and priced on three chips, and the original on the first."""
    return ast.estimate(small, OPTIONS, baseline=model)


def test_a_step_is_what_simulating_it_gives(found, small):
    step = found.finest("decode")
    run = small.simulate("maia200", batch=4, context=128)
    assert (step.fidelity, step.time_s, step.bound_by) == ("tile", run.time_s, run.bound_by)
    assert found.cost(step).usd_per_mtok == run.usd_per_mtok
    assert step.tokens_per_s == run.tokens_per_s == pytest.approx(4 / run.time_s)


def test_costs_are_those_of_the_cost_model(found):
    for row in found.costs:
        step = next(
            s for s in found.steps
            if (s.chip, s.phase, s.fidelity, s.scheme)
            == (row.chip, row.phase, row.fidelity, row.scheme)
        )  # fmt: skip
        expected = cost_of_step(
            chips.get(row.chip), tokens=step.num_tokens, step_s=step.time_s,
            energy_j=step.energy_j if step.fidelity == "tile" else None,
            assumptions=ast.Assumptions(),
        )  # fmt: skip
        assert row.usd_per_mtok == expected.usd_per_mtok
        assert row.joules_per_token == expected.joules_per_token


def test_decode_comes_before_prefill_and_tile_before_roofline(found):
    order = [(s.phase, s.fidelity) for s in found.steps if s.chip.startswith("maia")]
    assert order == [
        (phase, fidelity)
        for phase in ("decode", "prefill") for fidelity in ("tile", "tile", "roofline")
    ]  # fmt: skip


def test_no_step_beats_its_roofline(found):
    for phase in ("decode", "prefill"):
        tile, roofline = (
            next(s for s in found.steps
                 if (s.chip, s.phase, s.fidelity) == ("maia200:bench", phase, fidelity)
                 and s.scheme == found.scheme)
            for fidelity in ("tile", "roofline")
        )  # fmt: skip
        assert tile.time_s >= roofline.time_s


def test_groups_and_bounds_add_up_to_the_step(found):
    for step in found.steps:
        assert sum(g.time_s for g in step.groups) == pytest.approx(step.time_s)
        assert sum(step.breakdown_s.values()) == pytest.approx(step.time_s)
        assert sum(g.total_flop for g in step.groups) == step.flop
        assert sum(g.hbm_bytes for g in step.groups) == step.hbm_bytes


def test_at_the_break_even_price_both_cost_the_same(found, small):
    tie = next(t for t in found.break_even if (t.other, t.fidelity) == ("h200", "roofline"))
    priced = ast.EstimateOptions(
        compare=("h200",), phases=("decode",), batch=4, context=128, fidelity="roofline",
        pricing=ast.Pricing(prices={"maia200": tie.usd_per_chip_hour}),
    )  # fmt: skip
    own, other = ast.estimate(small, priced).costs
    assert own.usd_per_mtok == pytest.approx(other.usd_per_mtok)


def test_memory_is_weights_and_cache(found, small):
    fit = found.memory[0]
    config = small.config
    assert fit.weight_bytes == small.model.weight_bytes
    assert fit.kv_bytes == config.kv_bytes_per_token(small.model.dtype.itemsize) * 4 * 128
    assert fit.fits


def test_a_chip_that_is_too_small_is_said_to_be():
    options = ast.EstimateOptions(chip="a100", batch=1, context=128, phases=("decode",))
    found = ast.estimate(ast.from_config("llama-3.1-70b"), options)
    assert not found.memory[0].fits
    assert found.memory[0].chips_needed == 2
    assert any("cannot hold the model" in note for note in found.notes)


def test_every_figure_that_is_assumed_is_listed(found):
    chip_rows = [row for row in found.assumptions if row.kind == "chip"]
    assert {row.subject for row in chip_rows} >= {"maia200:bench"}
    assert {row.confidence for row in chip_rows} <= {"assumed", "what_if", "what-if"}
    assert all(row.source for row in found.assumptions)


def test_an_estimate_is_data(found):
    assert json.loads(json.dumps(plain(found), allow_nan=False)) == plain(found)


def test_an_estimate_without_prices_has_no_costs(small):
    options = ast.EstimateOptions(batch=1, context=16, fidelity="roofline")
    found = ast.estimate(small, options, priced=False)
    assert (found.costs, found.break_even) == ((), ())
    assert not [row for row in found.assumptions if row.kind == "cost"]


def test_the_context_is_the_models_own_unless_given(small):
    assert ast.EstimateOptions().context_of(small) == 128
    assert ast.EstimateOptions().context_of(ast.from_config("llama-3.1-8b")) == 4096
    assert ast.EstimateOptions(context=64).context_of(small) == 64


@pytest.mark.parametrize("context", [1, 129, -1])
def test_a_context_outside_the_models_is_refused(context, small):
    with pytest.raises(ConfigError, match=rf"{context} is outside 2\.\.128"):
        ast.estimate(small, ast.EstimateOptions(context=context))


@pytest.mark.parametrize("name", ["batch", "prefill_batch"])
@pytest.mark.parametrize("value", [0, -1, (1 << 20) + 1])
def test_a_batch_outside_its_limits_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{value} is outside") as caught:
        ast.EstimateOptions(**{name: value})
    assert caught.value.where == name


def test_a_chip_is_compared_with_once():
    options = ast.EstimateOptions(chip="h200", compare=("h200", "b200", "b200"))
    assert [chip.name for chip in options.chips()] == ["h200", "b200"]


def test_tiles_of_a_chip_whose_inside_is_not_public_are_refused():
    with pytest.raises(ChipError, match="the inside of h200 is not public"):
        ast.EstimateOptions(chip="h200", fidelity="tile").chips()


def test_a_price_belongs_to_its_chip():
    pricing = ast.Pricing(prices={"h200": 2.5}, electricity_extra=True)
    own, other = (pricing.of(chips.get(name)) for name in ("h200", "b200"))
    assert (own.usd_per_chip_hour, own.electricity_in_price) == (2.5, False)
    assert other.usd_per_chip_hour is None


def test_progress_counts_to_the_end(small):
    seen = {}
    options = ast.EstimateOptions(batch=1, context=16, phases=("decode",))
    ast.estimate(
        small, options, progress=lambda stage, done, total: seen.update({stage: (done, total)})
    )
    done, total = seen["simulate decode on maia200:bench"]
    assert done == total > 0


def test_a_run_writes_a_trace(small, tmp_path):
    small.simulate("maia200", batch=2, context=32).to_perfetto(tmp_path / "out.json")
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} >= {"X", "M"}

"""A step whose equal layers run once is the step of all of them, launch for launch."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from asterope.chips import get, replace
from asterope.llm import load_model, model_from_config, published_config
from asterope.quant import QuantizedLinear, scheme
from asterope.runtime import listen, remembered, stop_listening, timeline
from asterope.sim import simulate_launch
from asterope.twin import time_step
from asterope.twin.fold import fold
from llm_checkpoints import LLAMA, write_checkpoint


class _Count:
    """Hears every launch of a step."""

    wants_values = False

    def __init__(self):
        self.count = 0

    def on_launch(self, launch):
        self.count += 1


def small(quantized="mxfp4", layers=5, **changes):
    raw = {
        **published_config("llama-3.1-8b"), "num_hidden_layers": layers, "vocab_size": 2048,
        "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 1024,
        "head_dim": 64, **changes,
    }  # fmt: skip
    plan = scheme(quantized) if quantized else None
    return model_from_config(raw, scheme=plan, dtype="bfloat16", name="small")


def windowed():
    kinds = ["sliding_attention", "full_attention"] * 3
    return small(
        layers=6, model_type="qwen3", architectures=None, rope_scaling=None, layer_types=kinds,
        use_sliding_window=True, sliding_window=64,
    )  # fmt: skip


def mixed():
    """A model one of whose layers is wider than the others."""
    model, wide = small(layers=4), small(layers=1, intermediate_size=2048)
    model.layers = [*model.layers[:2], wide.layers[0], model.layers[3]]
    return model


def in_full(monkeypatch, model, chip, **options):
    """Time a step with every layer run, and every launch simulated, if it was not just before."""
    monkeypatch.setattr(timeline, "_remembered", remembered.Remembered(room=0))
    count = _Count()
    listen(count)
    try:
        step = time_step(model, chip, **options)
    finally:
        stop_listening(count)
    assert count.count == len(step.launches)
    return step


@pytest.mark.parametrize("make", [small, windowed, mixed])
@pytest.mark.parametrize(
    "options",
    [
        {"batch": 3, "context": 200, "max_events": 50},
        {"batch": 2, "context": 96, "phase": "prefill"},
        {"batch": 3, "context": 200, "fidelity": "roofline"},
    ],
)
def test_a_folded_step_is_the_step_of_all_layers(monkeypatch, make, options):
    model, chip, seen = make(), get("maia200"), []
    folded = time_step(model, chip, on_launch=seen.append, **options)
    again = time_step(model, chip, **options)
    full = in_full(monkeypatch, model, chip, **options)
    assert folded == again == full
    assert seen == list(full.launches)
    assert folded.by_kernel() == full.by_kernel()
    if options.get("max_events"):
        assert all(launch.result.events for launch in folded.launches)


def test_a_folded_step_is_that_of_all_layers_by_operators_as_well(monkeypatch):
    model, chip, options = small(None), get("h100"), {"batch": 3, "fidelity": "operator"}
    assert time_step(model, chip, **options) == in_full(monkeypatch, model, chip, **options)


def test_a_model_with_weights_is_folded_too(monkeypatch, tmp_path):
    raw = {**LLAMA, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4}
    raw["intermediate_size"] = 96
    model = load_model(write_checkpoint(tmp_path, raw), scheme=scheme("mxfp4"))
    assert fold(model)[1] == (0, 1, 1, 1)
    options = {"batch": 2, "context": 32}
    folded = time_step(model, get("maia200"), **options)
    assert folded == in_full(monkeypatch, model, get("maia200"), **options)


def test_layers_of_one_form_and_window_are_one():
    assert fold(small())[1] == (0, 1, 1, 1, 1)
    assert fold(windowed())[1] == (0, 1, 2, 1, 2, 1)
    assert fold(mixed())[1] == (0, 1, 2, 1)
    assert fold(small(layers=1))[1] == (0,)
    model, order = fold(windowed())
    assert model.config.windows == (64, None, 64)
    assert len(model.layers) == model.config.num_layers == 3 == max(order) + 1


def test_layers_of_other_types_schemes_or_kinds_are_others():
    model = small(layers=5)
    layer, down = model.layers[0], model.layers[0].down
    other = QuantizedLinear.empty(512, 1024, scheme("mxfp4/fp8"))
    halves = dataclasses.replace(down, codes=down.codes.to(torch.int16))

    class Unknown:
        num_bytes = down.num_bytes
        apply = down.apply

    model.layers = [
        layer, layer, dataclasses.replace(layer, down=other),
        dataclasses.replace(layer, down=halves), dataclasses.replace(layer, down=Unknown()),
    ]  # fmt: skip
    assert fold(model)[1] == (0, 1, 2, 3, 4)


def test_another_chip_is_not_taken_for_one_that_was_simulated():
    model, chip = small(), get("maia200")
    half = replace(chip, {"hbm.bandwidth_bytes_per_s": chip.hbm.bandwidth_bytes_per_s / 2})
    steps = [time_step(model, c, batch=3, context=200) for c in (chip, half, chip)]
    assert steps[0] == steps[2]
    assert steps[1].time_s > steps[0].time_s


# -- remembered launches ---------------------------------------------------------------------------
def result_of(events=0):
    with timeline.simulate(get("maia200"), values=False, max_events=events) as timed:
        small(layers=1).head.apply(torch.empty((2, 512), dtype=torch.bfloat16, device="meta"))
    return timed.launches[0].result


def test_what_was_not_asked_for_the_longest_is_forgotten_first():
    bare = result_of()
    kept = remembered.Remembered(room=3 * 16)
    for key in "abc":
        kept.keep(key, bare)
    assert kept.get("a") is bare
    kept.keep("d", bare)
    assert [kept.get(key) for key in "abcd"] == [bare, None, bare, bare]


def test_a_result_takes_the_room_of_its_macro_instructions():
    bare, long = result_of(), result_of(events=20)
    assert len(long.events) == 20
    kept = remembered.Remembered(room=16 + 20)
    kept.keep("a", bare)
    kept.keep("b", bare)
    kept.keep("c", long)
    assert [kept.get(key) for key in "abc"] == [None, None, long]
    kept.keep("d", dataclasses.replace(long, events=long.events * 2))
    assert [kept.get(key) for key in "cd"] == [long, None]


def test_a_result_is_remembered_by_the_next_timeline_and_simulated_without_it(monkeypatch):
    played = []

    def counted(*args, **options):
        played.append(args[1])
        return simulate_launch(*args, **options)

    monkeypatch.setattr(timeline, "simulate_launch", counted)
    monkeypatch.setattr(timeline, "_remembered", remembered.Remembered(room=1 << 10))
    one, other = result_of(), result_of()
    assert one is other
    assert len(played) == 1
    assert result_of(events=3) != one
    assert len(played) == 2

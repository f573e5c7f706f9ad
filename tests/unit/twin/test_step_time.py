"""Step times of published models: bounds, monotony in every option, sums that add up."""

from __future__ import annotations

import itertools

import pytest
import torch

from asterope.chips import get, maia200, replace
from asterope.errors import ChipError, ConfigError
from asterope.llm import load_model, model_from_config, published_config, with_cache
from asterope.quant import WEIGHT_FORMATS, scheme
from asterope.twin import time_step
from llm_checkpoints import LLAMA, write_checkpoint

CHIP = maia200()
DENSE = ("llama-3.1-8b", "llama-3-70b", "qwen2.5-72b", "qwen3-8b", "mistral-7b-v0.1")
FIDELITIES = pytest.mark.parametrize("fidelity", ["roofline", "tile"])
PHASES = pytest.mark.parametrize("phase", ["decode", "prefill"])


def model_of(name="llama-3.1-8b", quantized="mxfp4", **changes):
    raw = {**published_config(name), **changes}
    plan = scheme(quantized) if quantized else None
    return model_from_config(raw, scheme=plan, dtype="bfloat16", name=name)


def small(quantized="mxfp4", **changes):
    """A model with the layers of a published one, but few of them and a small vocabulary."""
    return model_of(quantized=quantized, num_hidden_layers=2, vocab_size=4096, **changes)


def linear_bytes(model):
    """Bytes of every matrix that a step multiplies by, read once."""
    layers = [x for y in model.layers for x in (y.qkv, y.output, y.gate_up, y.down)]
    return sum(linear.num_bytes for linear in (*layers, model.head))


def assert_never_falls(steps, what):
    times = [step.time_s for step in steps]
    assert all(a <= b for a, b in itertools.pairwise(times)), f"{what}: {times}"


# -- bounds ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "quantized"), [("llama-3.1-8b", None), *((name, "mxfp4") for name in DENSE)]
)
def test_a_decode_step_takes_no_less_than_reading_weights_and_cache(name, quantized):
    model, batch, context = model_of(name, quantized), 3, 4096
    step = time_step(model, CHIP, batch=batch, context=context, fidelity="roofline")
    assert all(window is None or window >= context for window in model.config.windows)
    least = linear_bytes(model) + model.config.kv_bytes_per_token(2) * batch * context
    assert step.hbm_bytes >= least
    assert step.time_s >= least / CHIP.hbm.bandwidth_bytes_per_s
    assert step.hbm_bytes <= 1.1 * least  # and not much more is read


@pytest.mark.parametrize(
    "quantized",
    [None, "mxfp4", *(pytest.param(x, marks=pytest.mark.slow) for x in ("fp8/fp8", "nvfp4/same"))],
)
@PHASES
def test_no_fidelity_beats_the_roofline_and_no_resource_is_over_full(quantized, phase):
    model = small(quantized)
    bound, tile = (
        time_step(model, CHIP, phase=phase, batch=2, context=100, fidelity=fidelity)
        for fidelity in ("roofline", "tile")
    )
    assert tile.time_s >= bound.time_s
    for mine, least in zip(tile.launches, bound.launches, strict=True):
        assert (mine.name, mine.tag) == (least.name, least.tag)
        assert mine.result.time_s >= least.result.time_s
    for step in (bound, tile):
        assert 0 < step.peak_share <= 1
        assert 0 < step.bandwidth_share <= 1


@pytest.mark.parametrize(
    ("name", "quantized"), [("a100", None), ("h100", "fp8/fp8"), ("mi300x", "mxfp4")]
)
@PHASES
def test_calibrated_operators_never_beat_the_roofline_and_follow_the_same_launches(
    name, quantized, phase
):
    model, chip = small(quantized), get(name)
    bound, timed = (
        time_step(model, chip, phase=phase, batch=2, context=100, fidelity=fidelity)
        for fidelity in ("roofline", "operator")
    )
    assert (timed.fidelity, timed.flop, timed.hbm_bytes) == (
        "operator",
        bound.flop,
        bound.hbm_bytes,
    )
    assert sum(timed.breakdown_ps.values()) == sum(t.result.time_ps for t in timed.launches)
    for mine, least in zip(timed.launches, bound.launches, strict=True):
        assert (mine.name, mine.tag) == (least.name, least.tag)
        assert mine.result.time_s >= least.result.time_s


def test_each_chip_is_timed_as_closely_as_it_is_described():
    found = {name: get(name).fidelities for name in ("maia200", "h200", "maia100")}
    assert found == {
        "maia200": ("roofline", "tile"), "h200": ("roofline", "operator"), "maia100": ("roofline",),
    }  # fmt: skip
    with pytest.raises(ChipError, match="maia100 is not calibrated"):
        time_step(small(), get("maia100"), context=64, fidelity="operator")


@pytest.mark.parametrize("name", DENSE)
def test_a_decode_step_multiplies_by_every_weight_once_a_token(name):
    model = model_of(name, None, num_hidden_layers=4)
    step = time_step(model, CHIP, batch=8, context=64, fidelity="roofline")
    products = 2 * 8 * linear_bytes(model) / 2  # two operations a weight, two bytes a weight
    assert products <= step.flop <= 1.02 * products


@FIDELITIES
def test_a_prefill_multiplies_by_every_weight_of_a_layer_once_a_token(fidelity):
    model = small(None)
    step = time_step(model, CHIP, phase="prefill", batch=2, context=128, fidelity=fidelity)
    head = model.head.num_bytes
    layers = linear_bytes(model) - head
    products = 2 * 128 * layers + 2 * head  # only the last token has logits
    assert products <= step.flop <= 1.1 * products


# -- monotony --------------------------------------------------------------------------------------
@FIDELITIES
@pytest.mark.parametrize(
    ("phase", "batches"), [("decode", (1, 2, 3, 17, 64)), ("prefill", (1, 2, 3, 4))]
)
def test_a_larger_batch_never_takes_less_time(fidelity, phase, batches):
    model = small()
    steps = [
        time_step(model, CHIP, phase=phase, batch=batch, context=96, fidelity=fidelity)
        for batch in batches
    ]
    assert_never_falls(steps, "batch")
    assert [step.num_tokens for step in steps] == [
        batch * (1 if phase == "decode" else 96) for batch in batches
    ]
    # A batch shares the weights, so that a token of a larger one takes less time.
    per_token = [step.time_s / step.num_tokens for step in steps]
    assert per_token[-1] < per_token[0]


@FIDELITIES
@pytest.mark.parametrize(
    ("phase", "contexts"),
    [("decode", (2, 128, 129, 4096)), ("prefill", (2, 64, 65, 200))],
)
def test_a_longer_context_never_takes_less_time(fidelity, phase, contexts):
    model = small()
    steps = [
        time_step(model, CHIP, phase=phase, context=context, fidelity=fidelity)
        for context in contexts
    ]
    assert_never_falls(steps, "context")


@FIDELITIES
@PHASES
def test_a_deeper_or_wider_model_never_takes_less_time(fidelity, phase):
    base = {"num_hidden_layers": 1, "vocab_size": 1024}
    sizes = (
        {}, {"num_hidden_layers": 3}, {"num_hidden_layers": 3, "intermediate_size": 28672},
        {"num_hidden_layers": 3, "intermediate_size": 28672, "vocab_size": 32768},
    )  # fmt: skip
    steps = [
        time_step(model_of(**{**base, **size}), CHIP, phase=phase, context=64, fidelity=fidelity)
        for size in sizes
    ]
    assert_never_falls(steps, "size")
    assert steps[0].time_s < steps[1].time_s < steps[2].time_s < steps[3].time_s


def test_a_format_of_fewer_bytes_is_never_slower_by_the_roofline():
    timed = []
    for name in (None, *WEIGHT_FORMATS):
        model = small(name)
        step = time_step(model, CHIP, batch=2, context=64, fidelity="roofline")
        timed.append((model.weight_bytes, step.time_s))
    timed.sort()
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(timed)), timed
    assert timed[0][1] < timed[-1][1]


@pytest.mark.parametrize(
    "ladder",  # each row runs one kernel, so that nothing but the bytes differs
    [("mxfp4", "mxfp6", "mxfp8"), ("fp8_row", None), ("mxfp4/same", "mxfp8/same")],
)
@PHASES
def test_a_format_of_fewer_bytes_is_never_slower_on_the_tiles(ladder, phase):
    steps = [time_step(small(name), CHIP, phase=phase, batch=2, context=64) for name in ladder]
    assert_never_falls(steps, ladder)


@pytest.mark.parametrize(
    "quantized",
    [
        "mxfp4/same",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("fp8/fp8", "mxfp8/same", "nvfp4/same")),
    ],
)
def test_narrow_activations_speed_up_a_prefill(quantized):
    wide = scheme(quantized).weights
    narrow, plain = (
        time_step(small(name), CHIP, phase="prefill", batch=1, context=256)
        for name in (quantized, wide)
    )
    assert narrow.time_s < plain.time_s


@FIDELITIES
def test_more_bandwidth_never_takes_more_time(fidelity):
    model = small(None)
    rate = CHIP.hbm.bandwidth_bytes_per_s
    steps = []
    for factor in (2.0, 1.0, 0.5):
        chip = replace(CHIP, {"hbm.bandwidth_bytes_per_s": rate * factor})
        steps.append(time_step(model, chip, context=64, fidelity=fidelity))
    assert_never_falls(steps, "bandwidth")
    assert steps[1].time_s < steps[2].time_s


@FIDELITIES
def test_a_sliding_window_never_takes_more_time_and_bounds_that_of_the_cache(fidelity):
    changes = {"model_type": "mistral", "architectures": None, "rope_scaling": None}
    windowed, full = (small(**changes, sliding_window=w) for w in (128, None))
    for context in (100, 4096):
        mine, whole = (
            time_step(m, CHIP, batch=8, context=context, fidelity=fidelity)
            for m in (windowed, full)
        )
        assert mine.time_s <= whole.time_s
        assert mine.hbm_bytes <= whole.hbm_bytes
    far = time_step(windowed, CHIP, batch=8, context=8192, fidelity=fidelity)
    assert far.hbm_bytes == pytest.approx(mine.hbm_bytes, rel=1e-3)


# -- sums ------------------------------------------------------------------------------------------
@FIDELITIES
@PHASES
def test_parts_add_up_to_the_step(fidelity, phase):
    seen = []
    step = time_step(
        small(), CHIP, phase=phase, batch=2, context=64, fidelity=fidelity, on_launch=seen.append
    )
    time_ps = round(step.time_s * 1e12)
    assert sum(step.breakdown_ps.values()) == time_ps
    assert step.bound_by in step.breakdown_ps
    assert step.breakdown_ps[step.bound_by] == max(step.breakdown_ps.values())
    kernels = step.by_kernel()
    assert sum(count for count, _ in kernels.values()) == len(step.launches)
    assert sum(seconds for _, seconds in kernels.values()) == pytest.approx(step.time_s, rel=1e-9)
    assert [s for _, s in kernels.values()] == sorted(
        (s for _, s in kernels.values()), reverse=True
    )
    assert step.tokens_per_s == pytest.approx(step.num_tokens / step.time_s)
    assert step.joules_per_token == pytest.approx(step.energy_j / step.num_tokens)
    assert seen == list(step.launches)
    starts = [launch.start_ps for launch in step.launches]
    assert starts == list(
        itertools.accumulate((x.result.time_ps for x in step.launches[:-1]), initial=0)
    )


def test_launches_of_linear_layers_say_where_they_are():
    step = time_step(small(), CHIP, context=64, fidelity="roofline")
    places = [launch.tag for launch in step.launches if launch.tag]
    assert places == ["qkv", "output", "gate_up", "down"] * 2 + ["head"]


def test_the_same_step_takes_the_same_time():
    one, other = (time_step(small(), CHIP, batch=3, context=200) for _ in range(2))
    assert one == other


@PHASES
def test_a_model_with_weights_is_timed_as_its_shapes_are_and_not_changed(tmp_path, phase):
    raw = {**LLAMA, "hidden_size": 64, "num_attention_heads": 4, "dtype": "bfloat16"}
    plan = scheme("mxfp4")
    raw["intermediate_size"] = 96
    real = load_model(write_checkpoint(tmp_path, raw), scheme=plan)
    before = [real.layers[0].qkv.dequantize(), real.embedding.clone()]
    bare = model_from_config(raw, scheme=plan)
    mine, shapes = (time_step(m, CHIP, phase=phase, batch=2, context=32) for m in (real, bare))
    assert (mine.time_s, mine.energy_j) == (shapes.time_s, shapes.energy_j)
    assert (mine.hbm_bytes, mine.flop) == (shapes.hbm_bytes, shapes.flop)
    assert mine.memory == shapes.memory
    assert torch.equal(real.layers[0].qkv.dequantize(), before[0])
    assert torch.equal(real.embedding, before[1])
    assert real.device == "cpu"


def test_a_step_says_what_was_timed():
    step = time_step(small("mxfp4/fp8"), CHIP, phase="prefill", batch=2, context=64)
    assert (step.phase, step.batch, step.context, step.new_tokens) == ("prefill", 2, 64, 64)
    assert (step.chip, step.fidelity) == (f"{CHIP.name}:{CHIP.profile}", "tile")
    assert step.model == "llama-3.1-8b"
    assert step.scheme == "mxfp4 weights, fp8 activations"


# -- other chips, and errors -----------------------------------------------------------------------
def test_a_chip_of_known_peaks_alone_is_timed_by_the_roofline_only():
    chip = get("h200")
    model = small(None)
    step = time_step(model, chip, context=64, fidelity="roofline")
    assert step.time_s >= linear_bytes(model) / chip.hbm.bandwidth_bytes_per_s
    with pytest.raises(ChipError, match="tile"):
        time_step(model, chip, context=64)


@pytest.mark.parametrize(
    ("options", "where", "says"),
    [
        ({"batch": 0}, "batch", "0 is below 1"),
        ({"batch": -3}, "batch", "-3 is below 1"),
        ({"context": 1}, "context", "1 is outside 2..131072"),
        ({"context": 131073}, "context", "131073 is outside 2..131072"),
        ({"phase": "train"}, "phase", "there is no phase 'train'"),
        ({"fidelity": "cycle"}, "fidelity", "there is no fidelity 'cycle'"),
    ],
)
def test_an_option_outside_its_limits_is_named(options, where, says):
    with pytest.raises(ConfigError) as caught:
        time_step(small(), CHIP, **{"context": 64, **options})
    assert caught.value.where == where
    assert says in caught.value.what
    assert caught.value.hint or where == "batch"


# -- KV cache in fewer bits ------------------------------------------------------------------------
@pytest.mark.parametrize(("chip", "fidelity"), [("maia200", "tile"), ("h100", "operator")])
def test_a_cache_in_fp8_halves_its_memory_and_what_a_long_context_costs(chip, fidelity):
    asked = {"batch": 64, "context": 4096, "fidelity": fidelity}
    wide, narrow = (
        time_step(with_cache(small(), name), get(chip), **asked) for name in ("auto", "fp8")
    )
    assert narrow.memory.kv_bytes * 2 == wide.memory.kv_bytes
    saved_s = wide.time_s - narrow.time_s
    least_s = narrow.memory.kv_bytes / get(chip).hbm.bandwidth_bytes_per_s
    assert least_s < saved_s < 2.5 * least_s  # reads under way fill half of Maia's bandwidth
    assert narrow.scheme.endswith("fp8 KV cache")


@pytest.mark.parametrize(("name", "bits"), [("nvfp4", 4.5), ("mxfp4", 4.25)])
@pytest.mark.parametrize(("chip", "fidelity"), [("maia200", "tile"), ("h100", "operator")])
def test_a_cache_in_blocks_costs_what_its_codes_and_scales_do(chip, fidelity, name, bits):
    asked = {"batch": 64, "context": 4096, "fidelity": fidelity}
    fp8, blocks = (
        time_step(with_cache(small(), each), get(chip), **asked) for each in ("fp8", name)
    )
    assert blocks.memory.kv_bytes == fp8.memory.kv_bytes * bits / 8
    saved_s, saved_bytes = fp8.time_s - blocks.time_s, fp8.memory.kv_bytes - blocks.memory.kv_bytes
    least_s = saved_bytes / get(chip).hbm.bandwidth_bytes_per_s
    assert 0.5 * least_s < saved_s < 2.5 * least_s  # short rows open pages of memory more often


def test_values_in_blocks_are_widened_on_the_vector_engine():
    steps = {
        name: time_step(with_cache(small(), name), CHIP, batch=8, context=2048)
        for name in ("fp8", "nvfp4")
    }
    ops = {name: sum(t.result.vector_ops for t in step.launches) for name, step in steps.items()}
    values = steps["fp8"].memory.kv_bytes / 2
    assert 3 * values < ops["nvfp4"] - ops["fp8"] < 6 * values

"""Steps that several chips share: bounds, what they exchange, and sums that add up."""

from __future__ import annotations

import pytest

from asterope import operators
from asterope.chips import get, maia200, replace
from asterope.errors import ChipError, ConfigError
from asterope.llm import model_from_config, published_config
from asterope.quant import scheme
from asterope.twin import time_step

CHIP = maia200()
FIDELITIES = pytest.mark.parametrize("fidelity", ["roofline", "tile"])
LAYERS = 3


def model_of(**changes):
    raw = {**published_config("llama-3.1-70b"), "num_hidden_layers": LAYERS, **changes}
    return model_from_config(raw, scheme=scheme("mxfp4"), dtype="bfloat16", name="three layers")


def steps(chips, *, chip=CHIP, **more):
    asked = {"batch": 16, "context": 1024, "fidelity": "tile"} | more
    return time_step(model_of(), chip, tensor_parallel=chips, **asked)


@FIDELITIES
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_a_shared_step_is_faster_but_by_no_more_than_the_chips_are(fidelity, phase):
    one, four = (steps(n, phase=phase, batch=2, fidelity=fidelity) for n in (1, 4))
    # What one chip reads of its caches and weights is a fourth, and the embedding is no launch.
    assert one.time_s / 4 < four.time_s < one.time_s
    assert sum(four.breakdown_ps.values()) == pytest.approx(four.time_s * 1e12)
    assert four.breakdown_ps["network"] > 0 == one.breakdown_ps.get("network", 0)
    assert four.num_tokens == one.num_tokens


def test_two_sums_a_layer_and_the_logits_are_exchanged():
    step = steps(4)
    names = [(t.name, t.tag) for t in step.launches if t.name in operators.COLLECTIVES]
    assert names == [("all_reduce", "output"), ("all_reduce", "down")] * LAYERS + [
        ("all_gather", "head")
    ]
    one_sum = operators.collective(CHIP, "all_reduce", 16 * 8192 * 2, 4)
    logits = operators.collective(CHIP, "all_gather", 16 * 128256 * 2, 4)
    network_s = 2 * LAYERS * one_sum.time_s + logits.time_s
    assert step.breakdown_ps["network"] / 1e12 == pytest.approx(network_s, rel=1e-4)
    kernels = [t.name for t in step.launches if t.name not in operators.COLLECTIVES]
    assert kernels == [t.name for t in steps(1).launches]


def test_energy_is_that_of_all_chips_and_the_links_have_their_part():
    step = steps(4)
    assert sum(step.energy_parts_j.values()) == pytest.approx(step.energy_j)
    assert step.energy_j == pytest.approx(4 * sum(t.result.energy_j for t in step.launches))
    sent = sum(t.result.bytes.get("network", 0) for t in step.launches)
    per_byte = CHIP.inside().energy_pj.network_byte * 1e-12
    assert step.energy_parts_j["network"] == pytest.approx(4 * sent * per_byte)


def test_folded_layers_exchange_as_often_as_layers_that_run():
    deep = time_step(model_of(num_hidden_layers=80), CHIP, batch=1, context=128, tensor_parallel=2)
    assert sum(t.name == "all_reduce" for t in deep.launches) == 160


def test_slower_links_take_longer_and_faster_ones_less():
    def of_links(factor):
        changed = {"network.per_direction_bytes_per_s": factor * 1.4e12}
        return steps(4, chip=replace(CHIP, changed), batch=512).time_s

    assert of_links(0.5) > of_links(1) > of_links(2)


def test_gpus_share_a_step_by_their_own_operators():
    h100 = get("h100")
    one, two = (steps(n, chip=h100, fidelity="operator") for n in (1, 2))
    assert one.time_s / 2 < two.time_s < one.time_s
    one_sum = operators.collective(h100, "all_reduce", 16 * 8192 * 2, 2, fused=True)
    logits = operators.collective(h100, "all_gather", 16 * 128256 * 2, 2)
    network_s = 2 * LAYERS * one_sum.time_s + logits.time_s
    assert two.breakdown_ps["network"] / 1e12 == pytest.approx(network_s, rel=1e-4)


def test_memory_is_that_of_one_chip():
    one, four = (steps(n).memory for n in (1, 4))
    assert four.kv_bytes * 4 == one.kv_bytes
    assert one.weight_bytes / 4 < four.weight_bytes < one.weight_bytes


def test_chips_that_no_network_joins_are_refused():
    with pytest.raises(ConfigError, match="64 query heads"):
        steps(5)
    with pytest.raises(ChipError):
        steps(2, chip=get("mi355x"), fidelity="operator")

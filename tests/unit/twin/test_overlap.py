"""Collectives beside kernels: two halves of a step take turns."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterope import operators
from asterope.chips import get, maia200
from asterope.errors import ConfigError
from asterope.llm import model_from_config, published_config
from asterope.quant import scheme
from asterope.runtime import TimedLaunch
from asterope.sim import Result
from asterope.twin import time_step
from asterope.twin.overlap import take_turns

CHIP = maia200()
RESULT = Result(
    kernel="k", chip="c", fidelity="tile", time_ps=0, breakdown_ps={}, bound_by="", occupancy={},
    bytes={}, asked_bytes=0, flop={}, vector_ops=0, instructions=0, energy_j=None,
)  # fmt: skip


def launch(name, time_ps):
    energy = {"network": 5.0, "clock": 1.0 * time_ps} if name == "all_reduce" else {"clock": 1.0}
    result = dataclasses.replace(
        RESULT, time_ps=time_ps, breakdown_ps={name: time_ps} if time_ps else {},
        energy_parts_j=energy, energy_j=sum(energy.values()),
    )  # fmt: skip
    return TimedLaunch(name=name, grid=(1, 1, 1), start_ps=0, result=result)


def half(times):
    """Kernels and collectives in turns."""
    names = ("kernel", "all_reduce")
    return [launch(name, ps) for turn in times for name, ps in zip(names, turn, strict=True)]


def test_while_one_half_exchanges_the_other_computes():
    ran, hidden_ps = take_turns(half([(10, 4), (10, 30)]), half([(6, 4), (6, 5)]))
    # Kernels 10, 6, 10, 6 leave no gap; the long sum begins at 26, 6 of it beside the last kernel.
    assert [(t.name, t.start_ps, t.result.time_ps) for t in ran] == [
        ("kernel", 0, 10), ("kernel", 10, 6), ("all_reduce", 16, 0), ("kernel", 16, 10),
        ("all_reduce", 26, 0), ("kernel", 26, 6), ("all_reduce", 32, 24), ("all_reduce", 56, 5),
    ]  # fmt: skip
    assert hidden_ps == 4 + 4 + 6
    waited = [t.result.energy_parts_j for t in ran if t.name == "all_reduce"]
    assert waited == [{"network": 5.0, "clock": float(ps)} for ps in (0, 0, 24, 5)]


TURNS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=8)


@given(TURNS, st.data())
def test_halves_are_never_faster_than_the_kernels_or_the_links_alone(times, data):
    others = data.draw(st.lists(st.tuples(*(st.integers(0, 1000),) * 2), min_size=len(times),
                                max_size=len(times)))  # fmt: skip
    ran, hidden_ps = take_turns(half(times), half(others))
    computed, sent = (sum(turn[i] for turn in (*times, *others)) for i in range(2))
    total = sum(t.result.time_ps for t in ran)
    assert max(computed, sent) <= total == computed + sent - hidden_ps
    assert [t.start_ps for t in ran] == [sum(t.result.time_ps for t in ran[:i])
                                         for i in range(len(ran))]  # fmt: skip
    kernels = [t.result.time_ps for t in ran if t.name == "kernel"]
    assert kernels == [c for pair in zip(times, others, strict=True) for c, _ in pair]


def step(overlap, phase, chip=CHIP, fidelity="tile", **more):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8,
             "num_key_value_heads": 4, "vocab_size": 8192, "num_hidden_layers": 2}  # fmt: skip
    raw = {**published_config("llama-3.1-8b"), **sizes}
    model = model_from_config(raw, scheme=scheme("mxfp4"), dtype="bfloat16", name="two layers")
    asked = {"batch": 2, "context": 512, "tensor_parallel": 4} | more
    return time_step(model, chip, phase=phase, fidelity=fidelity, overlap=overlap, **asked)


@pytest.mark.parametrize(
    ("chip", "fidelity"),
    [
        (CHIP, "roofline"),
        (get("h100"), "operator"),
        pytest.param(CHIP, "tile", marks=pytest.mark.slow),
    ],
)
def test_sums_hide_behind_the_kernels_of_a_prefill(chip, fidelity):
    """Whether that makes it shorter depends on how much; short steps are mostly launches."""
    alone, beside = (step(overlap, "prefill", chip, fidelity) for overlap in ("none", "halves"))
    assert alone.hidden_ps == 0 < beside.hidden_ps
    assert beside.breakdown_ps["network"] < alone.breakdown_ps["network"]
    assert fidelity != "roofline" or beside.time_s < alone.time_s
    assert sum(beside.breakdown_ps.values()) == pytest.approx(beside.time_s * 1e12)
    kernels = [t for t in beside.launches if t.name not in operators.COLLECTIVES]
    assert beside.time_s >= sum(t.result.time_s for t in kernels)
    # The same sums are sent, and the same operations done, less what half of the scores are.
    sent = [sum(t.result.bytes.get("network", 0) for t in s.launches) for s in (alone, beside)]
    assert sent[1] == pytest.approx(sent[0], rel=1e-3)
    assert beside.flop == pytest.approx(alone.flop, rel=0.02)
    assert beside.energy_j == pytest.approx(sum(beside.energy_parts_j.values()))


def test_a_decode_step_is_cut_by_its_sequences():
    beside = step("halves", "decode", fidelity="roofline", batch=5)
    assert beside.num_tokens == 5
    assert beside.hidden_ps > 0
    assert sum(t.tag == "head" for t in beside.launches) > 2


def test_what_cannot_overlap_is_refused():
    with pytest.raises(ConfigError, match="one sequence has no halves"):
        step("halves", "decode", batch=1)
    with pytest.raises(ConfigError, match="one chip exchanges nothing"):
        step("halves", "prefill", tensor_parallel=1)
    with pytest.raises(ConfigError, match="no overlap 'thirds'"):
        step("thirds", "prefill")

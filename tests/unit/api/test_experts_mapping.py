"""A layer of experts on a chip: its time, and that its products get nearly the best blocks."""

from __future__ import annotations

import pytest

from asterope import api, chips
from asterope.errors import ConfigError

MAIA = chips.maia200()
SMALL = {"tokens": 16, "hidden": 256, "intermediate": 128, "experts": 8, "top_k": 2}
MXFP4 = api.read_scheme("mxfp4/fp8")


def shape(**changes):
    return api.ExpertsShape(**{**SMALL, **changes})


@pytest.mark.parametrize("name", ["maia200", "h100", "b200", "maia100"])
def test_each_chip_is_timed_by_the_best_it_has(name):
    chip = chips.get(name)
    time = api.time_experts(chip, shape(), MXFP4)
    assert time.timed_by == chip.fidelities[-1]
    assert sum(time.parts.values()) == pytest.approx(time.time_s)
    assert time.flop == 2 * 16 * 2 * 3 * 256 * 128
    assert time.time_s > time.flop / chip.peak_flop_per_s[time.rate]
    assert 0 < time.peak_share < 1
    assert time.bound_by in time.parts


def test_only_experts_with_tokens_are_read():
    one, many = (api.time_experts(MAIA, shape(tokens=n), MXFP4) for n in (1, 64))
    assert (one.used, many.used) == (2, 8)
    weight_bytes = 3 * 256 * 128 * (4 / 8 + 1 / 32)
    assert 2 * weight_bytes < one.hbm_bytes < 4 * weight_bytes
    assert 8 * weight_bytes < many.hbm_bytes
    even = api.time_experts(MAIA, shape(tokens=4, loads="even"), MXFP4)
    assert even.used == 8


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"tokens": 512, "hidden": 1024, "intermediate": 512}, marks=pytest.mark.slow),
        pytest.param(
            {"tokens": 64, "hidden": 2048, "intermediate": 768, "experts": 128, "top_k": 8},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["few tokens", "many", "thousands of small programs"],
)
def test_the_closed_form_chooses_nearly_the_best_of_what_it_considers(changes):
    found = api.experts_mappings(MAIA, shape(**changes), MXFP4)
    time = api.time_experts(MAIA, shape(**changes), MXFP4)
    for product in ("gate_up", "down"):
        mine = [each for each in found if each.product == product]
        assert [each.time_s for each in mine] == sorted(each.time_s for each in mine)
        (chosen,) = [each for each in mine if each.is_chosen]
        assert chosen.time_s == time.time_s <= 1.03 * mine[0].time_s
    assert api.experts_mappings(chips.get("h100"), shape(), MXFP4) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"top_k": 9}, "9 of 8 experts"), ({"tokens": 0}, "0 is not a size"),
        ({"loads": "odd"}, "there is no 'odd'"),
    ],
)  # fmt: skip
def test_wrong_sizes_and_spreads_are_named(wrong, words):
    with pytest.raises(ConfigError, match=words):
        shape(**wrong)

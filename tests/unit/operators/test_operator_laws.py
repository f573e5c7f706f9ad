"""Laws of operator times: no faster than the chip, parts that add up, more chip never slower."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope import chips, operators
from asterope.errors import ChipError, ConfigError

CALIBRATED = [name for name in chips.names() if chips.get(name).achieved is not None]
SIZES = st.sampled_from([1, 3, 16, 100, 128, 1000, 4096, 8192])
HEADS = st.sampled_from([
    operators.Heads(query=32, key_value=8, dim=128),
    operators.Heads(query=16, key_value=16, dim=64, cache_bits=8),
    operators.LatentHeads(query=128, absorbed=True),
    operators.LatentHeads(query=16),
])  # fmt: skip


def _of(chip, draw_kind, a, b, c, heads):
    """Time one operator of each kind from three sizes."""
    match draw_kind:
        case "gemm":
            return operators.gemm(chip, a, b, c, rate="bf16", bits=(16, 16))
        case "quantized gemm":
            return operators.gemm(chip, a, b, c, rate="fp8", bits=(8, 8), quantizes=True)
        case "prefill":
            return operators.attention_prefill(chip, heads, batch=min(a, 16), queries=b)
        case "decode":
            return operators.attention_decode(chip, heads, batch=min(a, 512), keys=b)
        case "experts":
            loads = operators.expert_loads(64, 4, a, ranks=4, skew=1.2)
            return operators.experts(chip, loads, b, c, rate="bf16", bits=(16, 16))
        case "triton experts":
            loads = operators.expert_loads(64, 4, a, ranks=4, skew=1.2)
            return operators.triton_experts(
                chip, loads, b, c, rate="bf16", bits=(16, 4.25), tokens=a, routed=4 * a
            )
        case _:
            return operators.collective(chip, "all_reduce", a * b * 2, 8)


KINDS = st.sampled_from(
    ["gemm", "quantized gemm", "prefill", "decode", "experts", "triton experts", "all_reduce"]
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(CALIBRATED), kind=KINDS, a=SIZES, b=SIZES, c=SIZES, heads=HEADS)
def test_no_operator_is_faster_than_the_roofline_and_its_parts_add_up(name, kind, a, b, c, heads):
    chip = chips.get(name)
    found = _of(chip, kind, a, b, c, heads)
    rate = "fp8" if kind == "quantized gemm" and "fp8" in chip.peak_flop_per_s else "bf16"
    assert found.time_s >= found.hbm_bytes / chip.hbm.bandwidth_bytes_per_s
    assert found.time_s >= found.flop / chip.peak_flop_per_s[rate]
    assert math.isclose(found.time_s, sum(found.parts.values()))
    assert found.bound_by in found.parts
    assert min(found.parts.values()) >= 0


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(CALIBRATED), kind=KINDS, a=SIZES, b=SIZES, c=SIZES, heads=HEADS,
       figure=st.sampled_from(["hbm", "peak", "links"]))  # fmt: skip
def test_a_faster_part_never_makes_an_operator_slower(name, kind, a, b, c, heads, figure):
    chip = chips.get(name)
    paths = {
        "hbm": ["hbm.bandwidth_bytes_per_s"],
        "peak": [f"peak_flop_per_s.{rate}" for rate in chip.peak_flop_per_s],
        "links": ["network.per_direction_bytes_per_s"],
    }[figure]
    now = {row.path: row.value for row in chips.figures(chip)}
    faster = chips.replace(chip, {path: 1.5 * now[path] for path in paths})
    before, after = (_of(which, kind, a, b, c, heads).time_s for which in (chip, faster))
    assert after <= before * (1 + 1e-12)


@pytest.mark.parametrize("skew", [0.0, 0.7, 1.0, 1.2])
@pytest.mark.parametrize("tokens", [1, 7, 64, 5000])
def test_loads_of_all_experts_are_all_assignments(skew, tokens):
    loads = operators.expert_loads(64, 4, tokens, skew=skew)
    assert loads.sum() == pytest.approx(4 * tokens)
    assert loads.max() <= tokens
    assert loads.min() >= 0


@pytest.mark.parametrize("tokens", [1, 2, 16, 300, 9000])
@pytest.mark.parametrize(("num_experts", "top_k"), [(64, 4), (128, 8), (8, 2), (4, 4)])
def test_random_routers_use_as_many_experts_as_chance_has_it(num_experts, top_k, tokens):
    loads = operators.expert_loads(num_experts, top_k, tokens, random=True)
    assert loads.sum() == top_k * tokens
    assert 0 <= loads.min() <= loads.max() <= tokens
    used = num_experts * (1 - (1 - top_k / num_experts) ** tokens)
    assert (loads > 0).sum() == pytest.approx(used, abs=1.5, rel=0.05)
    busy = operators.expert_loads(num_experts, top_k, tokens, ranks=4, random=True)
    assert busy.sum() >= loads.sum() / 4 * 0.9 - 1


@pytest.mark.parametrize("skew", [0.7, 1.0, 1.2])
def test_a_skewed_load_leaves_fewer_experts_idle_with_more_tokens(skew):
    used = [(operators.expert_loads(128, 8, t, skew=skew) > 0).sum() for t in (2, 16, 64, 1024)]
    assert used == sorted(used)
    assert used[0] <= 16 < used[-1]


def test_scales_in_blocks_slow_products_that_compute_and_others_by_their_rounding_alone():
    def times(m):
        plain, scaled = (
            operators.gemm(
                chips.get("h100"), m, 8192, 8192, rate="fp8", bits=(8, 8), block_scaled=scaled
            )
            for scaled in (False, True)
        )
        return plain.time_s, scaled.time_s - scaled.parts["quantize"]

    assert times(8192)[1] > 1.1 * times(8192)[0]
    assert times(1)[1] == pytest.approx(times(1)[0], rel=0.02)


def test_two_chips_reach_less_of_their_links_than_four():
    two, four = (
        operators.collective(chips.get("h100"), "all_gather", 1 << 30, n).parts["links"]
        for n in (2, 4)
    )
    assert two / (1 / 2) > four / (3 / 4)


def test_the_busiest_chip_has_more_than_its_share_of_a_skewed_load():
    share = 4 * 4096 / 8
    assert operators.expert_loads(64, 4, 4096, ranks=8, skew=1.2).sum() > share
    assert operators.expert_loads(64, 4, 4096, ranks=8).sum() == share


def test_a_split_of_k_fills_idle_cores():
    found = operators.gemm(chips.get("h100"), 64, 512, 16384, rate="bf16", bits=(16, 16))
    assert "K in" in found.mapping


def test_one_more_block_than_cores_costs_a_wave():
    h100 = chips.get("h100")
    full, more = (
        operators.gemm(h100, 128 * 12, 256 * blocks, 8192, rate="bf16", bits=(16, 16))
        for blocks in (11, 12)
    )
    assert more.parts["tensor"] > 1.15 * full.parts["tensor"] * 11 / 12


def test_a_chip_without_calibration_and_an_unknown_collective_are_named():
    with pytest.raises(ChipError, match="maia200 is not calibrated"):
        operators.gemm(chips.get("maia200"), 1, 1, 1, rate="bf16", bits=(16, 16))
    with pytest.raises(ChipError, match="fp4x"):
        operators.gemm(chips.get("a100"), 64, 64, 64, rate="fp4x", bits=(4, 4))
    with pytest.raises(ConfigError, match="'all' is not a collective"):
        operators.collective(chips.get("h100"), "all", 8, 2)


@settings(max_examples=40, deadline=None)
@given(ranks=st.sampled_from([2, 8, 16]), tokens=SIZES, skew=st.sampled_from([0.5, 1.0, 1.2]))
def test_the_busiest_chip_has_at_least_its_share_and_at_most_the_largest_loads(ranks, tokens, skew):
    whole = operators.expert_loads(64, 4, tokens, skew=skew)
    local = operators.expert_loads(64, 4, tokens, ranks=ranks, skew=skew)
    rounding = len(local) / 2
    assert whole.sum() / ranks - rounding <= local.sum() <= whole[: len(local)].sum() + rounding
    assert list(local) == sorted(local, reverse=True)


def test_tied_values_are_read_once_where_queries_share_a_head():
    def read(query, *, tied):
        heads = operators.Heads(query=query, key_value=8, dim=128, tied=tied)
        chip = chips.get("a100")
        return operators.attention_decode(chip, heads, batch=4, keys=8192).hbm_bytes

    assert read(32, tied=True) < 0.51 * read(32, tied=False)
    assert read(8, tied=True) == read(8, tied=False)


def test_tokens_of_experts_elsewhere_are_copied_all_the_same():
    loads = operators.expert_loads(64, 4, 1024, ranks=16)
    chip = chips.get("h100")
    own, every = (
        operators.experts(chip, loads, 2048, 768, rate="bf16", bits=(16, 16), tokens=tokens)
        for tokens in (64, 1024)
    )
    assert every.hbm_bytes - own.hbm_bytes == 960 * 2048 * 2
    assert every.flop == own.flop

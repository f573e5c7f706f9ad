"""Products of which another operand stays, or one is pinned: the same bits, at other times."""

from __future__ import annotations

import pytest
import torch

from asterope import chips
from asterope.kernels import Blocks, Choice, choose_blocks, considered, linear, watched_choices
from asterope.quant import QuantizedLinear, quantize_weight, scheme
from asterope.runtime import simulate

MAIA = chips.maia200()
NARROW_PORTS = chips.replace(MAIA, {"tile.dma.ingest_bytes_per_cycle": 96})
SLOW_HBM = chips.replace(MAIA, {"hbm.bandwidth_bytes_per_s": 5e11})

WALKS = [
    Blocks(8, 32, 128, 8, 3, stationary="x", walk=2),
    Blocks(8, 32, 128, 8, 3, stationary="w", walk=3),
    Blocks(16, 16, 128, 1, 2, stationary="w", walk=2, pinned="x"),
    Blocks(8, 32, 32, 8, 3, pinned="w"),
]


@pytest.mark.parametrize("blocks", WALKS, ids=str)
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_placements_of_plain_operands_change_no_bit(blocks, weights):
    torch.manual_seed(0)
    x, weight = torch.randn(37, 100).bfloat16(), torch.randn(70, 100).to(weights)
    rest = {
        "bias": torch.randn(70), "x_scale": torch.rand(37), "weight_scale": torch.rand(70),
        "addend": torch.randn(37, 70).bfloat16(),
    }  # fmt: skip
    usual = linear(x, weight, **rest)
    with watched_choices(instead=blocks):
        assert torch.equal(linear(x, weight, **rest), usual)


@pytest.mark.parametrize("blocks", WALKS, ids=str)
@pytest.mark.parametrize("name", ["mxfp4", "mxfp4/same", "mxfp8/same", "nvfp4/fp8"])
def test_placements_of_scaled_operands_change_no_bit(blocks, name):
    torch.manual_seed(0)
    layer = quantize_weight(torch.randn(70, 96), scheme(name), name="w")
    x = torch.randn(37, 96).bfloat16()
    usual = layer.apply(x)
    with watched_choices(instead=blocks):
        assert torch.equal(layer.apply(x), usual)


def played(chip, name, m, n, k, blocks=None):
    """Return what is chosen for a product of a scheme, and its time with these or other blocks."""
    layer = QuantizedLinear.empty(n, k, scheme(name)) if name else None
    x = torch.empty((m, k), dtype=torch.bfloat16, device="meta")
    weight = torch.empty((n, k), dtype=torch.bfloat16, device="meta")
    with watched_choices(instead=blocks) as made, simulate(chip, values=False) as timeline:
        linear(x, weight) if layer is None else layer.apply(x)
    results = [launch.result for launch in timeline.launches]
    product = results.index(max(results, key=lambda result: result.total_flop))
    return made[-1], sum(result.time_ps for result in results[product:]) / 1e12


def best(chip, choice, **placement):
    """Return the blocks of the least estimated time that are placed so."""
    found = considered(chip, choice)
    return next(
        each for each in found
        if all(getattr(each.blocks, name) == value for name, value in placement.items())
    )  # fmt: skip


@pytest.mark.parametrize("stays", ["x", "w"])
def test_narrow_ports_make_a_panel_stay(stays):
    """At 96 bytes a cycle two moving operands take longer than their product, one does not."""
    choice, time_s = played(NARROW_PORTS, "mxfp4/same", 2048, 2048, 2048)
    usual = best(NARROW_PORTS, choice, is_placed=False)
    walking = best(NARROW_PORTS, choice, stationary=stays, pinned=None)
    _, usual_s = played(NARROW_PORTS, "mxfp4/same", 2048, 2048, 2048, usual.blocks)
    _, walking_s = played(NARROW_PORTS, "mxfp4/same", 2048, 2048, 2048, walking.blocks)
    assert time_s <= walking_s < 0.8 * usual_s


def test_slow_memory_makes_rows_pinned_that_would_not_stay():
    """Four blocks of 256 rows are 25 MB: more than half of a CSRAM, less than can be pinned."""
    sizes = (4096, 4096, 12288)
    choice, time_s = played(SLOW_HBM, "", *sizes)
    usual = best(SLOW_HBM, choice, is_placed=False)
    pinned = best(SLOW_HBM, choice, stationary="y", pinned="x")
    _, usual_s = played(SLOW_HBM, "", *sizes, usual.blocks)
    _, pinned_s = played(SLOW_HBM, "", *sizes, pinned.blocks)
    assert time_s == pinned_s < 0.8 * usual_s
    overhead_s = SLOW_HBM.launch_overhead_s
    assert pinned.cycles / SLOW_HBM.clock_hz == pytest.approx(pinned_s - overhead_s, rel=0.02)


@pytest.mark.parametrize("chip", [MAIA, NARROW_PORTS, SLOW_HBM], ids=["maia200", "ports", "hbm"])
@pytest.mark.parametrize("sizes", [(16, 4096, 4096), (512, 2048, 2048), (64, 512, 16384)], ids=str)
@pytest.mark.parametrize("name", ["", "mxfp4", "mxfp4/same"])
def test_placements_never_make_a_product_slower(chip, sizes, name):
    choice, time_s = played(chip, name, *sizes)
    usual = best(chip, choice, is_placed=False)
    assert time_s <= played(chip, name, *sizes, usual.blocks)[1]


def test_nothing_is_placed_where_nobody_can_play_it():
    with simulate(NARROW_PORTS, values=False):
        assert not choose_blocks(2048, 2048, 2048, 4, 4, 32, 32).is_placed
    assert not choose_blocks(2048, 2048, 2048, 4, 4, 32, 32).is_placed


def test_experts_are_not_placed():
    found = considered(NARROW_PORTS, Choice(2048, 2048, 2048, 16, 16, experts=8))
    assert not any(each.blocks.is_placed for each in found)

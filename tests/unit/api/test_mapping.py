"""Blocks of products: the closed form chooses nearly the best, for the chip that is simulated."""

from __future__ import annotations

import pytest
import torch

from asterope import api, chips
from asterope.api.mapping import product_mappings
from asterope.kernels import choose_blocks, linear
from asterope.quant import UNQUANTIZED, Scheme, scheme
from asterope.runtime import simulate

BF16 = Scheme(weights=UNQUANTIZED)
SMALL = chips.replace(chips.maia200(), {"tile.tsram.capacity_bytes": 1 << 18})
FEW_TILES = chips.replace(chips.maia200(), {"clusters": 1})


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 4096, 4096),
        (300, 1000, 768),
        *(
            pytest.param(*shape, marks=pytest.mark.slow)
            for shape in ((48, 1024, 2048), (1024, 1024, 512), (16, 64, 32768))
        ),
    ],
)
@pytest.mark.parametrize("scheme", [BF16, api.resolve_scheme("mxfp4")], ids=["bf16", "mxfp4"])
def test_the_closed_form_chooses_nearly_the_best_of_what_it_considers(m, n, k, scheme):
    found = product_mappings(chips.maia200(), m, n, k, scheme, most=6)
    assert [time.time_s for time in found] == sorted(time.time_s for time in found)
    (chosen,) = [time for time in found if time.is_chosen]
    assert chosen.time_s <= 1.1 * found[0].time_s
    assert chosen.time_s == api.time_product(chips.maia200(), m, n, k, scheme).time_s
    mapped = {
        (t.block_m, t.block_n, t.block_k, t.split, t.programs, t.stationary, t.pinned)
        for t in found
    }  # fmt: skip
    assert len(mapped) == len(found)
    wanted = {"x", "w", "y"} if m > 1 else {"x", "y"}
    if (k, scheme) == (32768, BF16):  # three times 16 columns of all of K do not fit beside x
        wanted.remove("x")
    assert {t.stationary for t in found} == wanted
    for each in found:  # the closed form adds up: no part takes longer than the whole
        assert max(each.limits_s.values()) <= each.estimated_s + 1e-9


@pytest.mark.parametrize("chip", [SMALL, FEW_TILES], ids=["small scratchpad", "few tiles"])
def test_blocks_follow_the_chip_that_is_simulated(chip):
    """A choice for Maia 200 would not fit, or leave tiles without work."""
    product = (512, 4096, 4096, 16, 16)
    usual = choose_blocks(*product)
    with simulate(chip, values=False):
        chosen = choose_blocks(*product)
    assert chosen != usual
    assert choose_blocks(*product) == usual
    found = product_mappings(chip, 512, 1024, 1024, BF16, most=2)
    assert found[0].time_s > 0


def test_a_product_with_few_outputs_is_summed_in_parts():
    """The time is that of all launches, with the one that adds the parts."""
    found = product_mappings(chips.maia200(), 16, 64, 32768, BF16, most=2)
    (chosen,) = [each for each in found if each.is_chosen]
    assert chosen.split > 1
    for each in (mapping for mapping in found if mapping.stationary == "y"):
        outputs = (16 // each.block_m) * (64 // each.block_n)
        assert each.split > 1
        assert each.programs == outputs * each.split
        assert each.hbm_bytes >= 2 * 4 * each.split * 16 * 64


def test_there_are_no_mappings_where_nothing_is_known_of_the_inside():
    assert product_mappings(chips.get("h100"), 64, 64, 64, BF16) == []


def test_a_simulated_chip_changes_no_more_than_the_order_of_sums():
    x, weight = torch.randn(8, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    plain = linear(x, weight)
    with simulate(SMALL):
        timed = linear(x, weight)
    assert torch.allclose(plain.float(), timed.float(), rtol=0.02, atol=0.02)


def test_a_rotation_is_left_as_it_is_while_the_product_is_mapped():
    chip = chips.maia200()
    plain, turned = (
        product_mappings(chip, 64, 1024, 1024, scheme(name))
        for name in ("mxfp4/same", "mxfp4/same+h")
    )
    assert [m.block_n for m in turned] == [m.block_n for m in plain]
    extra = {round((b.time_s - a.time_s) * 1e12) for a, b in zip(plain, turned, strict=True)}
    assert len(extra) == 1
    assert extra.pop() > 0

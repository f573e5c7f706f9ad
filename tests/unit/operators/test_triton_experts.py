"""Experts in Triton's kernels: blocks by all rows of a step, copies of all, many kernels sort."""

from __future__ import annotations

import numpy as np
import pytest

from asterope import chips, operators
from asterope.errors import ConfigError

H100 = chips.get("h100")


def timed(loads, *, tokens, chip=H100, hidden=2880, intermediate=2880, top_k=4):
    return operators.triton_experts(
        chip, np.array(loads, dtype=np.float64), hidden, intermediate, rate="bf16",
        bits=(16, 4.25), tokens=tokens, routed=tokens * top_k,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "rows"), [(1, 16), (8, 16), (9, 32), (16, 32), (17, 64), (33, 128), (4096, 128)]
)
def test_a_block_has_the_mean_rows_of_an_expert_up_to_a_power_of_two(tokens, rows):
    """Of 8 tokens each of 2 experts has 16 rows, of 9 it has 18."""
    assert timed([8, 8], tokens=tokens).mapping == f"2 experts, blocks of {rows} x 128"


def test_rows_of_experts_elsewhere_are_copied_and_count_for_blocks():
    alone, shared = timed([64], tokens=16), timed([64], tokens=512)
    assert shared.flop == alone.flop
    assert shared.parts["copies"] == pytest.approx(32 * alone.parts["copies"])
    assert (alone.mapping, shared.mapping) == tuple(
        f"1 experts, blocks of {rows} x 128" for rows in (64, 128)
    )


def test_a_block_takes_as_long_however_few_rows_it_has():
    assert timed([1], tokens=512).parts["tensor"] == timed([128], tokens=512).parts["tensor"]
    assert timed([129], tokens=8192).parts["tensor"] == timed([256], tokens=8192).parts["tensor"]


def test_sorting_is_paid_once_a_layer():
    later = chips.replace(H100, {"achieved.routing_s": H100.achieved.routing_s + 1e-5})
    slower = timed([8], tokens=8, chip=later).time_s - timed([8], tokens=8).time_s
    assert slower == pytest.approx(1e-5)


def test_sizes_below_one_are_refused():
    with pytest.raises(ConfigError, match="0 is not a size"):
        timed([1], tokens=0)

"""Products on Maia 200 against what Microsoft published of them: one description, nothing fitted.

`benchmarks/validation/maia200.py` has the whole table.
"""

from __future__ import annotations

import pytest
import torch

from asterope import chips
from asterope.quant import QuantizedLinear, scheme
from asterope.runtime import simulate

BF16, FP8 = scheme("bf16"), scheme("fp8", activations="fp8")
CHIP = chips.maia200()


def product(m, n, k, kind):
    """Time the product alone: without the rounding of activations, and from start to end."""
    with simulate(CHIP, values=False) as timeline:
        x = torch.empty((m, k), dtype=torch.bfloat16, device="meta")
        QuantizedLinear.empty(n, k, kind).apply(x)
    result = max((launch.result for launch in timeline.launches), key=lambda r: r.total_flop)
    return result, result.time_s - CHIP.launch_overhead_s


@pytest.mark.parametrize(
    ("kind", "rate", "published"), [(BF16, "bf16", 0.9969), (FP8, "fp8", 0.96)], ids=["bf16", "fp8"]
)
def test_large_products_come_as_near_to_the_peak_as_published(kind, rate, published):
    m, n, k = 2048, 36864, 7168
    _, time_s = product(m, n, k, kind)
    assert 2 * m * n * k / time_s / CHIP.peak_flop_per_s[rate] == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "m", "num_bytes", "published"),
    [(BF16, 64, 2, 0.514), (FP8, 256, 1, 0.56)],
    ids=["bf16", "fp8"],
)
def test_products_of_few_rows_reach_the_published_share_of_hbm(kind, m, num_bytes, published):
    n, k = 51200, 5120
    result, time_s = product(m, n, k, kind)
    moved = (m + n) * k * num_bytes + 2 * m * n
    assert moved / time_s / CHIP.hbm.bandwidth_bytes_per_s == pytest.approx(published, rel=0.05)
    assert result.time_ps > result.roofline_ps


def test_writes_are_what_fp8_has_more_of():
    """Without results the same product reads no faster in FP8 than in BF16."""
    shares = []
    for kind, num_bytes in ((BF16, 2), (FP8, 1)):
        result, time_s = product(1, 49152, 12288, kind)
        shares.append(result.bytes["hbm_read"] / time_s / CHIP.hbm.bandwidth_bytes_per_s)
        assert result.bytes["hbm_read"] >= 49152 * 12288 * num_bytes
    assert shares[1] == pytest.approx(shares[0], rel=0.01)

"""Matrix products of published models, as Maia 200's published measurements may have had them.

Nobody outside knows the 6,143 shapes of the BF16 figures, so these are the projections of models
whose configurations are public, with the rows of decode steps and of prefills.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asterope.chips import Chip
from asterope.quant import QuantizedLinear, Scheme, scheme
from asterope.runtime import simulate

PROJECTIONS = (
    (4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336),  # Llama 3.1 8B, Mixtral 8x7B
    (5120, 3072), (16384, 3072), (3072, 8192),  # Llama 3.2 3B
    (8192, 8192), (10240, 8192), (57344, 8192), (8192, 28672),  # Llama 3.1 70B
    (18432, 16384), (16384, 16384), (16384, 53248),  # Llama 3.1 405B
    (10240, 5120), (5120, 8192), (51200, 5120), (5120, 25600),  # Qwen3 32B
    (7168, 5120), (5120, 5120), (34816, 5120), (5120, 17408),  # Qwen3 14B
    (8192, 5376), (5376, 4096), (43008, 5376), (5376, 21504),  # Gemma 3 27B
    (36864, 7168), (7168, 18432), (7168, 16384), (4096, 7168), (7168, 2048),  # DeepSeek V3
    (36864, 12288), (12288, 12288), (49152, 12288), (12288, 49152),  # GPT-3 175B
)  # fmt: skip
"""Outputs and inputs of a projection, [N, K]."""
DECODE_ROWS = (1, 16, 64, 128, 256, 512)
PREFILL_ROWS = (2048, 4096, 8192)
FORMATS = {
    "BF16": scheme("bf16"),
    "FP8": scheme("fp8", activations="fp8"),
    "MXFP8": scheme("mxfp8", activations="same"),
}
"""FP8 with a scale a row; MXFP8 with a scale for each 32 elements."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """One simulated product: the kernel that multiplies, without that which rounds activations."""

    m: int
    n: int
    k: int
    num_bytes: float
    time_s: float
    peak_share: float
    hbm_share: float

    @property
    def flop_per_byte(self) -> float:
        """Return the arithmetic intensity by inputs and outputs."""
        return 2 * self.m * self.n * self.k / self.num_bytes


def simulate_product(chip: Chip, m: int, n: int, k: int, kind: Scheme) -> Product:
    """Time one product on the tiles, from its first macro-instruction to its end.

    What passes between one kernel and the next, `launch_overhead_s`, is not part of it.
    """
    with simulate(chip, values=False) as timeline:
        x = torch.empty((m, k), dtype=torch.bfloat16, device="meta")
        QuantizedLinear.empty(n, k, kind).apply(x)
    result = max((launch.result for launch in timeline.launches), key=lambda r: r.total_flop)
    rate = max(result.flop, key=lambda name: result.flop[name])
    time_s = result.time_s - chip.launch_overhead_s
    num_bytes = (m + n) * k * kind.activation_bits / 8 + 2 * m * n
    return Product(
        m=m, n=n, k=k, num_bytes=num_bytes, time_s=time_s,
        peak_share=2 * m * n * k / time_s / chip.peak_flop_per_s[rate],
        hbm_share=num_bytes / time_s / chip.hbm.bandwidth_bytes_per_s,
    )  # fmt: skip


def shapes() -> list[tuple[int, int, int]]:
    """Return all [M, N, K], decode steps first."""
    return [(m, n, k) for m in (*DECODE_ROWS, *PREFILL_ROWS) for n, k in PROJECTIONS]


def memory_bound(products: Sequence[Product], ridge: float) -> list[Product]:
    """Return the products below the ridge."""
    return [p for p in products if p.flop_per_byte < ridge]


def compute_bound(products: Sequence[Product], ridge: float) -> list[Product]:
    """Return the products of prefills above the ridge."""
    return [p for p in products if p.m in PREFILL_ROWS and p.flop_per_byte > ridge]


def bytes_for_share(products: Sequence[Product], share: float) -> float:
    """Return the size of inputs and outputs from which on every product has the share of HBM."""
    below = [p.num_bytes for p in products if p.hbm_share <= share]
    return min(p.num_bytes for p in products if p.num_bytes > max(below, default=0.0))


def spread(shares: Sequence[float]) -> str:
    """Write the least, the median and the largest of some shares."""
    low, middle, high = min(shares), statistics.median(shares), max(shares)
    return f"{100 * low:.1f} / {100 * middle:.1f} / {100 * high:.1f} %"

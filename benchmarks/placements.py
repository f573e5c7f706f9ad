"""What it brings to choose which operand stays in TSRAM and what is pinned in CSRAM.

python -m benchmarks.placements: products of several shapes, each on the published chip and on
what-ifs of it with narrower ports or memory, with the usual placement (sums stay, nothing is
pinned) and with the chosen one. Times are simulated, of the product alone. Products of experts are
not placed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from asterope import chips
from asterope.chips import Chip
from asterope.kernels import Blocks, Choice, considered, finalists, linear, watched_choices
from asterope.quant import QuantizedLinear, scheme
from asterope.runtime import simulate
from asterope.units import si

CHIPS: Mapping[str, Mapping[str, float]] = {
    "as published": {},
    "tile ports of 96 B/cycle": {"tile.dma.ingest_bytes_per_cycle": 96},
    "NoC of 128 B/cycle": {"noc.global_bytes_per_cycle": 128},
    "HBM of 0.5 TB/s": {"hbm.bandwidth_bytes_per_s": 5e11},
}
PRODUCTS: Mapping[str, tuple[int, int, int]] = {
    "decode": (16, 8192, 8192),
    "batched decode": (256, 4096, 4096),
    "square": (4096, 4096, 4096),
    "many rows": (8192, 2048, 2048),
    "wide": (1024, 8192, 8192),
    "tall K": (4096, 4096, 12288),
    "taller K": (4096, 4096, 24576),
}
FORMATS = ("bf16", "mxfp4", "mxfp4/same", "mxfp8/same")


@dataclass(frozen=True, slots=True)
class Row:
    """One product on one chip: times in seconds, and what is placed how."""

    chip: str
    product: str
    sizes: tuple[int, int, int]
    format: str
    usual_s: float
    chosen_s: float
    blocks: Blocks
    search_s: float

    @property
    def gain(self) -> float:
        """How much longer the usual placement takes."""
        return self.usual_s / self.chosen_s - 1


def _launch(fmt: str, m: int, n: int, k: int) -> None:
    x = torch.empty((m, k), dtype=torch.bfloat16, device="meta")
    if fmt == "bf16":
        linear(x, torch.empty((n, k), dtype=torch.bfloat16, device="meta"))
    else:
        QuantizedLinear.empty(n, k, scheme(fmt)).apply(x)


def _played_s(chip: Chip, fmt: str, sizes: tuple[int, int, int], blocks: Blocks) -> float:
    """Return the time of the product with some blocks, without what quantizes its input."""
    with watched_choices(instead=blocks), simulate(chip, values=False) as timeline:
        _launch(fmt, *sizes)
    results = [launch.result for launch in timeline.launches]
    first = results.index(max(results, key=lambda result: result.total_flop))
    return sum(result.time_ps for result in results[first:]) * 1e-12


def _choice(chip: Chip, fmt: str, sizes: tuple[int, int, int]) -> Choice:
    with watched_choices() as made, simulate(chip, values=False, fidelity="roofline"):
        _launch(fmt, *sizes)
    choice = made[-1]
    assert isinstance(choice, Choice)
    return choice


def rows() -> Iterator[Row]:
    """Time each product on each chip."""
    for chip_name, changes in CHIPS.items():
        chip = chips.replace(chips.maia200(), dict(changes))
        for name, sizes in PRODUCTS.items():
            for fmt in FORMATS:
                choice = _choice(chip, fmt, sizes)
                start = time.perf_counter()
                considered(chip, choice)
                search_s = time.perf_counter() - start
                finals = [each.blocks for each in finalists(chip, choice)]
                times = [_played_s(chip, fmt, sizes, blocks) for blocks in finals]
                best = times.index(min(times))
                yield Row(
                    chip_name, name, sizes, fmt, times[0], times[best], finals[best], search_s
                )


def _placed(blocks: Blocks) -> str:
    stays = "" if blocks.stationary == "y" else f"{blocks.stationary} stays"
    pinned = "" if blocks.pinned is None else f"{blocks.pinned} pinned"
    narrow = "narrower groups" if blocks.is_placed and not (stays or pinned) else ""
    return ", ".join(filter(None, (stays, pinned, narrow))) or "as usual"


def main() -> None:
    """Print how many products gain, and those that do."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = list(rows())
    print("| chip | products | placed | most gain |\n|---|--:|--:|--:|")
    for chip in CHIPS:
        gains = [row.gain for row in found if row.chip == chip]
        print(f"| {chip} | {len(gains)} | {sum(g > 0 for g in gains)} | {max(gains):.1%} |")
    print("\n| chip | product | M x N x K | format | usual | chosen | gain | placed |")
    print("|---|---|---|---|--:|--:|--:|---|")
    for row in found:
        if row.gain > 0:
            m, n, k = row.sizes
            print(
                f"| {row.chip} | {row.product} | {m} x {n} x {k} | {row.format} |"
                f" {si(row.usual_s, 's')} | {si(row.chosen_s, 's')} | {row.gain:.1%} |"
                f" {_placed(row.blocks)} |"
            )
    slowest = max(found, key=lambda row: row.search_s)
    print(f"\nThe slowest search in closed form took {si(slowest.search_s, 's')}.")


if __name__ == "__main__":
    main()

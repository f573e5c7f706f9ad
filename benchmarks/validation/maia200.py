"""Maia 200 from its description against every published figure: prediction, error, what it pins.

Run it as `python -m benchmarks.validation.maia200`. Products are simulated, all on one description
of the chip; nothing is set for a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from benchmarks.harness import markdown_table
from benchmarks.validation.maia200_gemm import (
    FORMATS,
    Product,
    bytes_for_share,
    compute_bound,
    memory_bound,
    shapes,
    simulate_product,
    spread,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asterope import chips, operators
from asterope.chips import Chip
from asterope.native import write_atomically
from asterope.units import GIB, MIB

COMMAND = "python -m benchmarks.validation.maia200 --write"
RESULT = Path(__file__).parent / "results" / "maia200.md"
HEADER = ("figure", "published", "predicted", "error", "source", "what it says of the description")
NOTES = """\
- `blog`: Microsoft, 2026-01-26; `paper`: arXiv:2608.24664, Hot Chips 2026 slides or the deep dive;
  `fabric`: Microsoft on the network (techcommunity 4548198). Microsoft's documents but the first
  blog were read through transcriptions.
- An `input` is a figure that the description takes over: its error is 0 by construction, and is
  listed so that none is left out. What is `derived` multiplies out from others.
- Products are those of published models (`maia200_gemm.py`), in decode steps and prefills; which
  shapes Microsoft measured is not public. A row is the best of them, as "up to" and "reaches" say;
  the spread (least / median / most) is beside it. Their time is the kernel's; the time between
  kernels, an assumption of its own, is not in it.
- Nothing is set for a row, but which mechanisms the engine has, and how the library chooses blocks,
  was decided with this table in view.
- The format of FP8 products is not said. FP8 here has a scale a row, MXFP8 one for 32 elements,
  which the library loads in short runs: it pays for that in bandwidth.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A published figure and what the description makes of it; None where it is not modelled."""

    figure: str
    unit: str
    published: float
    predicted: float | None
    source: str
    says: str

    @property
    def error(self) -> float | None:
        """Return the signed relative error."""
        return None if self.predicted is None else self.predicted / self.published - 1

    def cells(self) -> tuple[str, ...]:
        """Return the row as a table has it."""
        known = self.predicted is not None and self.error is not None
        return (
            self.figure,
            f"{_digits(self.published)} {self.unit}",
            f"{_digits(self.predicted or 0)} {self.unit}" if known else "not modelled yet",
            f"{100 * (self.error or 0):+.1f} %" if known else "",
            self.source,
            self.says,
        )


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def compute_rows(bench: Chip, headline: Chip) -> Iterator[Row]:
    """Yield the rates of the engines."""
    macs = {"fp4": 65536, "fp6": 32768, "fp8": 32768, "bf16": 8192}
    for name, published in macs.items():
        yield Row(
            figure=f"MACs of a tile, {name}", unit="/clock", published=published,
            predicted=bench.inside().tile.tensor.macs_per_cycle(name), source="paper",
            says="input: the depth of a cycle",
        )  # fmt: skip
    for chip, peaks, source, says in (
        (headline, {"fp4": 10145, "fp8": 5072, "bf16": 1268}, "blog",
         "pins tiles x clock at 77.4 GHz, not how it splits: 36 x 2.15 is assumed"),
        (bench, {"fp4": 9437, "fp8": 4719, "bf16": 1180}, "paper",
         "derived: 36 tiles at 2 GHz, the clock of the measurements"),
    ):  # fmt: skip
        for name, published in peaks.items():
            yield Row(
                figure=f"peak, {name}, {chip.profile}", unit="TFLOPS", published=published,
                predicted=2 * chip.macs_per_s(name) / 1e12, source=source, says=says,
            )  # fmt: skip
    vector, clock_hz = bench.inside().tile.vector, bench.inside().clock_hz
    for lanes, bits, published in ((vector.lanes_16bit, 16, 3.07), (vector.lanes_32bit, 32, 1.54)):
        yield Row(
            figure=f"vector engine of a tile, {bits} bits", unit="TFLOPS", published=published,
            predicted=2 * lanes * vector.ops_per_lane_cycle * clock_hz / 1e12, source="paper",
            says="pins 3 operations for each lane and clock; that they are FMAs is assumed",
        )  # fmt: skip


def memory_rows(bench: Chip) -> Iterator[Row]:
    """Yield capacities, bandwidths, and what follows from both."""
    inside = bench.inside()
    tile, tiles = inside.tile, inside.num_tiles
    sram = tiles * tile.tsram.capacity_bytes + inside.clusters * inside.cluster.csram_bytes
    feed = tile.tensor.operand_bytes_per_cycle
    yield Row(
        figure="SRAM in all", unit="MB", published=272, predicted=sram / 1e6, source="blog",
        says="of 36 tiles; with ten in a cluster it is 272.6 MB, which pins 35 MiB of CSRAM",
    )  # fmt: skip
    yield Row(
        figure="SRAM bandwidth", unit="TB/s", published=80,
        predicted=feed * tiles * inside.clock_hz / 1e12, source="blog",
        says="what it counts is not said; one operand's feed fits, and leaves the ports free",
    )  # fmt: skip
    yield Row(
        figure="work that TSRAM holds", unit="cycles", published=700,
        predicted=tile.tsram.capacity_bytes / (4 * feed), source="paper",
        says="said as 700+: two buffers of two operands; pins neither ports nor latency alone",
    )  # fmt: skip
    hbm = bench.hbm
    yield Row(figure="HBM bandwidth", unit="TB/s", published=7.0,
              predicted=hbm.bandwidth_bytes_per_s / 1e12, source="blog", says="input")  # fmt: skip
    yield Row(figure="HBM capacity", unit="GB", published=216,
              predicted=hbm.capacity_bytes / 1e9, source="blog", says="input")  # fmt: skip
    yield Row(figure="host link", unit="GB/s", published=64,
              predicted=(bench.host_bytes_per_s or 0) / 1e9, source="paper",
              says="input: PCIe Gen6 x8")  # fmt: skip
    for name, published in (("fp8", 674), ("bf16", 169)):
        yield Row(
            figure=f"ridge, {name}", unit="flop/B", published=published,
            predicted=2 * bench.macs_per_s(name) / hbm.bandwidth_bytes_per_s, source="paper",
            says="derived: confirms that the measurements ran 36 tiles at 2 GHz",
        )  # fmt: skip


def power_rows(headline: Chip) -> Iterator[Row]:
    """Yield operations for each watt at the peak."""
    for name, published in (("fp4", 13.3), ("fp8", 6.7)):
        yield Row(
            figure=f"peak for each watt, {name}", unit="TFLOP/W", published=published,
            predicted=headline.peak_flop_per_s[name] / (headline.power.tdp_w or 1) / 1e12,
            source="paper",
            says="10 and 5 PFLOPS over 750 W; energies are scaled to it, and none is pinned alone",
        )  # fmt: skip


def network_rows(bench: Chip) -> Iterator[Row]:
    """Yield links and latencies."""
    net = bench.network
    links = (net.fixed_ns_bytes_per_s, net.fixed_ew_bytes_per_s, net.fixed_diagonal_bytes_per_s,
             net.switched_bytes_per_s)  # fmt: skip
    yield Row(figure="network, one direction", unit="TB/s", published=1.4,
              predicted=sum(link or 0 for link in links) / 1e12, source="blog",
              says="derived: three fixed links and the switched ones")  # fmt: skip
    yield Row(figure="share of a chip off the rack", unit="GB/s", published=133,
              predicted=(net.switched_bytes_per_s or 0) / 3e9, source="fabric",
              says="derived: switched links, 3 : 1 oversubscribed")  # fmt: skip
    yield Row(figure="one way, fixed link", unit="us", published=1,
              predicted=(net.fixed_link_latency_s or 0) * 1e6, source="fabric",
              says="input: an upper bound")  # fmt: skip
    yield Row(figure="one way, through a switch", unit="us", published=4,
              predicted=net.one_way_latency_s * 1e6, source="fabric", says="input")  # fmt: skip
    yield from _collective_rows(bench)


def _collective_rows(bench: Chip) -> Iterator[Row]:
    """Yield collectives of two trays: of the largest vector, and the smallest."""
    large, small, rate = GIB, 8, bench.network.per_direction_bytes_per_s
    chips_joined = 8
    found = operators.collective(bench, "all_reduce", large, chips_joined)
    sent = operators.COLLECTIVES["all_reduce"](chips_joined) * large
    yield Row(
        figure="all-reduce BF16, 8 chips, 1 GiB", unit="GB/s", published=1298,
        predicted=sent / found.time_s / 1e9, source="paper",
        says="a prediction, taken as what each chip sends: the sum itself would need more than"
        f" the links have; {found.mapping}",
    )  # fmt: skip
    for figure, num_bytes, published, says in (
        ("all-gather, 8 chips, of its latency bound, 8 B", small, 78,
         "`network.collective_start_s` is set by it"),
        ("all-gather, 8 chips, of its bandwidth bound, 1 GiB", large, 94,
         "`network.packet_bytes` is set by it"),
    ):  # fmt: skip
        found = operators.collective(bench, "all_gather", num_bytes, chips_joined)
        received = operators.COLLECTIVES["all_gather"](chips_joined) * num_bytes
        bound_s = max(bench.network.one_way_latency_s, received / rate)
        yield Row(figure=figure, unit="%", published=published,
                  predicted=100 * bound_s / found.time_s, source="paper",
                  says=f"{says}; {found.mapping}")  # fmt: skip


def product_rows(chip: Chip, found: Mapping[str, Sequence[Product]]) -> Iterator[Row]:
    """Yield what simulated products reach."""
    bandwidth = chip.hbm.bandwidth_bytes_per_s
    for name, compute, memory, rate in (
        ("BF16", 99.69, 51.4, "bf16"), ("FP8", 96.0, 56.0, "fp8"), ("MXFP8", 96.0, 56.0, "fp8"),
    ):  # fmt: skip
        ridge = 2 * chip.macs_per_s(rate) / bandwidth
        large = [p.peak_share for p in compute_bound(found[name], ridge)]
        small = [p.hbm_share for p in memory_bound(found[name], ridge)]
        compute_says = {
            "BF16": "rules out a fill for each instruction, and CSRAM read once for each tile",
            "FP8": "a prediction: at TSRAM's ports operands meet sums, fewer where a panel stays",
            "MXFP8": "a prediction: 1,024 deep, sums pass half as often; products join semaphores",
        }[name]
        yield Row(
            figure=f"{name} GEMM, compute-bound", unit="% of peak", published=compute,
            predicted=100 * max(large), source="paper",
            says=f"{compute_says}; {len(large)} shapes: {spread(large)}",
        )  # fmt: skip
        says = {
            "BF16": "`hbm.access.reads_in_flight_bytes` is set by it",
            "FP8": "a prediction: writes do not wait as reads do, and FP8 has a larger share",
            "MXFP8": "a prediction: scales in short runs",
        }[name]
        yield Row(
            figure=f"{name} GEMM, memory-bound", unit="% of HBM", published=memory,
            predicted=100 * max(small), source="paper",
            says=f"{says}; {len(small)} shapes: {spread(small)}",
        )  # fmt: skip
        if name == "FP8":
            yield Row(
                figure="FP8 x FP8 GEMM", unit="PFLOPS", published=4.5,
                predicted=max(large) * chip.peak_flop_per_s[rate] / 1e15, source="paper",
                says="the same products",
            )  # fmt: skip
    ridge = 2 * chip.macs_per_s("bf16") / bandwidth
    yield Row(
        figure="BF16 GEMM has half of HBM from inputs and outputs of", unit="MiB", published=113.5,
        predicted=bytes_for_share(memory_bound(found["BF16"], ridge), 0.5) / MIB, source="paper",
        says="sharp, so hardly a proof: half of HBM is close to all that products reach, and one"
        " shape that divides badly over 36 tiles moves it by half; any `kernel_cycles` up to 800"
        " gives the same size, more does not",
    )  # fmt: skip


def simulated(chip: Chip) -> dict[str, list[Product]]:
    """Simulate every product in every format."""
    work = [(name, shape) for name in FORMATS for shape in shapes()]
    found: dict[str, list[Product]] = {name: [] for name in FORMATS}
    for name, shape in track(work, "simulating", console=Console(stderr=True)):
        found[name].append(simulate_product(chip, *shape, FORMATS[name]))
    return found


def _summary(rows: Sequence[Row]) -> str:
    known = [row for row in rows if row.error is not None]
    inputs = [row for row in known if row.says.startswith("input")]
    within = sum(abs(row.error or 0) <= 0.05 for row in known if row not in inputs)
    return (
        f"{within} of {len(known) - len(inputs)} figures that are simulated or derived are within"
        f" 5 %; {len(inputs)} more are inputs, {len(rows) - len(known)} are not modelled."
    )


def main(
    write: Annotated[bool, typer.Option(help="Write the tables beside this script.")] = False,
) -> None:
    """Compare the description of Maia 200 with what is published."""
    bench, headline = chips.maia200(), chips.maia200("headline")
    sections: dict[str, list[Row]] = {
        "Simulated": list(product_rows(bench, simulated(bench))),
        "Engines": list(compute_rows(bench, headline)),
        "Memories": list(memory_rows(bench)),
        "Power": list(power_rows(headline)),
        "Network": list(network_rows(bench)),
    }
    for title, rows in sections.items():
        table = Table(*HEADER, title=title, box=None)
        for row in rows:
            table.add_row(*row.cells())
        Console(width=190).print(table)
    summary = _summary([row for rows in sections.values() for row in rows])
    Console().print(summary)
    if write:
        parts = ["# Maia 200: predicted against published", NOTES.strip(), summary]
        for title, rows in sections.items():
            table_text = markdown_table(HEADER, [row.cells() for row in rows])
            parts += [f"## {title}", table_text]
        parts.append(f"`{COMMAND}`")
        write_atomically(RESULT, ("\n\n".join(parts) + "\n").encode())
        Console(stderr=True).print(f"wrote {RESULT}")


if __name__ == "__main__":
    typer.run(main)

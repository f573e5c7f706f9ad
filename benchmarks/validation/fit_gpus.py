"""Fit what libraries reach of a GPU's figures to measured operators.

Run it as `python -m benchmarks.validation.fit_gpus MEASURED.csv h100`. It prints the lines of the
chip's table `[achieved]`. Each figure is fitted to the rows that it moves most; a third of the
shapes, and all rows of MLA, are never looked at: `gpu_operators` predicts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.validation.measured import Measurement, read
from benchmarks.validation.split import is_held_out, is_possible
from rich.progress import track
from scipy.optimize import minimize

from asterope import chips
from asterope.chips import Chip, replace

START = {
    "tensor_fraction.bf16": 0.8, "tensor_fraction.fp8": 0.7, "tensor_fraction.int8": 0.7,
    "attention_fraction.bf16": 0.6, "attention_fraction.fp8": 0.5, "hbm_fraction": 0.8,
    "cache_fraction": 0.9, "core_share": 2.2, "grouped_fraction": 0.8, "gather_fraction": 0.6,
    "block_scaled_fraction": 0.8, "grouped_block_fraction": 0.7, "rounding_fraction": 0.2,
    "visit_s": 2e-7, "triton_fraction": 0.6, "routing_s": 3e-5,
    "program_s.bf16": 2e-6, "program_s.fp8": 5e-7,
    "kernel_s": 3e-6, "wave_s": 1e-6,
    "attention_block_s": 4e-6,
    "link_fraction": 0.75, "pair_fraction": 0.6, "collective_s": 8e-6, "hop_s": 2e-6,
    "fused_s": 3e-6, "rendezvous_s": 5e-6,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Figures that are fitted together, and the rows they are fitted to.

    `variant` is one of the formats, several with a bar between them, or empty for all. With
    `bound_by` only rows count whose time this part dominates, before the fit.
    """

    figures: tuple[str, ...]
    family: str
    variant: str = ""
    bound_by: str = ""


STAGES = (
    Stage(
        figures=("kernel_s", "cache_fraction", "program_s.bf16"),
        family="attention_decode", variant="bfloat16 kv bfloat16",
    ),
    Stage(figures=("program_s.fp8",), family="attention_decode", variant="bfloat16 kv fp8"),
    Stage(
        figures=("tensor_fraction.bf16", "hbm_fraction", "wave_s"),
        family="gemm", variant="bfloat16",
    ),
    Stage(figures=("tensor_fraction.fp8",), family="gemm", variant="fp8"),
    Stage(figures=("tensor_fraction.int8",), family="gemm", variant="sq"),
    Stage(figures=("block_scaled_fraction",), family="gemm", variant="fp8_block"),
    Stage(
        figures=("grouped_fraction", "gather_fraction"),
        family="experts", variant="bfloat16|fp8",
    ),
    Stage(
        figures=("grouped_block_fraction", "rounding_fraction", "visit_s"),
        family="experts", variant="fp8_block",
    ),
    Stage(
        figures=("triton_fraction", "routing_s"),
        family="experts", variant="w4a16_mxfp4",
    ),
    Stage(
        figures=("attention_fraction.bf16", "attention_block_s"),
        family="attention_prefill", variant="bfloat16 kv bfloat16",
    ),
    Stage(
        figures=("attention_fraction.fp8",), family="attention_prefill", variant="fp8 kv fp8"
    ),
    Stage(
        figures=("link_fraction", "pair_fraction", "collective_s", "hop_s", "rendezvous_s"),
        family="all_reduce",
    ),
    Stage(figures=("fused_s",), family="fused_all_reduce"),
)  # fmt: skip


def fit(chip: Chip, rows: Sequence[Measurement]) -> dict[str, float]:
    """Return figures by path, stage after stage."""
    found: dict[str, float] = dict(START)
    for stage in track(STAGES, description="fitting"):
        used = [row for row in rows if _serves(stage, row, with_figures(chip, found))]
        if not used:
            for name in stage.figures:
                found.pop(name)
            continue
        at = _minimum(chip, found, stage.figures, used)
        found.update(zip(stage.figures, at, strict=True))
    return found


def _serves(stage: Stage, row: Measurement, chip: Chip) -> bool:
    if row.family != stage.family or (
        stage.variant and row.variant not in stage.variant.split("|")
    ):
        return False
    return not stage.bound_by or row.predict(chip).bound_by == stage.bound_by


def _minimum(
    chip: Chip, found: dict[str, float], names: Sequence[str], rows: Sequence[Measurement]
) -> list[float]:
    """Find the figures with the least mean relative error, in logarithms of figures and times."""
    wanted = np.log([row.time_s for row in rows])

    def loss(logs: np.ndarray) -> float:
        values = np.exp(logs)
        if any(v > 1 for n, v in zip(names, values, strict=True) if "fraction" in n):
            return 10.0
        trial = with_figures(chip, {**found, **dict(zip(names, values, strict=True))})
        got = np.log([row.predict(trial).time_s for row in rows])
        return float(np.abs(got - wanted).mean())

    start = np.log([found[name] for name in names])
    best = minimize(
        loss, start, method="Nelder-Mead",
        options={"maxfev": 120 * len(names), "xatol": 1e-3, "fatol": 1e-5},
    )  # fmt: skip
    return [float(v) for v in np.exp(best.x)]


def with_figures(chip: Chip, figures: dict[str, float]) -> Chip:
    """Return the chip with these figures of its table `achieved`."""
    return replace(chip, {f"achieved.{name}": value for name, value in figures.items()})


def main(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Measured operators.")],
    names: Annotated[list[str], typer.Argument(help="Chips to fit.")],
) -> None:
    """Fit chips to their measured operators and print their tables."""
    measured = [row for row in read(path) if not is_held_out(row)]
    for name in names:
        chip = with_figures(chips.get(name), START)
        rows = [row for row in measured if row.chip == name and is_possible(row, chip)]
        print(f"# {name}: {len(rows)} rows")
        for figure, value in fit(chip, rows).items():
            print(f"{figure} = {value:.4g}")


if __name__ == "__main__":
    typer.run(main)

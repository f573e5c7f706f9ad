"""Predicted against measured GPU operators: errors of held-out rows, and the worst of them.

Run it as `python -m benchmarks.validation.gpu_operators MEASURED.csv`. Rows that the
chip's published memory bandwidth rules out are counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.harness import markdown_table
from benchmarks.validation.measured import Measurement, read
from benchmarks.validation.split import is_held_out, is_possible
from rich.console import Console
from rich.table import Table

from asterope import chips
from asterope.native import write_atomically

COMMAND = "python -m benchmarks.validation.gpu_operators MEASURED.csv --write"
RESULT = Path(__file__).parent / "results" / "gpu_operators.md"
NOTES = """\
- Errors are |predicted / measured - 1| of the held-out rows: their mean, median and ninth decile;
  bias is the mean with its sign; `fitted` is the mean error of the rows the fit saw.
- Held out: one shape of three with all its sizes (of collectives one size of three), and MLA
  whole. Products and experts with scales in blocks have one figure each of their own, mxfp4
  experts, which run in Triton's kernels, two; other formats are predicted with the figures of
  bf16, fp8 and int8 (`sq`).
- `impossible` rows are faster than the published memory bandwidth allows for the bytes that their
  formats say; they are left out.
- Measurements: NVIDIA aiconfigurator (TensorRT-LLM 1.0.0 on A100, 1.3.0rc20 on H100; NCCL).
"""
EXPLAINED = """\
- **gemm.** K = 1024 with N = 8192 (and one size of 5120 x 5120): short sums over many blocks. The
  library keeps a block's end under the next one's start (persistent kernels); the model charges
  each wave's fill and drain in full, so it is slow by a fifth.
- **attention_decode.** One sequence of 512 to 16,384 keys: the library splits it less than the rule
  that the model has from its source, which pays the wait of every program. 128 keys in batches of
  128 and 256 are a fifth to a quarter slower than predicted: programs so short do not overlap. The
  A100 rows of grouped queries were collected with a cache whose values lie where the keys do
  (`_FIRST` in `measured.py`); they are predicted as such, half of the bytes.
- **attention_prefill.** A prompt of 128 tokens: the fixed share of a block was fitted to longer
  ones. 512 to 2,048 tokens on H100: the library's block of 128 queries waits for its first keys,
  which no part of the model counts. An fp8 cache has its prompts multiplied in fp8.
- **experts.** Seven H100 rows of 256 and 512 tokens take 4 to 8 times as long as the rows with half
  and with twice as many: the library's choice of a kernel, which no model from shapes will find;
  without them H100's mean is 9.9 %. One token on one of 64 chips: 6 launches of 4.3 us are more
  than the 22 us measured. The others are single draws of skewed loads, predicted by their mean
  (`routed.py` and `expert_loads`).
- **all_reduce.** Two A100s at 1 to 2 MiB: the protocol with flags in the data is predicted to win
  and was not chosen. Eight H100s above 64 MiB: NVSwitch adds up on the way, the model sends data
  round. The rest are crossings between protocols, 13 to 21 % off.
- **fused_all_reduce.** As above for 512 MiB; the least time is one figure for 2 to 8 chips, though
  two chips are 1 us faster; eight chips at 256 to 512 KiB are at the crossing of protocols.
- **all_gather, reduce_scatter, all_to_all** take the figures that all_reduce was fitted to. Eight
  chips start faster in them than in its two phases (short messages +30 to +90 %).
- **mla_decode.** TensorRT-LLM has no split of keys for it on A100: a sequence of 32,768 keys takes
  80 times what its bytes ask for. **mla_prefill.** Eight prompts of 16 tokens: blocks that are one
  eighth full cost the model a whole one."""
COLUMNS = (
    "chip", "operator", "formats", "rows", "held out", "mean", "median", "90 %", "bias", "fitted",
    "impossible",
)  # fmt: skip
FITTED = ("bfloat16", "fp8", "bfloat16 kv bfloat16", "fp8 kv fp8", "half")
WORST = ("operator", "chip", "formats", "shape", "measured, us", "predicted, us", "error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A measurement and what was predicted."""

    row: Measurement
    predicted_s: float
    held_out: bool
    possible: bool

    @property
    def error(self) -> float:
        """Return the signed relative error."""
        return self.predicted_s / self.row.time_s - 1


def outcomes(measured: Sequence[Measurement]) -> list[Outcome]:
    """Predict every row."""
    found = []
    for name in sorted({row.chip for row in measured}):
        chip = chips.get(name)
        found += [
            Outcome(
                row=row, predicted_s=row.predict(chip).time_s,
                held_out=is_held_out(row), possible=is_possible(row, chip),
            )
            for row in measured
            if row.chip == name
        ]  # fmt: skip
    return found


def summary(found: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each chip, operator and formats."""
    keys = sorted({(o.row.chip, o.row.family, o.row.variant) for o in found})
    for key in keys:
        mine = [o for o in found if (o.row.chip, o.row.family, o.row.variant) == key]
        fair = [o for o in mine if o.possible]
        test = np.array([o.error for o in fair if o.held_out])
        train = np.array([o.error for o in fair if not o.held_out])
        yield (
            *key, str(len(mine)), str(len(test)), *_spread(test),
            _percent(np.abs(train).mean()) if len(train) else "",
            str(len(mine) - len(fair)),
        )  # fmt: skip


def _spread(errors: np.ndarray) -> tuple[str, ...]:
    if not len(errors):
        return "", "", "", ""
    sizes = np.abs(errors)
    return (
        _percent(sizes.mean()), _percent(np.median(sizes)), _percent(np.quantile(sizes, 0.9)),
        f"{errors.mean() * 100:+.1f} %",
    )  # fmt: skip


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"


def _worst(found: Sequence[Outcome], count: int) -> Iterator[tuple[str, ...]]:
    """Yield the worst held-out rows of each operator, largest error first."""
    for family in sorted({o.row.family for o in found}):
        fair = [o for o in found if o.held_out and o.possible and o.row.variant in FITTED]
        mine = [o for o in fair if o.row.family == family]
        for o in sorted(mine, key=lambda o: -abs(o.error))[:count]:
            yield (
                family, o.row.chip, o.row.variant, o.row.words, f"{o.row.time_s * 1e6:,.1f}",
                f"{o.predicted_s * 1e6:,.1f}", f"{o.error * 100:+.0f} %",
            )  # fmt: skip


def main(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Measured operators.")],
    worst: Annotated[int, typer.Option(help="Worst held-out rows of each operator to list.")] = 10,
    only: Annotated[str, typer.Option(help="Only operators with this in their name.")] = "",
    write: Annotated[bool, typer.Option(help="Write the tables beside this script.")] = False,
) -> None:
    """Compare predictions with measurements."""
    found = [o for o in outcomes(read(path)) if only in o.row.family]
    tables = {
        "Errors": (COLUMNS, list(summary(found))),
        f"The worst {worst} held-out rows of each operator, in the formats that were fitted": (
            WORST,
            list(_worst(found, worst)),
        ),
    }
    for title, (header, rows) in tables.items():
        table = Table(*header, title=title, box=None)
        for cells in rows:
            table.add_row(*cells)
        Console(width=170).print(table)
    if write:
        parts = ["# GPU operators: predicted against measured", NOTES.strip()]
        for title, (header, rows) in tables.items():
            parts += [f"## {title}", markdown_table(header, rows)]
        parts += ["## Why the worst are off", EXPLAINED, f"`{COMMAND}`"]
        write_atomically(RESULT, ("\n\n".join(parts) + "\n").encode())
        Console(stderr=True).print(f"wrote {RESULT}")


if __name__ == "__main__":
    typer.run(main)

"""Predicted against measured servers on H100 nodes: time to the first token, and between tokens.

Run it as `python -m benchmarks.validation.gpu_serving MEASURED.csv`. A row is a closed loop: so
many requests in flight, each with a prompt of `isl` tokens and `osl` tokens to write. The loop is
played step by step with the server's own limits (`asterope.twin.closed_loop`), steps are timed by
operators. Chips and operators are those of `gpu_operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.harness import markdown_table
from benchmarks.validation.served_rows import (
    Served,
    execution_of,
    in_flight,
    is_possible,
    model_of,
    precision_of,
    read,
    requests_of,
    server_of,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asterope import chips
from asterope.chips import Chip
from asterope.native import write_atomically
from asterope.operators import Chunk, Execution, Parallel, Precision, Transformer, mixed_step
from asterope.twin import LoopTimes, closed_loop

COMMAND = "python -m benchmarks.validation.gpu_serving MEASURED.csv --write"
RESULT = Path(__file__).parent / "results" / "gpu_serving.md"
NOTES = """\
- Errors are |predicted / measured - 1| of a server's mean times in a closed loop of 4 to 512
  requests with prompts of 128 to 8,192 tokens; bias is the median with its sign.
- Predicted is a loop of ten rounds, step by step: what a step reads goes by the token budget, the
  batch and the KV cache of the server as its source starts it (`served_rows.py` names each), how
  long it takes by operators. No time of a kernel was fitted to these rows. Read off them, for want
  of a source, are TensorRT-LLM 1.0.0rc3's host (0.5 ms to launch a dense layer, 2.1 ms and 60 us a
  sequence for a step at least, 108 us to send a token), that its dense models read one prompt of
  1,024 tokens a step, that Qwen3-32B's clients there see their first token with the second, and
  that one request more was in flight in the rows of Llama 3.1 8B. Which other mechanisms there are
  was chosen with the tables in view.
- Left out: five rows of gpt-oss-120b with 512 in flight, whose tokens come faster than the memory
  can read the weights and the caches of so many (`is_possible`).
- Measurements: NVIDIA aiconfigurator's own and InferenceX's, aggregated serving on H100 SXM.
"""
EXPLAINED = """\
- **gpt-oss-120b on vLLM, 512 in flight (4 rows, and 5 left out).** Tokens come as fast as in rows
  with 4 to 64 in flight on the same chips, and first tokens take minutes: so many were running, by
  the waits ten times as many were sent at once.
- **gpt-oss-120b on TensorRT-LLM (5 rows).** 160 and 320 requests in flight on the same chips take
  the same time a token: several servers behind a router, whose number the rows do not say.
- **Llama-3.1-8B on TensorRT-LLM.** In all but a few rows the wait is that of one request more than
  the server has slots: TTFT grows with the length of the *output* and falls with the batch, by
  1/batch of a whole request. The second table plays the rows without it. At 64 and 128 in flight on
  2 to 8 chips the front-end sends as many tokens as it can; whether a request waits for its first
  token or between tokens then hangs on how the host shares its time, and TTFT is up to three times
  off either way.
- **Qwen3-32B on TensorRT-LLM, 128 in flight** on 4 and 8 chips: as above.
- **MiniMax-M2.5, prompts of 8,192 tokens** take 1.4 to 1.8 times what is predicted: the server's
  kernels of experts and its exchange between experts' chips, of which nothing is known here, are
  not those that operators were measured with.
- **Full caches** (64 and 128 in flight): waits of 19 to 59 s are 9 to 28 % too short; where a cache
  is only just full, waits of 2.5 to 6.4 s may be half or a quarter. What a server sets aside for
  activations and graphs is one assumed figure here, and a tenth of the cache hangs on it."""
COLUMNS = (
    "model", "server", "precision", "rows", "TPOT median", "mean", "90 %", "bias", "TTFT median",
    "90 %", "bias",
)  # fmt: skip
WORST = ("model", "server", "row", "TPOT, ms", "predicted", "TTFT, ms", "predicted")
_GRAIN = 64
"""Contexts are rounded up to so many tokens, so that steps alike are timed once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A measured loop and what was predicted."""

    row: Served
    found: LoopTimes

    @property
    def errors(self) -> tuple[float, float]:
        """Return the signed relative errors, between tokens and to the first."""
        tpot, ttft = self.found.mean_tpot_s, self.found.mean_ttft_s
        return tpot / self.row.tpot_s - 1, ttft / self.row.ttft_s - 1


def predict(chip: Chip, row: Served, *, more_in_flight: int = 0) -> LoopTimes:
    """Play a row's loop, with so many requests in flight beyond `in_flight`."""
    step_s = _timer(chip, model_of(row), precision_of(row), row.parallel, execution_of(row))
    concurrency = in_flight(row) + more_in_flight
    return closed_loop(server_of(row, chip), requests_of(row), step_s, concurrency=concurrency)


@cache
def _timer(
    chip: Chip, model: Transformer, precision: Precision, parallel: Parallel, execution: Execution
) -> Callable[[tuple[Chunk, ...], int, int], float]:
    """Return what times steps, once each; rows of one model on as many chips share it."""

    @cache
    def known(prefill: tuple[Chunk, ...], batch: int, context: int) -> float:
        return mixed_step(
            chip, model, prefill=prefill, batch=batch, context=context, precision=precision,
            parallel=parallel, execution=execution,
        ).time_s  # fmt: skip

    def step_s(prefill: tuple[Chunk, ...], batch: int, context: int) -> float:
        rounded = tuple(Chunk(tokens=c.tokens, context=_up(c.context)) for c in prefill)
        return known(rounded, batch, _up(context))

    return step_s


def _up(context: int) -> int:
    return -(-context // _GRAIN) * _GRAIN


def summary(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each model, server and precision, and for each model that has several."""
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    servers: dict[str, set[tuple[str, str]]] = {}
    for o in outcomes:
        servers.setdefault(o.row.model, set()).add((o.row.server, o.row.precision))
    for o in outcomes:
        keys = [(o.row.server, o.row.precision)]
        keys += [("all", "")] * (len(servers[o.row.model]) > 1)
        for key in keys:
            groups.setdefault((o.row.model, *key), []).append(o.errors)
    for key, errors in sorted(groups.items()):
        tpot, ttft = np.array(errors).T
        yield (
            *key, str(len(errors)), *_spread(tpot), _percent(np.median(np.abs(ttft))),
            *_spread(ttft)[2:],
        )  # fmt: skip


def _spread(errors: np.ndarray) -> tuple[str, ...]:
    sizes = np.abs(errors)
    return (
        _percent(np.median(sizes)), _percent(sizes.mean()), _percent(np.quantile(sizes, 0.9)),
        f"{np.median(errors):+.1%}",
    )  # fmt: skip


def _percent(value: float) -> str:
    return f"{value:.1%}"


def worst(outcomes: Sequence[Outcome], count: int) -> Iterator[tuple[str, ...]]:
    """Yield the rows with the largest sum of both errors."""
    for o in sorted(outcomes, key=lambda o: -sum(map(abs, o.errors)))[:count]:
        tpot, ttft = o.errors
        yield (
            o.row.model, o.row.server, o.row.words, f"{o.row.tpot_s * 1e3:.1f}", f"{tpot:+.0%}",
            f"{o.row.ttft_s * 1e3:,.0f}", f"{ttft:+.0%}",
        )  # fmt: skip


def tables(
    chip: Chip, rows: Sequence[Served]
) -> dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Predict all rows and return the tables by title."""
    possible = [row for row in rows if is_possible(row, chip)]
    stated = [row for row in possible if row.known]
    plain = _played(chip, stated, 0)
    waits = [row for row in stated if in_flight(row) > row.concurrency]
    return {
        "Times per output token and to the first": (COLUMNS, list(summary(plain))),
        "The same with no more requests in flight than the row states": (
            COLUMNS, list(summary(_played(chip, waits, -1))),
        ),
        "Rows whose source does not say how many requests were in flight, with its batch": (
            COLUMNS, list(summary(_played(chip, [r for r in possible if not r.known], 0))),
        ),
        "The worst 20 rows": (WORST, list(worst(plain, 20))),
    }  # fmt: skip


def _played(chip: Chip, rows: Sequence[Served], more: int) -> list[Outcome]:
    return [
        Outcome(row=row, found=predict(chip, row, more_in_flight=more))
        for row in track(rows, description="playing", console=Console(stderr=True))
    ]


def main(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Measured serving.")],
    only: Annotated[str, typer.Option(help="Only models and servers with this in them.")] = "",
    write: Annotated[bool, typer.Option(help="Write the tables beside this script.")] = False,
) -> None:
    """Compare predictions with measurements."""
    rows = [row for row in read(path) if only in f"{row.model} {row.server} {row.precision}"]
    found = tables(chips.get("h100"), rows)
    for title, (header, cells) in found.items():
        table = Table(*header, title=title, box=None)
        for line in cells:
            table.add_row(*line)
        Console(width=170).print(table)
    if write:
        parts = ["# Serving on H100: predicted against measured", NOTES.strip()]
        for title, (header, cells) in found.items():
            parts += [f"## {title}", markdown_table(header, cells)]
        parts += ["## Why the worst are off", EXPLAINED, f"`{COMMAND}`"]
        write_atomically(RESULT, ("\n\n".join(parts) + "\n").encode())
        Console(stderr=True).print(f"wrote {RESULT}")


if __name__ == "__main__":
    typer.run(main)

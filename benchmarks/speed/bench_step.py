"""How long it takes to time a decode step of a 70B model, and a large product.

Run it as `python -m benchmarks.speed.bench_step`. Every figure comes from processes of their own,
whose imports are not counted, with the caches that an earlier process has filled.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from benchmarks.harness import Report, Section, Spread, publish, spread
from rich.console import Console
from rich.progress import track

from asterope import api, chips
from asterope.api.product import time_product
from asterope.quant import scheme

COMMAND = "python -m benchmarks.speed.bench_step"
NOTES = """\
- A step is one token for each of 64 sequences of 4,096 tokens, llama-3.1-70b in mxfp4 on Maia 200,
  by tile: 722 launches. The first in a process loads Numba, digests Triton's library (440 MB) and
  reads compiled kernels from the caches; again, every launch is remembered; with another batch,
  none is.
- A product of 8192 x 8192 x 8192 comes after one of 256 x 8192 x 8192 in the same process, so that
  its kernels are compiled.
- Milliseconds, median (smallest-largest); CPU time leaves out what the machine does besides.
"""
_MODEL, _CONTEXT = "llama-3.1-70b", 4096
_PRODUCTS = {"bf16": "none", "mxfp4": "mxfp4", "mxfp4 x mxfp4": "mxfp4/same"}
_Times = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How long one simulation takes."""

    what: str
    wall_ms: Spread
    cpu_ms: Spread


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def serve() -> None:
    """Simulate everything once in this process; print what each took."""
    model = api.from_config(_MODEL).quantize("mxfp4")
    chip, times = chips.maia200(), _Times()

    def step(batch: int) -> None:
        model.simulate(chip, batch=batch, context=_CONTEXT)

    times["decode step, first in a process"] = _timed(lambda: step(64))
    times["decode step, again"] = _timed(lambda: step(64))
    times["decode step, another batch"] = _timed(lambda: step(63))
    for name, fmt in _PRODUCTS.items():
        time_product(chip, 256, 8192, 8192, scheme(fmt))
        product = _timed(lambda fmt=fmt: time_product(chip, 8192, 8192, 8192, scheme(fmt)))
        times[f"product 8192^3, {name}"] = product
    print(json.dumps(times))


def _in_a_process() -> _Times:
    command = [sys.executable, "-m", "benchmarks.speed.bench_step", "--serve"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {what: (wall, cpu) for what, (wall, cpu) in json.loads(done.stdout).items()}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each figure.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/step_*.md.")] = False,
    served: Annotated[bool, typer.Option("--serve", hidden=True)] = False,
) -> None:
    """Time the simulation of a step and of products."""
    if served:
        serve()
        return
    _in_a_process()
    watched = track(range(rounds), "simulating", console=Console(stderr=True))
    runs = [_in_a_process() for _ in watched]
    results = [
        Result(
            what=what, wall_ms=spread(run[what][0] for run in runs),
            cpu_ms=spread(run[what][1] for run in runs),
        )
        for what in runs[0]
    ]  # fmt: skip
    rows = [[r.what, str(r.wall_ms), str(r.cpu_ms)] for r in results]
    report = Report(
        theme="step",
        title="Simulating a decode step and a product",
        notes=NOTES,
        sections=[Section(title=f"{rounds} processes", header=("", "ms", "CPU ms"), rows=rows)],
        data=[dataclasses.asdict(r) for r in results],
        packages=["numba", "llvmlite", "triton", "torch"],
        command=f"{COMMAND} --rounds {rounds} --write",
    )
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

"""Macro-instructions a second of the event engine.

Run it as `python -m benchmarks.speed.bench_engine`. Each round simulates whole launches of tutorial
kernels on one core, by tensors that have shapes and no memory. Beside each stand two floors: the
launch's instruction streams emitted but not played, and the streams' words read from one array and
written to another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
import typer
from benchmarks import tutorial_kernels
from benchmarks.harness import Report, Section, Spread, publish, rate, time_rounds
from rich.console import Console
from rich.progress import track

from asterope import chips
from asterope.runtime import Array, Launch, listen, simulate, stop_listening
from asterope.sim import simulate_launch

COMMAND = "python -m benchmarks.speed.bench_engine"
NOTES = """\
- A macro-instruction loads or stores a tile, multiplies two, or runs one vector operation.
- One core, one launch, millions a second; median (smallest-largest).
- The simulation of a launch emits its streams twice, first to count (the roofline), then to play.
- Emission is the same native code that runs the loops of a kernel on the host.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One launch, in millions of macro-instructions a second."""

    launch: str
    instructions: int
    simulated_us: float
    ours: Spread
    emission: Spread
    copy: Spread


class _Last:
    """Remember the last launch."""

    wants_values = False
    launch: Launch

    def on_launch(self, launch: Launch) -> None:
        """Take note of a launch."""
        self.launch = launch


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def launches() -> dict[str, Callable[[], object]]:
    """Return what is launched."""
    kernels, bf16 = tutorial_kernels, torch.bfloat16
    a, b, c = (meta(2048, 2048, dtype=bf16) for _ in range(3))
    x, y = meta(8192, 1024), meta(8192, 1024)
    v = meta(1 << 23)
    return {
        "matmul 2048^3 bf16, block 128": lambda: kernels.matmul(a, b, c, 128),
        "matmul 2048^3 bf16, block 64": lambda: kernels.matmul(a, b, c, 64),
        "softmax 8192 x 1024 fp32": lambda: kernels.softmax(x, y, 1024),
        "add 2^23 fp32, block 1024": lambda: kernels.add(v, v, v, 1024),
    }


def captured(run: Callable[[], object]) -> Launch:
    """Return the launch that a call makes."""
    listener = _Last()
    listen(listener)
    try:
        run()
    finally:
        stop_listening(listener)
    return listener.launch


def emit(launch: Launch, args: list[int | float]) -> np.ndarray:
    """Emit the streams of all programs."""
    words, _ = launch.kernel.time_program.code.launch(launch.grid, args).emit(0, 1, 1 << 22)
    return words


def measure(name: str, run: Callable[[], object], rounds: int) -> Result:
    """Time one launch and its floors."""
    chip = chips.maia200()
    with simulate(chip, values=False) as timeline:
        run()
    known = timeline.launches[0].result
    launch = captured(run)
    args = [a.address if isinstance(a, Array) else a for a in launch.args]
    program = launch.kernel.time_program
    words = emit(launch, args).copy()
    runs = {
        "ours": partial(simulate_launch, program, launch.grid, args, chip, has_memory=False),
        "emission": partial(emit, launch, args),
        "copy": partial(np.copyto, np.empty_like(words), words),
    }
    times = time_rounds(runs, rounds=rounds)
    millions = known.instructions / 1e6
    return Result(
        launch=name,
        instructions=known.instructions,
        simulated_us=1e6 * known.time_s,
        **{what: rate(millions, seconds) for what, seconds in times.items()},
    )


def cells(result: Result) -> list[str]:
    """Return a row of the table."""
    spreads = (result.ours, result.emission, result.copy)
    facts = (f"{result.instructions:,}", f"{result.simulated_us:.1f}")
    return [result.launch, *facts, *map(str, spreads)]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/engine_*.md.")] = False,
) -> None:
    """Time the event engine."""
    watched = track(launches().items(), "simulating", console=Console(stderr=True))
    results = [measure(name, run, rounds) for name, run in watched]
    header = ("launch", "instructions", "time on Maia 200, us", "M/s", "emitted M/s", "copied M/s")
    rows = [cells(result) for result in results]
    report = Report(
        theme="engine",
        title="The event engine: macro-instructions a second",
        notes=NOTES,
        sections=[Section(title=f"{rounds} rounds", header=header, rows=rows)],
        data=[dataclasses.asdict(r) for r in results],
        packages=["numba", "llvmlite", "triton", "torch"],
        command=f"{COMMAND} --rounds {rounds} --write",
    )
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

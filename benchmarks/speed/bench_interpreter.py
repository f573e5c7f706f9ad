"""Compiled kernels against Triton's own interpreter.

Run it as `python -m benchmarks.speed.bench_interpreter`. TRITON_INTERPRET has to be set before
Triton is imported, so the interpreter runs in a process of its own and is asked for one launch a
round; the two take turns. Both results are compared before anything is timed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import typer
from benchmarks import tutorial_kernels
from benchmarks.harness import Report, Section, Spread, publish, speedup, spread, time_rounds
from benchmarks.tutorial_kernels import HEAD_SIZE, Problem, make
from rich.console import Console
from rich.progress import track

from asterope.native import num_cores

COMMAND = "python -m benchmarks.speed.bench_interpreter"
NOTES = """\
Both run the same unmodified `@triton.jit` function on the same tensors. The ratio is of times in
the same round; median (smallest-largest). The first launch, which compiles, is not timed. There is
no bf16 row because the interpreter multiplies bf16 operands as integers (Triton 3.7.1).
"""
BLOCKS = (16, 32, 64, 128)


def problems(blocks: Sequence[int]) -> list[Problem]:
    """Return every kernel with every block size.

    The sizes give the interpreter 4 to 64 programs, at most a second or so a launch.
    """
    made = []
    for block in blocks:
        made += [
            Problem("add", "float32", block, (64 * block - 5,)),
            Problem("softmax", "float32", block, (64, block - 3)),
            Problem("matmul", "float32", block, (4 * block, 4 * block)),
            Problem("matmul", "float16", block, (4 * block, 4 * block)),
            Problem("dropout", "float32", block, (32 * block - 5,)),
            Problem("layer_norm", "float32", block, (8, 500)),
            Problem("attention", "float32", block, (2, 4 * block - 3, HEAD_SIZE)),
        ]
    return made


# Random sums of up to 512 products, in an order of their own on each side.
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One kernel."""

    kernel: str
    ours_ms: Spread
    interpreter_ms: Spread
    times_faster: Spread


def serve() -> None:
    """Run a launch for each problem on standard input; answer with its seconds and a checksum."""
    for line in sys.stdin:
        kernel, dtype, block, shape = json.loads(line)
        problem = Problem(kernel, dtype, block, tuple(shape))
        tensors = make(problem)
        start = time.perf_counter()
        tutorial_kernels.run(problem, tensors)
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, tensors[-1].double().abs().sum().item()]), flush=True)


@contextmanager
def interpreter() -> Iterator[subprocess.Popen[str]]:
    """Start the process that interprets; end it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.speed.bench_interpreter", "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)


def ask(process: subprocess.Popen[str], problem: Problem) -> tuple[float, float]:
    """Return the seconds of one interpreted launch, and the sum of its result's magnitudes."""
    assert process.stdin
    assert process.stdout
    print(json.dumps(dataclasses.astuple(problem)), file=process.stdin, flush=True)
    seconds, checksum = json.loads(process.stdout.readline())
    return seconds, checksum


def measure(process: subprocess.Popen[str], problem: Problem, rounds: int) -> Result:
    """Time one problem on both, taking turns."""
    tensors = make(problem)
    launch = partial(tutorial_kernels.run, problem, tensors)
    launch()
    _, expected = ask(process, problem)
    found = tensors[-1].double().abs().sum().item()
    if abs(found - expected) > TOLERANCE * expected:
        raise AssertionError(
            f"{problem}: the interpreter's result sums to {expected}, ours {found}"
        )
    ours, theirs = [], []
    for _ in range(rounds):
        ours += time_rounds({"ours": launch}, rounds=1)["ours"]
        theirs.append(ask(process, problem)[0])
    return Result(
        kernel=str(problem),
        ours_ms=spread(1e3 * t for t in ours),
        interpreter_ms=spread(1e3 * t for t in theirs),
        times_faster=speedup(ours, theirs),
    )


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 3,
    block: Annotated[list[int] | None, typer.Option(help="Only these block sizes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/interpreter_*.md.")] = False,
    is_server: Annotated[bool, typer.Option("--serve", hidden=True)] = False,
) -> None:
    """Time tutorial kernels compiled by Asterope against TRITON_INTERPRET=1."""
    if is_server:
        serve()
        return
    torch.set_num_threads(num_cores())
    with interpreter() as process:
        watched = track(problems(block or BLOCKS), "interpreting", console=Console(stderr=True))
        results = [measure(process, problem, rounds) for problem in watched]
    rows = [[r.kernel, *map(str, (r.ours_ms, r.interpreter_ms, r.times_faster))] for r in results]
    header = ("kernel", "ours, ms", "interpreter, ms", "times faster")
    mean = statistics.geometric_mean(r.times_faster.median for r in results)
    report = Report(
        theme="interpreter",
        title="Compiled kernels against Triton's interpreter",
        notes=NOTES,
        sections=[
            Section(title=f"{rounds} rounds; geometric mean {mean:,.0f}", header=header, rows=rows)
        ],
        data=[dataclasses.asdict(r) for r in results],
        packages=["triton", "torch", "llvmlite"],
        command=f"{COMMAND} --rounds {rounds} --write",
    )
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

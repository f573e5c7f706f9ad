"""How long the first launch of a kernel takes: with empty caches, and with what they kept.

Run it as `python -m benchmarks.speed.bench_compile`. Every figure comes from a process of its own.
What a process does once, whatever it launches, is timed by itself: importing, and at the first
launch of any kernel Triton's digest of its own library (440 MB), which is part of its cache's keys.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
import triton
import triton.language as tl
import typer
from benchmarks import tutorial_kernels
from benchmarks.harness import Report, Section, Spread, publish, spread
from rich.console import Console
from rich.progress import track

from asterope.kernels import attention

COMMAND = "python -m benchmarks.speed.bench_compile"
NOTES = """\
From the call of a kernel that the process has not launched before until its result is there, less
the time of a second, equal launch. `cold`: both caches are empty; Triton's front end, conversion,
LLVM. `warm`: another process has launched the kernel before. The tensors are small. Median
(smallest-largest); in CPU time, what the machine does besides does not count.
"""


@triton.jit
def nothing_kernel(y_ptr):
    tl.store(y_ptr, 1.0)


def _tutorial(kernel: str, dtype: str, block: int) -> Callable[[], object]:
    def launch() -> object:
        if kernel == "add":
            x, y, out = torch.rand(3, 1000)
            return tutorial_kernels.add(x, y, out, block)
        if kernel == "softmax":
            x, out = torch.rand(2, 4, 700)
            return tutorial_kernels.softmax(x, out, block)
        a, b, out = torch.rand(3, 128, 128).to(getattr(torch, dtype))
        return tutorial_kernels.matmul(a, b, out, block)

    return launch


def _flash_attention() -> object:
    q, cache = torch.rand(16, 4, 64), torch.rand(1, 4, 64, 64)
    return attention(q, cache, cache, past=0, scale=0.125)


LAUNCHES: dict[str, Callable[[], object]] = {
    "add": _tutorial("add", "float32", 1024),
    "softmax": _tutorial("softmax", "float32", 1024),
    "matmul float16": _tutorial("matmul", "float16", 64),
    "matmul float32": _tutorial("matmul", "float32", 64),
    "flash attention": _flash_attention,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The first launch of one kernel, in milliseconds."""

    kernel: str
    cold_ms: Spread
    cold_cpu_ms: Spread
    warm_ms: Spread
    warm_cpu_ms: Spread
    process_ms: Spread


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the milliseconds of a call: of wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def serve(kernel: str) -> None:
    """Launch a kernel for the first time in this process; print what that took."""
    process_ms, _ = _timed(lambda: nothing_kernel[(1,)](torch.zeros(1)))
    torch.rand(1000).sum()
    first, second = _timed(LAUNCHES[kernel]), _timed(LAUNCHES[kernel])
    wall, cpu = (max(a - b, 0.0) for a, b in zip(first, second, strict=True))
    print(json.dumps([wall, cpu, process_ms]))


def _in_a_process(kernel: str, folder: str) -> tuple[float, float, float]:
    env = {**os.environ, "TRITON_CACHE_DIR": folder, "ASTEROPE_CACHE_DIR": folder}
    command = [sys.executable, "-m", "benchmarks.speed.bench_compile", "--serve", kernel]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    wall, cpu, process = json.loads(done.stdout)
    return wall, cpu, process


def measure(kernel: str, rounds: int) -> Result:
    """Launch a kernel in fresh processes, first with empty caches, then with what that left."""
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(_in_a_process(kernel, folder))
            warm.append(_in_a_process(kernel, folder))

    def column(runs: Iterable[tuple[float, float, float]], index: int) -> Spread:
        return spread(run[index] for run in runs)

    return Result(
        kernel=kernel, cold_ms=column(cold, 0), cold_cpu_ms=column(cold, 1),
        warm_ms=column(warm, 0), warm_cpu_ms=column(warm, 1), process_ms=column(warm, 2),
    )  # fmt: skip


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each figure.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/compile_*.md.")] = False,
    kernel: Annotated[str, typer.Option("--serve", hidden=True)] = "",
) -> None:
    """Time the first launch of kernels, cold and from the caches."""
    if kernel:
        serve(kernel)
        return
    watched = track(LAUNCHES, "compiling", console=Console(stderr=True))
    results = [measure(name, rounds) for name in watched]
    rows = [
        [
            r.kernel,
            *map(str, (r.cold_ms, r.cold_cpu_ms, r.warm_ms, r.warm_cpu_ms, r.process_ms)),
        ]
        for r in results
    ]
    header = ("kernel", "cold, ms", "cold, CPU ms", "warm, ms", "warm, CPU ms", "process, ms")
    report = Report(
        theme="compile",
        title="The first launch of a kernel",
        notes=NOTES,
        sections=[Section(title=f"{rounds} processes", header=header, rows=rows)],
        data=[dataclasses.asdict(r) for r in results],
        packages=["triton", "torch", "llvmlite"],
        command=f"{COMMAND} --rounds {rounds} --write",
    )
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

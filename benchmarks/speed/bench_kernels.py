"""Compiled kernels against torch on the same threads, and against the machine.

Run it as `python -m benchmarks.speed.bench_kernels`. Tutorial kernels and linear layers take turns
with the torch operation that does the same. Beside each stands the physical floor: its arithmetic
at the rate of a large torch product, or a copy of as many bytes, whichever takes longer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import typer
from benchmarks import tutorial_kernels
from benchmarks.harness import Report, Section, Spread, publish, speedup, spread, time_rounds
from benchmarks.tutorial_kernels import DROP_RATE, Problem, make
from rich.console import Console
from rich.progress import track

from asterope.kernels import linear, quantize_rows, scaled_linear
from asterope.native import num_cores

COMMAND = "python -m benchmarks.speed.bench_kernels"
NOTES = """\
- Ratios are of times in the same round, how many times faster Asterope is; median
  (smallest-largest).
- `attention` goes over all keys; `flash` is causal and as tutorial 06 writes it, with descriptors.
- torch's fp8 path on CPUs is `torch._scaled_mm`; it has none for FP4, so mxfp4 stands beside fp8.
- The floor is the arithmetic at the rate that torch reaches in a 1536^3 fp32 or bf16 product
  (narrower numbers are multiplied in fp32 or bf16 here, so they take the faster of the two), or a
  `torch` copy that reads and writes as many bytes in all, whichever takes longer.
"""
LARGE = 1536
MATMUL_SIZE = 512


def _layer_norm(x, weight, bias, _out):
    return torch.nn.functional.layer_norm(x, x.shape[1:], weight, bias, 1e-5)


def _attend(q, k, v, _out, *, is_causal):
    """Attend to 8 heads in each of 2 sequences."""
    q, k, v = (x.view(2, -1, *x.shape[1:]) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def _flop(problem: Problem) -> float:
    """Return the multiplications and additions that a problem takes."""
    if problem.kernel == "matmul":
        return 2.0 * problem.shape[0] ** 2 * problem.shape[1]
    if problem.kernel not in ("attention", "flash"):
        return 0.0
    heads, context, size = problem.shape
    products = 4.0 * heads * context**2 * size
    return products / 2 if problem.kernel == "flash" else products


PROBLEMS = (
    (Problem("add", "float32", 1024, (1 << 20,)), lambda x, y, out: torch.add(x, y, out=out)),
    (Problem("add", "float32", 1024, (1 << 24,)), lambda x, y, out: torch.add(x, y, out=out)),
    (Problem("softmax", "float32", 1024, (1823, 781)), lambda x, out: torch.softmax(x, 1, out=out)),
    (Problem("layer_norm", "float32", 2048, (1151, 2048)), _layer_norm),
    (
        Problem("dropout", "float32", 1024, (1 << 20,)),
        lambda x, _: torch.nn.functional.dropout(x, DROP_RATE),
    ),
    *(
        (Problem("matmul", dtype, block, (MATMUL_SIZE, MATMUL_SIZE)), lambda a, b, _: a @ b)
        for dtype, block in (("float32", 128), ("float32", 32), ("bfloat16", 128), ("float16", 128))
    ),
    (Problem("matmul", "bfloat16", 128, (2048, 2048)), lambda a, b, _: a @ b),
    *(
        (Problem(kernel, dtype, 128, (16, 1024, 64)), partial(_attend, is_causal=kernel == "flash"))
        for kernel in ("attention", "flash")
        for dtype in ("bfloat16", "float16", "float32")
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A kernel, the torch operation that does the same, and what both must do at least."""

    name: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    bytes: float
    flop: float = 0.0
    arithmetic: str = "fp32"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One case."""

    kernel: str
    peer: str
    ours_ms: Spread
    peer_ms: Spread
    times_faster: Spread
    floor_ms: float
    share_of_floor: float


def tutorial_cases() -> list[Case]:
    """Return the tutorial kernels; what they read and write is their tensors, once."""
    cases = []
    for problem, operation in PROBLEMS:
        tensors = make(problem)
        cases.append(
            Case(
                name=str(problem),
                peer="torch",
                ours=partial(tutorial_kernels.run, problem, tensors),
                theirs=partial(operation, *tensors),
                flop=_flop(problem),
                bytes=float(sum(t.nbytes for t in tensors)),
                arithmetic="fp32" if problem.dtype == "float32" else "best",
            )
        )
    return cases


def low_precision_cases() -> list[Case]:
    """Return fp8 and mxfp4 linear layers beside torch's fp8 product."""
    generator = torch.Generator().manual_seed(0)
    size = MATMUL_SIZE
    x, w = (torch.randn(size, size, generator=generator) for _ in range(2))
    x8, w8, one = x.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn), torch.ones(())
    scaled_x, scaled_w = quantize_rows(x, "mxfp4"), quantize_rows(w, "mxfp4")
    theirs = partial(torch._scaled_mm, x8, w8.T, one, one, out_dtype=torch.float32)
    shared = {"theirs": theirs, "flop": 2.0 * size**3, "arithmetic": "best"}
    return [
        Case(
            name=f"linear e4m3 x e4m3, {size}^3",
            peer="torch._scaled_mm",
            ours=partial(linear, x8, w8, out_dtype=torch.float32),
            bytes=6.0 * size**2,
            **shared,
        ),
        Case(
            name=f"linear mxfp4 x mxfp4, {size}^3",
            peer="torch._scaled_mm, fp8",
            ours=partial(scaled_linear, scaled_x, scaled_w, out_dtype=torch.float32),
            bytes=5.0 * size**2,
            **shared,
        ),
    ]


def arithmetic_rates() -> dict[str, float]:
    """Measure this CPU: flop/s of large torch products."""
    wide = torch.randn(LARGE, LARGE)
    short = wide.to(torch.bfloat16)
    times = time_rounds({"fp32": lambda: wide @ wide, "bf16": lambda: short @ short}, rounds=5)
    rates = {name: 2.0 * LARGE**3 / min(seconds) for name, seconds in times.items()}
    return {**rates, "best": max(rates.values())}


def measure(case: Case, rates: dict[str, float], rounds: int) -> Result:
    """Time a case beside its peer and beside a copy of as many bytes."""
    source = torch.zeros(int(case.bytes) // 2, dtype=torch.uint8)
    copy = partial(torch.empty_like(source).copy_, source)
    runs = {"ours": case.ours, "peer": case.theirs, "copy": copy}
    times = time_rounds(runs, rounds=rounds)
    ours_ms = spread(1e3 * t for t in times["ours"])
    floor_ms = 1e3 * max(case.flop / rates[case.arithmetic], spread(times["copy"]).median)
    return Result(
        kernel=case.name,
        peer=case.peer,
        ours_ms=ours_ms,
        peer_ms=spread(1e3 * t for t in times["peer"]),
        times_faster=speedup(times["ours"], times["peer"]),
        floor_ms=floor_ms,
        share_of_floor=floor_ms / ours_ms.median,
    )


def cells(result: Result) -> list[str]:
    """Return a row of the table."""
    spreads = (result.ours_ms, result.peer_ms, result.times_faster)
    ends = [f"{result.floor_ms:.3g}", f"{result.share_of_floor:.0%}"]
    return [result.kernel, result.peer, *map(str, spreads), *ends]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 9,
    only: Annotated[list[str] | None, typer.Option(help="Only kernels of this name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/kernels_*.md.")] = False,
) -> None:
    """Time kernels against torch and the physical floor."""
    torch.set_num_threads(num_cores())
    cases = tutorial_cases() + low_precision_cases()
    cases = [case for case in cases if not only or case.name.split()[0] in only]
    rates = arithmetic_rates() if any(case.flop for case in cases) else {"fp32": math.inf}
    watched = track(cases, "timing", console=Console(stderr=True))
    results = [measure(case, rates, rounds) for case in watched]
    header = ("kernel", "peer", "ours, ms", "peer, ms", "times faster", "floor, ms", "floor / ours")
    machine = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
    title = f"{rounds} rounds" + (
        "" if math.inf in rates.values() else f"; large products: {machine}"
    )
    report = Report(
        theme="kernels",
        title="Compiled kernels against torch and the machine",
        notes=NOTES,
        sections=[Section(title=title, header=header, rows=[cells(r) for r in results])],
        data=[dataclasses.asdict(r) for r in results],
        packages=["triton", "torch", "llvmlite"],
        command=" ".join([COMMAND, *(f"--only {name}" for name in only or ()), "--write"]),
    )
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

"""How fast few rows pass quantized weights, beside torch in bf16: linear layers, decode steps.

Run it as `python -m benchmarks.speed.bench_decode`. Weights come from memory, not from caches.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from benchmarks.harness import Report, Section, Spread, publish, rate, speedup, spread
from benchmarks.memory_floor import Stream
from benchmarks.random_llama import (
    TINY_LLAMA,
    our_step,
    random_layers,
    random_model,
    their_steps,
)
from rich.console import Console
from rich.progress import track

from asterope.native import num_cores
from asterope.quant import scheme

COMMAND = "python -m benchmarks.speed.bench_decode"
NOTES = """\
- A linear layer: x of so many rows times a weight, by layers as users call them (rounding x and
  scales included), beside `torch.nn.functional.linear` in bf16. Each call takes another copy of the
  weight, of which there are more than caches hold. The floor is a loop that reads as many bytes.
- A decode step: one token after 128 of a Llama with random weights in the shape of TinyLlama (22
  layers, hidden size 2048, 1.1 billion weights), with embedding, head and the choice of the token.
  Theirs is `LlamaForCausalLM` of transformers in bf16 under `inference_mode`, with its dynamic or
  static cache, whichever was faster. Our head is in bf16.
- Formats are of weights, or weights/activations. Ratios are of times in one round, side by side;
  medians (smallest-largest). CPU time counts all threads, and waiting in a loop for others.
"""
_SHAPES = ((11264, 2048), (2048, 5632))
_ROWS = (1, 4, 16)
_FORMATS = ("none", "fp8", "fp8/fp8", "mxfp8/same", "mxfp4", "mxfp4/fp8", "nvfp4", "nvfp4/fp8")
_MIN_BYTES, _CONTEXT, _PAUSE_S = 1 << 27, 128, 0.05
_HEADER = (
    "format", "threads", "ms", "torch's ms", "times torch's speed", "by CPU time", "weights, GB/s",
)  # fmt: skip

Times = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One thing that was timed beside torch; where there is a floor, ours takes so many of it."""

    what: str
    threads: int
    wall_ms: Spread
    torch_ms: Spread
    speedup: Spread
    cpu_speedup: Spread
    gb_per_s: Spread
    floors: Spread | None = None

    @property
    def cells(self) -> list[str]:
        """The row of a table."""
        ratios = [self.speedup, self.cpu_speedup, self.gb_per_s, self.floors]
        times = str(self.wall_ms), str(self.torch_ms)
        return [self.what, str(self.threads), *times, *(str(x) for x in ratios if x is not None)]


def _timed(runs: Mapping[str, Callable[[], int]], rounds: int) -> Times:
    """Return wall and CPU seconds of each function, per call that it says it made, in each round.

    A round that does not count comes first.
    """
    times: Times = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name in list(runs)[:: -1 if index % 2 else 1]:
            time.sleep(_PAUSE_S)  # threads of the one before wait in a loop for a while
            wall, cpu = time.perf_counter(), time.process_time()
            calls = runs[name]()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if index:
                times[name].append((wall / calls, cpu / calls))
    return times


def _result(what: str, threads: int, times: Times, num_bytes: int) -> Result:
    (wall, cpu), (their_wall, their_cpu) = (
        zip(*times[name], strict=True) for name in ("ours", "torch")
    )
    floor = [w for w, _ in times.get("floor", ())]
    return Result(
        what=what, threads=threads, wall_ms=spread(1e3 * t for t in wall),
        torch_ms=spread(1e3 * t for t in their_wall), speedup=speedup(wall, their_wall),
        cpu_speedup=speedup(cpu, their_cpu), gb_per_s=rate(num_bytes / 1e9, wall),
        floors=speedup(floor, wall) if floor else None,
    )  # fmt: skip


def _use(threads: int) -> None:
    os.environ["ASTEROPE_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def time_layers(shape: tuple[int, int], rows: int, rounds: int, threads: int) -> list[Result]:
    """Time a layer in each format; a round goes once over all copies of its weight."""
    _use(threads)
    plain = random_layers(shape, scheme("none"), _MIN_BYTES)
    x = torch.randn(rows, shape[1], dtype=torch.bfloat16)

    def theirs() -> int:
        for layer in plain:
            torch.nn.functional.linear(x, layer.codes)
        return len(plain)

    def measured(name: str) -> Result:
        layers = random_layers(shape, scheme(name), _MIN_BYTES)
        num_bytes = layers[0].num_bytes
        read = Stream(source=np.ones(num_bytes * len(layers), np.uint8), num_bytes=0)

        def ours() -> int:
            for layer in layers:
                layer.apply(x)
            return len(layers)

        def floor() -> int:
            read()
            return len(layers)

        times = _timed({"torch": theirs, "ours": ours, "floor": floor}, rounds)
        return _result(name, threads, times, num_bytes)

    return [measured(name) for name in _FORMATS]


def _once(step: Callable[[], object]) -> Callable[[], int]:
    def run() -> int:
        step()
        return 1

    return run


def time_steps(rounds: int, threads: Sequence[int], progress: Console) -> list[Result]:
    """Time a decode step in each format, with each number of threads."""
    steps = {name: _once(step) for name, step in their_steps(TINY_LLAMA, _CONTEXT).items()}
    _use(threads[-1])
    first = _timed(steps, 3)
    theirs = steps[min(first, key=lambda name: spread(w for w, _ in first[name]).median)]
    results = []
    for name in track(_FORMATS, "decode steps", console=progress):
        model = random_model(TINY_LLAMA, scheme(name))
        ours = _once(our_step(model, _CONTEXT))
        for count in threads:
            _use(count)
            times = _timed({"torch": theirs, "ours": ours}, rounds)
            results.append(_result(name, count, times, model.weight_bytes - _embedding_bytes()))
    return results


def _embedding_bytes() -> int:
    """Return the bytes of the embedding, of which a step reads one row."""
    return 2 * TINY_LLAMA["vocab_size"] * TINY_LLAMA["hidden_size"]


def _section(title: str, results: Iterable[Result], *, has_floor: bool = False) -> Section:
    header = (*_HEADER, "times the floor") if has_floor else _HEADER
    return Section(title=title, header=header, rows=[r.cells for r in results])


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds for each figure.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/decode_*.md.")] = False,
) -> None:
    """Time linear layers of few rows, and decode steps of a model."""
    watched, cores = Console(stderr=True), num_cores()
    parts: dict[str, list[Result]] = {}
    cases = [(shape, rows) for shape in _SHAPES for rows in _ROWS]
    for shape, rows in track(cases, "linear layers", console=watched):
        title = f"A linear layer {shape[0]} x {shape[1]}, rows of x: {rows}"
        parts[title] = time_layers(shape, rows, rounds, cores)
    sections = [_section(title, results, has_floor=True) for title, results in parts.items()]
    steps = time_steps(rounds, sorted({1, cores}), watched)
    sections.append(_section("A decode step of 1.1 billion weights", steps))
    report = Report(
        theme="decode",
        title="Few rows: linear layers and decode steps",
        notes=NOTES,
        sections=sections,
        data={
            title: [dataclasses.asdict(r) for r in results]
            for title, results in {**parts, "decode step": steps}.items()
        },
        packages=["llvmlite", "triton", "torch", "transformers"],
        command=f"{COMMAND} --rounds {rounds} --write",
    )
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

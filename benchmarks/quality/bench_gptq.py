"""Our GPTQ beside those of llm-compressor and torchao: perplexity, time and memory.

Run it as `python -m benchmarks.quality.bench_gptq`. Every tool quantizes the same checkpoint's
linear layers, weights alone, to the same format on the same windows of text, in a process of its
own. What each gives is put into the same float32 model as plain numbers, and scored by us.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmarks.harness import Report, Section, publish, spread
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file

from asterope import api, llm

COMMAND = "python -m benchmarks.quality.bench_gptq"
NOTES = """\
- Weights alone, embedding and head as they are; each tool's defaults: damping is 0.01 in all.
- Perplexity, KL and agreement: codes times scales, in float32, in one model that we score; medians
  over choices of calibration windows, with the smallest and largest.
- Seconds, CPU seconds and memory: of quantizing alone. The model is loaded, and one layer of it
  was quantized before, so that no library is loaded and nothing compiled. Memory is the high-water
  mark of the process less what it held when it began. The tools take turns; what else the machine
  does meanwhile falls on seconds more than on CPU seconds.
- torchao: its prototype, block by block as in its example. It asserts that the device is a GPU;
  `python -O` leaves that out. It has no mxfp4. It keeps one global scale a projection, the others
  one for those that engines fuse.
"""
HEADER = (
    "format", "tool", "perplexity, of the original's", "KL", "top-1 agreement", "seconds",
    "CPU seconds", "MiB",
)  # fmt: skip
_TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One tool's way to quantize to one format; `module` is what has to be installed."""

    format: str
    tool: str
    module: str

    @property
    def is_installed(self) -> bool:
        """Whether it can run."""
        return importlib.util.find_spec(self.module) is not None


CASES = (
    Case(format="nvfp4", tool="asterope", module="asterope"),
    Case(format="nvfp4", tool="llm-compressor", module="llmcompressor"),
    Case(format="nvfp4", tool="torchao", module="torchao"),
    Case(format="mxfp4", tool="asterope", module="asterope"),
    Case(format="mxfp4", tool="llm-compressor", module="llmcompressor"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one case gave on one choice of windows."""

    case: Case
    seed: int
    perplexity_ratio: float
    kl: float
    top1_agreement: float
    seconds: float
    cpu_seconds: float
    num_bytes: int


def measure(
    checkpoint: Path, cases: Sequence[Case], seeds: Sequence[int], windows: int, tokens: int
) -> tuple[list[Result], dict[str, str]]:
    """Run every case on every choice of windows; return the results and the tools' versions."""
    original = api.load(checkpoint, dtype="float32")
    reference = llm.Reference(original.model, api.text_of(original, None, max_tokens=tokens).tokens)
    results, versions = [], {}
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder, "windows.safetensors"), Path(folder, "weights.safetensors")
        turns = [(seed, case) for seed in seeds for case in cases]
        for seed, case in track(turns, "quantizing", console=Console(stderr=True)):
            found, _ = api.text_windows(original, None, num_windows=windows, length=512, seed=seed)
            save_file({"windows": found}, text)
            said = _run(case, original.source.directory, text, out)
            versions |= said.pop("versions")
            quality = reference.score_model(_with_weights(original.model, load_file(out)))
            results.append(Result(
                case=case, seed=seed, kl=quality.kl, top1_agreement=quality.top1_agreement,
                perplexity_ratio=quality.perplexity / reference.quality.perplexity, **said,
            ))  # fmt: skip
    return results, versions


def _run(case: Case, checkpoint: Path | None, windows: Path, out: Path) -> dict[str, Any]:
    """Run one case in a process of its own; return what it says of itself."""
    flags = ["-O"] if case.tool == "torchao" else []
    done = subprocess.run(
        [sys.executable, *flags, "-m", "benchmarks.quality.gptq_tools", case.tool, case.format,
         str(checkpoint), str(windows), str(out)],
        capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{case.tool} failed on {case.format}:\n{done.stderr[-4000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def _with_weights(model: llm.Model, weights: Mapping[str, torch.Tensor]) -> llm.Model:
    """Return the model with the weights of linear layers replaced, those that share one fused."""
    layers = []
    for index, layer in enumerate(model.layers):
        fused = {
            place: torch.cat([weights[f"model.layers.{index}.{name}.weight"] for name, *_ in parts])
            for place, parts in llm.projections(model.config).items()
        }
        layers.append(
            layer.with_linears(lambda place, _, fused=fused: llm.PlainLinear(fused[place]))
        )
    return dataclasses.replace(model, layers=layers)


def cells(case: Case, results: Iterable[Result]) -> list[str]:
    """Return a row of the table: one case on all choices of windows."""
    own = [result for result in results if result.case == case]
    values = [
        [r.perplexity_ratio for r in own], [r.kl for r in own], [r.top1_agreement for r in own],
    ]  # fmt: skip
    quality = [
        f"{s.median:{how}} ({s.low:{how}}-{s.high:{how}})"
        for s, how in zip(map(spread, values), (".4f", ".4f", ".1%"), strict=True)
    ]
    spent = [
        str(spread(r.seconds for r in own)), str(spread(r.cpu_seconds for r in own)),
        str(spread(r.num_bytes / 2**20 for r in own)),
    ]  # fmt: skip
    return [case.format, case.tool, *quality, *spent]


def main(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint.")] = Path(api.SHIPPED_NAME),
    seeds: Annotated[str, typer.Option(metavar="NUMBERS", help="Choices of windows.")] = "0,1,2",
    windows: Annotated[int, typer.Option(min=1, help="Calibration windows of 512 tokens.")] = 8,
    tokens: Annotated[int, typer.Option(min=2, help="Held-out tokens to score.")] = 16384,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/gptq_*.md.")] = False,
) -> None:
    """Compare the GPTQ of several tools."""
    cases = [case for case in CASES if case.is_installed]
    missing = sorted({case.module for case in CASES} - {case.module for case in cases})
    if missing:
        Console(stderr=True).print(f"not installed, left out: {', '.join(missing)}")
    chosen = [int(seed) for seed in seeds.split(",")]
    results, versions = measure(checkpoint, cases, chosen, windows, tokens)
    how = f"{checkpoint}: {windows} windows of 512 tokens, {len(chosen)} choices of them"
    left_out = [f"- {name} was not installed." for name in missing]
    report = Report(
        theme="gptq", title="GPTQ beside its peers", notes="\n".join([NOTES.strip(), *left_out]),
        sections=[Section(
            title=f"{how}; {tokens:,} held-out tokens", header=HEADER,
            rows=[cells(case, results) for case in cases],
        )],
        data=[dataclasses.asdict(result) for result in results],
        packages=["torch", *versions], command=COMMAND,
    )  # fmt: skip
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

"""What training for a format takes back of what rounding loses, beside calibration.

Run it as `python -m benchmarks.quality.bench_qat [CHECKPOINT] --keep DIR`. Every format is rounded
to nearest, calibrated, and trained from what calibration gives; all are scored on the same held-out
windows. Trained models are kept in DIR, so that a run that was broken off goes on.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import random
import time
from pathlib import Path
from typing import Annotated

import typer
from benchmarks.harness import Report, Section, publish
from benchmarks.quality.bench_ptq import HEADER, Case, Result, cells, score
from rich.console import Console
from rich.progress import track

from asterope import api, llm
from asterope.native import write_atomically

COMMAND = "python -m benchmarks.quality.bench_qat [CHECKPOINT] --keep DIR"
FORMATS = "mxfp4,nvfp4,mxfp4/fp8,nvfp4/fp8,mxfp4/same,nvfp4/same,mxfp4/same+r32,nvfp4/same+r32"
LIBRARIES = ("hypothesis", "jinja2", "networkx", "numpy", "pygments", "rich")
"""None of them has a copy of a module that is scored."""
_MAX_BYTES = 60_000  # larger files are mostly tables
NOTES = """\
- rtn: round to nearest.
- awq_gptq: calibrated on 64 windows of 512 tokens; `bench_ptq` has other algorithms.
- svdquant: the same beside a branch of low rank (`+r32`); what rounding loses is that without one.
- qad, and how many steps: from what these give, trained to say what the original says, on text that
  the shipped model has not seen, sources of {libraries}: {windows} x 512 tokens a step.
- seconds are wall time, beside whatever else the machine did.
"""


def unseen_text(keep: Path) -> Path:
    """Write sources of libraries, which the shipped model has not seen, in a drawn order."""
    files = [
        file
        for name in LIBRARIES
        for place in importlib.import_module(name).__path__
        for file in sorted(Path(place).rglob("*.py"))
        if file.stat().st_size < _MAX_BYTES
    ]
    random.Random(0).shuffle(files)
    lines = (json.dumps({"text": file.read_text(encoding="utf-8")}) for file in files)
    text = keep / "text.jsonl"
    write_atomically(text, "\n".join(lines).encode())
    return text


def untrained(formats: list[str]) -> list[Case]:
    """List what training is compared with; beside a branch that is rounding without one too."""
    cases: dict[Case, None] = {}
    for fmt in formats:
        has_branch = api.read_scheme(fmt).rank is not None
        cases[fmt.partition("+")[0], "rtn"] = None
        cases[fmt, "svdquant" if has_branch else "awq_gptq"] = None
    return list(cases)


def trained(
    original: api.LanguageModel, fmt: str, plan: llm.TrainingPlan, keep: Path
) -> tuple[llm.Model, int, float]:
    """Train for a format, or load what was trained; return the model, its steps and seconds."""
    place = keep / fmt.replace("/", "-")
    took = place.with_suffix(".json")
    if not place.exists():
        start, state = time.perf_counter(), place.with_suffix(".state")
        made = api.train(original, fmt, plan=plan, text=unseen_text(keep), kept_in=state)
        said = {"steps": plan.steps, "seconds": time.perf_counter() - start}
        write_atomically(took, json.dumps(said).encode())
        made.model.save(place)
    said = json.loads(took.read_text())
    return api.load(place).model, int(said["steps"]), float(said["seconds"])


def main(
    keep: Annotated[Path, typer.Option(metavar="DIR", help="Where trained models are kept.")],
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint.")] = Path(api.SHIPPED_NAME),
    formats: Annotated[str, typer.Option(metavar="NAMES", help="Formats.")] = FORMATS,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 600,
    windows: Annotated[int, typer.Option(min=1, help="Windows of a step.")] = 1,
    tokens: Annotated[int, typer.Option(min=2, help="Held-out tokens to score.")] = 16384,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/qat_*.md.")] = False,
) -> None:
    """Compare training with calibration and rounding on a checkpoint."""
    original = api.load(str(checkpoint))
    plan = llm.TrainingPlan(steps=steps, windows_per_step=windows)
    chosen = formats.split(",")
    models: dict[Case, llm.Model] = {}
    took: dict[Case, float] = {}
    for fmt, name in untrained(chosen):
        start = time.perf_counter()
        calibration = api.read_calibration(original, name)
        made = api.with_scheme(original, api.read_scheme(fmt), None, calibration)
        models[fmt, name], took[fmt, name] = made.model, time.perf_counter() - start
    for fmt in track(chosen, "training", console=Console(stderr=True)):
        model, done, seconds = trained(original, fmt, plan, keep)
        case = (fmt, f"qad, {done} steps")
        models[case], took[case] = model, seconds
    results = score(original, models, took, api.text_of(original, None, max_tokens=tokens))
    publish(report(results, plan, tokens, checkpoint), as_json=as_json, write=write)


def report(results: list[Result], plan: llm.TrainingPlan, tokens: int, checkpoint: Path) -> Report:
    """Return the table of some results."""
    notes = NOTES.format(windows=plan.windows_per_step, libraries=", ".join(LIBRARIES))
    title = f"{checkpoint}: {tokens:,} held-out tokens"
    theme = "qat" if str(checkpoint) == api.SHIPPED_NAME else f"qat_{checkpoint.name}"
    return Report(
        theme=theme, title="Training for a format", notes=notes,
        sections=[Section(title=title, header=HEADER, rows=[cells(r) for r in results])],
        data=[dataclasses.asdict(r) for r in results],
        packages=["torch", "transformers"], command=COMMAND,
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)

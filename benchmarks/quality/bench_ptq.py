"""What formats do to a model, and how much of it each algorithm takes back.

Run it as `python -m benchmarks.quality.bench_ptq`. Every format and algorithm quantizes the same
checkpoint on the same calibration text; all are scored on the same held-out windows. With `--keep`
a run that was killed, or one for other formats, goes on behind what the file has.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from benchmarks.harness import Report, Section, publish
from rich.console import Console
from rich.progress import track

from asterope import api, llm
from asterope.errors import ConfigError
from asterope.native import write_atomically
from asterope.quant import ALGORITHMS, Scheme, algorithm

COMMAND = "python -m benchmarks.quality.bench_ptq"
FORMATS = (
    "fp8,mxfp8,nvfp4,mxfp4,nvfp4/fp8,mxfp4/fp8,nvfp4/same,mxfp4/same,nvfp4/same+h,mxfp4/same+h"
)
COMPARED = ",".join(
    name for name, how in ALGORITHMS.items() if not how.tunes
)  # the others take minutes
Case = tuple[str, str]
"""A format and an algorithm."""
_LEAST_LOSS = 0.005
_PLAIN_BITS = 8
HEADER = (
    "weights/activations", "algorithm", "perplexity, of bf16's", "of rounding's loss taken back",
    "KL", "of rounding's KL taken back", "top-1 agreement", "seconds",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One format by one algorithm.

    `recovered` is the share of the perplexity that rounding to nearest, without rotation, loses and
    this does not; None where that is less than half a percent, within the noise of a text.
    `recovered_kl` is the same of the KL divergence, which the noise of a text moves less.
    """

    format: str
    algorithm: str
    perplexity_ratio: float
    recovered: float | None
    kl: float
    recovered_kl: float
    top1_agreement: float
    seconds: float


def measure(
    checkpoint: Path, formats: list[str], algorithms: list[str], windows: int, tokens: int,
    keep: Path | None = None,
) -> list[Result]:  # fmt: skip
    """Quantize a checkpoint in every way and score each format's at once.

    What `keep` has of other runs of the same kind is not done again, but for rounding to nearest;
    what is done is written there. Formats of eight bits, which lose next to nothing, get no
    branches.
    """
    of = [str(checkpoint), windows, tokens]
    done = {} if keep is None else kept_results(keep, of)
    original = api.load(checkpoint)
    text = api.text_of(original, None, max_tokens=tokens)
    calibrations = {
        name: api.read_calibration(original, name, num_windows=windows) for name in algorithms
    }
    for fmt in track(formats, "quantizing", console=Console(stderr=True)):
        missing = [name for name in algorithms if (fmt, name) not in done and _suits(fmt, name)]
        if not missing:
            continue
        models, took = {}, {}
        nearest = (fmt.partition("+")[0], "rtn")
        for case in dict.fromkeys((nearest, *((fmt, name) for name in missing))):
            start = time.perf_counter()
            made = api.with_scheme(original, api.read_scheme(case[0]), None, calibrations[case[1]])
            models[case], took[case] = made.model, time.perf_counter() - start
        done |= {(r.format, r.algorithm): r for r in score(original, models, took, text)}
        if keep is not None:
            rows = [dataclasses.asdict(result) for result in done.values()]
            write_atomically(
                keep, (json.dumps({"of": of, "results": rows}, indent=1) + "\n").encode()
            )
    return [done[fmt, name] for fmt in formats for name in algorithms if (fmt, name) in done]


def kept_results(keep: Path, of: list[str | int]) -> dict[Case, Result]:
    """Return what a file has, nothing if there is none.

    Raises: ConfigError if it is of another checkpoint, number of windows or of tokens, or broken.
    """
    if not keep.exists():
        return {}
    try:
        found = json.loads(keep.read_text(encoding="utf-8"))
        is_same, rows = found["of"] == of, [Result(**row) for row in found["results"]]
    except (ValueError, KeyError, TypeError):
        raise ConfigError("is not a file of results", where=str(keep), hint="delete it") from None
    if not is_same:
        raise ConfigError(
            f"has results of {found['of']}, not of {of}", where=str(keep), hint="use another file"
        )
    return {(row.format, row.algorithm): row for row in rows}


def _suits(fmt: str, name: str) -> bool:
    """Tell whether a format by an algorithm says something: a branch is fitted to a text."""
    plan, how = api.read_scheme(fmt), ALGORITHMS[name]
    if not isinstance(plan, Scheme) or plan.format is None:
        return True
    if plan.rank is not None:
        return how.needs_text
    return how.rank is None or plan.format.element.bits < _PLAIN_BITS


def score(
    original: api.LanguageModel, models: Mapping[Case, llm.Model], took: Mapping[Case, float],
    text: api.ScoredText,
) -> list[Result]:  # fmt: skip
    """Score models by format and algorithm, rounding to nearest of each format among them."""
    reference, found = llm.evaluate(
        original.model, {"|".join(case): model for case, model in models.items()}, text.tokens
    )
    results = []
    for fmt, name in models:
        quality = found[f"{fmt}|{name}"]
        nearest = found.get(f"{fmt.partition('+')[0]}|rtn") or found[f"{fmt}|rtn"]
        lost = nearest.perplexity - reference.perplexity
        is_felt = lost > _LEAST_LOSS * reference.perplexity
        results.append(Result(
            format=fmt, algorithm=name, kl=quality.kl, top1_agreement=quality.top1_agreement,
            perplexity_ratio=quality.perplexity / reference.perplexity,
            recovered=(nearest.perplexity - quality.perplexity) / lost if is_felt else None,
            recovered_kl=1 - quality.kl / nearest.kl, seconds=took[fmt, name],
        ))  # fmt: skip
    return results


def cells(result: Result) -> list[str]:
    """Return a row of the table."""
    recovered = "" if result.recovered is None else f"{result.recovered:.0%}"
    return [
        result.format, result.algorithm, f"{result.perplexity_ratio:.4f}", recovered,
        f"{result.kl:.4f}", f"{result.recovered_kl:.0%}", f"{result.top1_agreement:.1%}",
        f"{result.seconds:.1f}",
    ]  # fmt: skip


def main(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint.")] = Path(api.SHIPPED_NAME),
    formats: Annotated[str, typer.Option(metavar="NAMES", help="Formats.")] = FORMATS,
    algorithms: Annotated[
        str, typer.Option(metavar="NAMES", help="Algorithms; rtn is always among them.")
    ] = COMPARED,
    windows: Annotated[int, typer.Option(min=1, help="Calibration windows of 512 tokens.")] = 64,
    tokens: Annotated[int, typer.Option(min=2, help="Held-out tokens to score.")] = 16384,
    keep: Annotated[
        Path | None, typer.Option(help="JSON file of results to go on from, and to write.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/ptq_*.md.")] = False,
) -> None:
    """Compare quantization algorithms on a checkpoint."""
    chosen = [algorithm(name).name for name in dict.fromkeys(("rtn", *algorithms.split(",")))]
    results = measure(checkpoint, formats.split(","), chosen, windows, tokens, keep)
    how = f"{checkpoint}: {windows} windows of text to calibrate on, {tokens:,} held-out tokens"
    notes = [f"- {name}: {ALGORITHMS[name].describe}." for name in chosen]
    theme = "ptq" if str(checkpoint) == api.SHIPPED_NAME else f"ptq_{checkpoint.name}"
    report = Report(
        theme=theme, title="Post-training quantization", notes="\n".join(notes),
        sections=[Section(title=how, header=HEADER, rows=[cells(r) for r in results])],
        data=[dataclasses.asdict(r) for r in results],
        packages=["torch"], command=COMMAND,
    )  # fmt: skip
    publish(report, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)

"""What `asterope run` does: quantize, score, run, time and price one checkpoint."""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from asterope import llm
from asterope.api.estimation import estimate
from asterope.api.language_model import LanguageModel, load
from asterope.api.options import COMPARED_FORMATS, RunOptions
from asterope.api.progress import Progress, silent
from asterope.api.score import score_formats
from asterope.api.text import DEFAULT_PROMPT, ScoredText, text_of
from asterope.quant import Plan
from asterope.report import Accuracy, RunReport, Sample

__all__ = ["run_checkpoint"]

_LARGEST_COMPARED = 300_000_000
_PROMPT_TOKENS = 24
_UNTIMED_TOKENS = 2
_LIBRARIES = ("numpy", "torch", "triton", "llvmlite", "numba")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Everything that can be refused before anything slow begins."""

    options: RunOptions
    original: LanguageModel
    chosen: Plan | None
    text: ScoredText


def run_checkpoint(options: RunOptions, progress: Progress = silent) -> RunReport:
    """Quantize a checkpoint, score it, run it on this CPU, time it on chips, and price it.

    Raises: CheckpointError, FormatError, ShapeError, ChipError or ConfigError naming what is wrong
    with the checkpoint or the options.
    """
    plan = _prepare(options, progress)
    name = plan.chosen.name if plan.chosen else "original"
    scored = score_formats(
        plan.original, _schemes(plan, name), plan.text, chosen=name, progress=progress
    )
    quantized = scored.models[name]
    sample = _sample(plan, quantized, progress)
    return RunReport(
        accuracy=scored.accuracy,
        sample=sample,
        estimate=estimate(
            quantized,
            options.estimate,
            baseline=None if quantized is plan.original else plan.original,
            progress=progress,
        ),
        notes=(*plan.original.source.notes, *scored.left_out, *_notes(scored.accuracy)),
        versions=_versions(),
        command=options.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _prepare(options: RunOptions, progress: Progress) -> _Plan:
    for chip in options.estimate.chips():
        options.estimate.pricing.of(chip)
    for fmt in (options.format, *(options.formats or ())):
        options.scheme_of(fmt)
    original = load(
        options.checkpoint, dtype=options.dtype, progress=functools.partial(progress, "load")
    )
    options.estimate.context_of(original)
    chosen: Plan | None = options.scheme_of(options.format, rule=options.rule)
    if options.format is None and original.scheme is not None:
        chosen = original.scheme
    text = text_of(original, options.text, max_tokens=options.max_text_tokens, seed=options.seed)
    return _Plan(options=options, original=original, chosen=chosen, text=text)


def _schemes(plan: _Plan, chosen: str) -> dict[str, Plan | None]:
    """Return the schemes to score beside the original, the chosen one first."""
    options, original = plan.options, plan.original
    schemes: dict[str, Plan | None] = {chosen: plan.chosen}
    if original.scheme is not None:
        return schemes
    names = options.formats
    if names is None:
        parameters = llm.count_parameters(original.source.config).total
        names = COMPARED_FORMATS if parameters <= _LARGEST_COMPARED else ()
    for name in names:
        scheme = options.scheme_of(name)
        if scheme is not None:
            schemes.setdefault(scheme.name, scheme)
    return schemes


def _sample(plan: _Plan, quantized: LanguageModel, progress: Progress) -> Sample | None:
    """Continue one prompt with both models, greedily: only the format makes a difference."""
    options, original = plan.options, plan.original
    if original.tokenizer is None or options.max_new_tokens == 0:
        return None
    prompt = options.prompt or DEFAULT_PROMPT
    if options.prompt is None and options.text is not None:
        prompt = original.tokenizer.decode(list(plan.text.tokens[:_PROMPT_TOKENS]))
    tokens = original.encode(prompt)
    models = [original] if quantized is original else [original, quantized]
    total = options.max_new_tokens * len(models)
    progress("generate", 0, total)
    found = [
        _continue(model, tokens, options.max_new_tokens, _count_from(progress, done, total))
        for done, model in zip(range(0, total, options.max_new_tokens), models, strict=True)
    ]
    progress("generate", total, total)
    (first, first_speed), (second, second_speed) = found[0], found[-1]
    return Sample(
        prompt=prompt,
        original=original.tokenizer.decode(first),
        quantized=original.tokenizer.decode(second),
        num_tokens=len(second),
        sampling="greedy",
        original_tokens_per_s=first_speed,
        quantized_tokens_per_s=second_speed,
    )


def _count_from(progress: Progress, before: int, total: int) -> Progress:
    return lambda stage, done, _: progress(stage, before + done, total)


def _continue(
    model: LanguageModel, prompt: list[int], limit: int, progress: Progress
) -> tuple[list[int], float]:
    """Return new tokens and their speed, without those that wait for kernels to compile."""
    tokens: list[int] = []
    moments = [time.perf_counter()]
    for token in llm.generate(model.model, prompt, max_new_tokens=limit):
        tokens.append(token)
        moments.append(time.perf_counter())
        progress("generate", len(tokens), limit)
    skipped = min(_UNTIMED_TOKENS, max(0, len(tokens) - 1))
    took_s = moments[-1] - moments[skipped]
    return tokens, (len(tokens) - skipped) / took_s if took_s > 0 else 0.0


def _notes(accuracy: Accuracy) -> Iterator[str]:
    """Say what a reader must know to read the accuracy right."""
    if accuracy.is_random:
        yield "Scored on random tokens: KL and agreement compare formats, perplexity says nothing."
    if len(accuracy.rows) == 1:
        yield "There is no original to compare with: the checkpoint is scored as it is."
    if any(row.format.startswith(("mxfp6", "mxfp4_e1m2")) for row in accuracy.rows):
        yield (
            "mxfp6 and mxfp4_e1m2 take eight bits a weight in memory, as the tensor unit reads"
            " them; checkpoints hold them at six and four."
        )


def _versions() -> dict[str, str]:
    found = {"asterope": metadata.version("asterope"), "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _LIBRARIES}

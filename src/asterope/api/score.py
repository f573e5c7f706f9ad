"""Score a model and its quantized forms on one text."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from asterope import llm
from asterope.api.calibration import Calibration
from asterope.api.language_model import LanguageModel, with_scheme
from asterope.api.progress import Progress, silent
from asterope.api.rows import accuracy_row
from asterope.api.text import ScoredText
from asterope.errors import FormatError, ShapeError
from asterope.quant import Plan
from asterope.report import Accuracy, AccuracyRow

__all__ = ["Scored", "score_formats"]

_CONTEXT = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """The rows, the quantized models by name, and which formats were left out and why."""

    accuracy: Accuracy
    models: Mapping[str, LanguageModel]
    left_out: tuple[str, ...]


def score_formats(  # noqa: PLR0913 - what is scored, on what, and how it is made
    original: LanguageModel, schemes: Mapping[str, Plan | None], text: ScoredText, *,
    chosen: str = "", context: int = _CONTEXT, calibration: Calibration | None = None,
    kv: str = "auto", calibrate: Path | None = None, progress: Progress = silent,
) -> Scored:  # fmt: skip
    """Quantize an original to each scheme, and score all on the same windows of a text.

    With a calibration each is quantized by its algorithm; with `kv` all but the original have a KV
    cache in that format, whose scales come from the text `calibrate` (`LanguageModel.with_cache`).

    A scheme whose block does not divide a layer is left out, unless it is the chosen one.

    Raises: ShapeError if the chosen one cannot be; CheckpointError for weights that are not
    finite; ConfigError if the text is too short, or the original is itself quantized.
    """
    models: dict[str, LanguageModel] = {}
    left_out: list[str] = []
    for name, scheme in schemes.items():
        report = functools.partial(progress, f"quantize to {name}")
        try:
            models[name] = with_scheme(original, scheme, report, calibration)
            if kv != "auto":
                models[name] = models[name].with_cache(kv, calibrate=calibrate)
        except (ShapeError, FormatError) as error:
            if name == chosen:
                raise
            left_out.append(f"{name} was left out: {error.where}: {error.what}")
    accuracy = Accuracy(
        text=text.what,
        num_tokens=len(text.tokens),
        context=min(context, original.config.max_context, len(text.tokens)),
        is_random=text.is_random,
        rows=_rows(original, models, text, chosen, context, progress),
    )
    return Scored(accuracy=accuracy, models=models, left_out=tuple(left_out))


def _rows(
    original: LanguageModel, models: Mapping[str, LanguageModel], text: ScoredText, chosen: str,
    context: int, progress: Progress,
) -> tuple[AccuracyRow, ...]:  # fmt: skip
    others = {name: model for name, model in models.items() if model is not original}
    report = functools.partial(progress, "score")
    report(0, 0)  # The first windows wait for kernels to compile.
    reference, qualities = llm.evaluate(
        original.model, {name: model.model for name, model in others.items()}, text.tokens,
        context=context, progress=report,
    )  # fmt: skip
    first = accuracy_row(original.model, original.scheme, "original", reference, reference)
    rows = [
        accuracy_row(model.model, model.scheme, name, qualities[name], reference)
        for name, model in others.items()
    ]
    return (
        replace(first, is_original=True),
        *(replace(row, is_chosen=row.format == chosen) for row in rows),
    )

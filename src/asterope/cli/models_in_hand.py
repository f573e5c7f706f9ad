"""`asterope quantize`, `asterope eval` and `asterope generate`: one checkpoint at a time."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asterope.cli import options as opt
from asterope.cli.errors import need_torch
from asterope.cli.output import progress_bars, say, show, write, write_json
from asterope.cli.sensitivity import mixed_schemes, within_budget
from asterope.errors import ConfigError
from asterope.report import accuracy_table, mix_words, notes_text, plain, size, task_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asterope.api import Calibration, LanguageModel, MemoryUse
    from asterope.quant import Plan

__all__ = ["evaluate", "generate", "quantize"]

_SHOWN_EXPERTS = 8

Checkpoint = Annotated[
    Path,
    typer.Argument(help="Hugging Face checkpoint directory, or stdlib-llama, which ships."),
]


def quantize(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    checkpoint: Checkpoint,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Directory to write; empty or new.")
    ],
    fmt: opt.Format = None,
    activations: opt.Activations = "bf16",
    rule: opt.Rule = None,
    algorithm: opt.Algorithm = None,
    recipe: opt.Recipe = None,
    calibrate: opt.Calibrate = None,
    calibration_windows: opt.CalibrationWindows = 64,
    kv: opt.KvCache = "auto",
    dtype: opt.Dtype = None,
    budget: opt.Budget = None,
    formats: opt.MixedFormats = None,
    text: opt.TextFile = None,
    max_text_tokens: opt.MaxTextTokens = 4096,
    chip: opt.Chip = "maia200",
    batch: opt.Batch = 32,
    context: opt.Context = None,
    as_json: opt.AsJson = False,
) -> None:
    """Round a checkpoint's linear layers to a format and save it as compressed-tensors.

    A checkpoint that another tool quantized keeps its codes, without `--format`.

    With a text to look at, less is lost; if that is broken off, the same command goes on behind the
    layers that are done. With a budget each place of each layer gets one of some formats, or none,
    by what it loses on a text and saves on a chip. What is saved is read back and compared bit for
    bit before it gets its name.

    Example: `asterope quantize stdlib-llama -o stdlib-llama-mxfp4 --format mxfp4`

    Example: `asterope quantize stdlib-llama -o by-gptq --format nvfp4/same --algorithm gptq`

    Example: `asterope quantize stdlib-llama -o best --recipe mxfp4-best`

    Example: `asterope quantize stdlib-llama -o mixed --budget "ppl<1.02x" --formats mxfp4,fp8`
    """
    need_torch("quantize")
    _check_budget(budget, fmt or rule or recipe, formats)
    _check_recipe(recipe, (fmt, rule, algorithm, activations))
    with progress_bars() as progress:
        from asterope import api, quant

        api.check_target(out)
        limit = None if budget is None else quant.parse_budget(budget)
        schemes = mixed_schemes(formats, activations)
        timed = api.EstimateOptions(chip=chip, batch=batch, context=context)
        scheme: Plan | None = api.resolve_scheme(fmt, activations=activations, rule=rule)
        watch = api.MemoryWatch()
        original = api.load(
            checkpoint, dtype=dtype, progress=functools.partial(progress, "load"),
            lazily=limit is None,
        )  # fmt: skip
        if recipe is not None:
            chosen = quant.recipe(recipe)
            scheme, algorithm = chosen.scheme, chosen.algorithm
            kv = chosen.kv if kv == "auto" else kv
        elif original.scheme is not None and (fmt, algorithm, calibrate) == (None,) * 3:
            scheme = original.scheme
        calibration = api.read_calibration(
            original, algorithm, calibrate, num_windows=calibration_windows
        )
        watch.load(calibration)
        kept_in = out.absolute().with_name(f".{out.absolute().name}.layers")
        measured = None
        if limit is None:
            model = api.with_scheme(
                original, scheme, functools.partial(progress, "quantize"), calibration, kept_in
            )
        else:
            scored = api.text_of(original, text, max_tokens=max_text_tokens)
            model, measured = within_budget(
                original, limit, schemes, scored, timed, calibration, progress
            )
        if kv != "auto":
            model = model.with_cache(
                kv, calibrate=calibrate, calibration_windows=calibration_windows,
                progress=functools.partial(progress, "KV cache"),
            )  # fmt: skip
        directory = model.save(out, progress=functools.partial(progress, "save"), kept_in=kept_in)
    memory = None
    if original.model.is_lazy:  # else all of it was held
        looked_at = calibration_windows if model.model.cache_format.largest else 0
        memory = watch.use(original, model.scheme, calibration, looked_at)
    before, after = original.weight_bytes, model.weight_bytes
    if as_json:
        write_json({
            "directory": str(directory), "scheme": model.model.described or "unquantized",
            "weight_bytes": after, "original_weight_bytes": before,
            "calibrated_on": calibration.what if calibration else None,
            "notes": list(original.source.notes),
            "measured": plain(measured) if measured else None,
            "few_tokens": dict(model.model.few_tokens),
            "memory": plain(memory) | {"bound_bytes": memory.bound_bytes} if memory else None,
        })  # fmt: skip
        return
    write(f"{directory}\n")
    say(f"{model.model.described or 'unquantized'}: {before:,} to {after:,} bytes of weights")
    _say_how(model, calibration, memory)
    _say_notes(original)
    if measured:
        say(f"{limit}: {mix_words(measured)}")


def _say_how(
    model: LanguageModel, calibration: Calibration | None, memory: MemoryUse | None
) -> None:
    if calibration:
        say(f"calibrated on {calibration.what}")
    if model.model.few_tokens:
        say(_few_tokens_words(model.model.few_tokens))
    if memory:
        say(_memory_words(memory))


def _few_tokens_words(few_tokens: Mapping[str, int]) -> str:
    shown = [f"{name} ({count:,})" for name, count in list(few_tokens.items())[:_SHOWN_EXPERTS]]
    more = f" and {len(few_tokens) - len(shown):,} more" if len(few_tokens) > len(shown) else ""
    return (
        "calibrated on all tokens of their layer, because so few reached them: "
        f"{', '.join(shown)}{more}"
    )


def _memory_words(memory: MemoryUse) -> str:
    return (
        f"at most {size(memory.peak_bytes)} of memory beyond the start; the bound is "
        f"{size(memory.bound_bytes)}: 1.5 x {size(memory.working_set_bytes)} for the largest layer "
        f"+ {size(memory.mapping_bytes)} of mapped files + {size(memory.runtime_bytes)} of code"
    )


def _check_recipe(recipe: str | None, others: tuple[str | None, ...]) -> None:
    """Refuse a recipe beside what it chooses."""
    if recipe is not None and others != (None, None, None, "bf16"):
        raise ConfigError("chooses formats and algorithm", where="--recipe", hint="give it alone")


def _check_budget(budget: str | None, chosen: str | None, formats: str | None) -> None:
    """Refuse a budget beside one format, and formats to choose from without a budget."""
    if budget is None and formats is not None:
        raise ConfigError("is for --budget", where="--formats", hint="give one with --format")
    if budget is not None and chosen is not None:
        raise ConfigError("chooses the formats", where="--budget", hint="name some with --formats")


def evaluate(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    checkpoint: Checkpoint,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format", "--formats", metavar="NAMES",
            help="Formats to compare with the original, separated by commas. Default: none.",
        ),
    ] = None,
    activations: opt.Activations = "bf16",
    text: opt.TextFile = None,
    max_text_tokens: opt.MaxTextTokens = 4096,
    context: Annotated[int, typer.Option(metavar="N", help="Tokens of a window.")] = 512,
    algorithm: opt.Algorithm = None,
    calibrate: opt.Calibrate = None,
    calibration_windows: opt.CalibrationWindows = 64,
    kv: opt.KvCache = "auto",
    tasks: opt.Tasks = None,
    task_limit: opt.TaskLimit = None,
    few_shots: opt.FewShots = None,
    dtype: opt.Dtype = None,
    as_json: opt.AsJson = False,
) -> None:  # fmt: skip
    """Score a checkpoint on a text, and what formats do to it: perplexity, KL, agreement, tasks.

    Example: `asterope eval stdlib-llama --format mxfp4,nvfp4,fp8`

    Example: `asterope eval stdlib-llama --format mxfp4,mxfp4/same --algorithm gptq`

    Example: `asterope eval stdlib-llama --format bf16,fp8 --kv fp8`

    Example: `asterope eval stdlib-llama --format mxfp4 --tasks my_task.yaml --task-limit 100`
    """
    need_torch("eval")
    if tasks is not None:
        os.environ.setdefault("TQDM_DISABLE", "1")  # the harness' bars, which it reads on import
    with progress_bars() as progress:
        from asterope import api

        names = opt.listed(formats) or (("bf16",) if kv != "auto" else ())
        schemes = {name: api.resolve_scheme(name, activations=activations) for name in names}
        original = api.load(checkpoint, dtype=dtype, progress=functools.partial(progress, "load"))
        calibration = api.read_calibration(
            original, algorithm, calibrate, num_windows=calibration_windows
        )
        scored = api.score_formats(
            original,
            {s.name if s else n: s for n, s in schemes.items() if s or kv != "auto"},
            api.text_of(original, text, max_tokens=max_text_tokens),
            context=context,
            calibration=calibration,
            kv=kv,
            calibrate=calibrate,
            progress=progress,
        )
        scores = () if tasks is None else api.score_tasks(
            {"original": original, **scored.models}, opt.listed(tasks), limit=task_limit,
            num_fewshot=few_shots, progress=progress,
        )  # fmt: skip
    if as_json:
        write_json({
            **plain(scored.accuracy), "left_out": list(scored.left_out),
            "tasks": [plain(score) for score in scores],
            "algorithm": calibration.algorithm.name if calibration else "rtn",
            "calibrated_on": calibration.what if calibration else None,
        })  # fmt: skip
        return
    tables = [accuracy_table(scored.accuracy.rows), *([task_table(scores)] if scores else [])]
    show([*tables, *notes_text(scored.left_out)])
    say(f"on {scored.accuracy.text}")
    if calibration:
        say(f"by {calibration.algorithm.name}, calibrated on {calibration.what}")
    _say_notes(original)


def generate(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Argument(help="Text to continue.")],
    fmt: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Weight format. Default: as it is."),
    ] = None,
    activations: opt.Activations = "bf16",
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens to add at most.")
    ] = 64,
    temperature: Annotated[
        float, typer.Option(metavar="NUMBER", help="0 takes the likeliest token.")
    ] = 0.0,
    top_k: Annotated[int, typer.Option(metavar="N", help="Candidates to keep; 0 keeps all.")] = 0,
    top_p: Annotated[
        float, typer.Option(metavar="SHARE", help="Probability of the candidates to keep.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
    dtype: opt.Dtype = None,
    as_json: opt.AsJson = False,
) -> None:
    """Continue a prompt with a checkpoint, through kernels compiled for this CPU.

    Example: `asterope generate stdlib-llama "def main(" --format mxfp4 --max-new-tokens 40`
    """
    need_torch("generate")
    with progress_bars() as progress:
        from asterope import api, llm

        sampling = llm.Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        scheme = None if fmt is None else api.resolve_scheme(fmt, activations=activations)
        model = api.load(checkpoint, dtype=dtype, progress=functools.partial(progress, "load"))
        if fmt is not None:
            model = api.with_scheme(model, scheme, functools.partial(progress, "quantize"))
    started = time.perf_counter()
    pieces: list[str] = []
    for piece in model.stream(prompt, max_new_tokens=max_new_tokens, sampling=sampling):
        pieces.append(piece)
        if not as_json:
            write(piece if len(pieces) > 1 else prompt + piece)
    took_s = time.perf_counter() - started
    if as_json:
        write_json({
            "prompt": prompt, "text": "".join(pieces), "seconds": took_s,
            "scheme": model.model.scheme or "unquantized",
        })  # fmt: skip
        return
    write("\n")
    say(f"{took_s:.2f} s, kernel compilation included")
    _say_notes(model)


def _say_notes(model: LanguageModel) -> None:
    for note in model.source.notes:
        say(note)

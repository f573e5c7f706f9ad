"""`asterope train`: weights that lose little when they are rounded."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from asterope.cli import options as opt
from asterope.cli.errors import need_torch
from asterope.cli.models_in_hand import Checkpoint
from asterope.cli.output import progress_bars, say, write, write_json

__all__ = ["train"]


def train(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    checkpoint: Checkpoint,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Directory to write; empty or new.")
    ],
    fmt: opt.Format = None,
    activations: opt.Activations = "bf16",
    rule: opt.Rule = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text to train on: plain, or the field `text` of JSON lines or Parquet. Default:"
            " sources of Python's standard library that the shipped model is not scored on.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of the optimizer.")] = 600,
    windows_per_step: Annotated[
        int, typer.Option(metavar="N", min=1, help="Windows of 512 tokens a step.")
    ] = 1,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Algorithm whose weights it starts from, of those of quantize. Default: awq_gptq;"
            " with a branch (+r32) that is what svdquant does.",
        ),
    ] = None,
    cross_entropy: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of the loss that the text has; the original has the rest."
        ),
    ] = 0.0,
    relative_rate: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Peak learning rate over the root mean square of the weights. Default: 0.004, or"
            " 0.002 where activations are rounded to four bits.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the order of windows.")] = 0,
    dtype: opt.Dtype = None,
    as_json: opt.AsJson = False,
) -> None:  # fmt: skip
    """Train a checkpoint for a format, round it, and save it as compressed-tensors.

    It learns to say what it said unrounded (distillation). If that is broken off, the same command
    goes on from the last evaluation.

    Example: `asterope train stdlib-llama -o trained --format mxfp4/same --steps 100`
    """
    need_torch("train")
    with progress_bars() as progress:
        from asterope import api, llm

        api.check_target(out)
        scheme = api.resolve_scheme(fmt, activations=activations, rule=rule)
        original = api.load(checkpoint, dtype=dtype, progress=functools.partial(progress, "load"))
        plan = llm.TrainingPlan(
            steps=steps, windows_per_step=windows_per_step, cross_entropy=cross_entropy,
            relative_rate=relative_rate, seed=seed,
        )  # fmt: skip
        kept_in = out.absolute().with_name(f".{out.absolute().name}.training.safetensors")
        made = api.train(
            original, scheme, text=text, plan=plan, start=start, kept_in=kept_in, progress=progress,
        )  # fmt: skip
        directory = made.model.save(out, progress=functools.partial(progress, "save"))
        api.forget_training(kept_in)
    losses, best = made.trained.held_out_losses, made.trained.best_step
    if as_json:
        write_json({
            "directory": str(directory), "scheme": made.model.model.scheme, "best_step": best,
            "held_out_losses": losses, "trained_on": made.what,
            "weight_bytes": made.model.model.weight_bytes,
            "original_weight_bytes": original.model.weight_bytes,
        })  # fmt: skip
        return
    write(f"{directory}\n")
    say(f"{made.model.model.scheme}: held-out loss {losses[0]:.4f} to {losses[best]:.4f}")
    say(f"trained on {made.what}")

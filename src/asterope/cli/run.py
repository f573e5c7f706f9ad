"""`asterope run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asterope.cli import options as opt
from asterope.cli.errors import need_torch
from asterope.cli.output import progress_bars, say, show, write_json
from asterope.report import (
    REPORT_BYTES,
    check_directory,
    report_dict,
    run_tables,
    write_report,
)

__all__ = ["run"]


def run(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Hugging Face checkpoint directory. Default: stdlib-llama, which ships."
        ),
    ] = None,
    fmt: opt.Format = None,
    activations: opt.Activations = "bf16",
    rule: opt.Rule = None,
    dtype: opt.Dtype = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Directory of report.html and report.json."
        ),
    ] = Path("asterope-report"),
    text: opt.TextFile = None,
    max_text_tokens: opt.MaxTextTokens = 4096,
    formats: opt.Formats = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", rich_help_panel="Accuracy", help="Prompt that both models continue."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            metavar="N", rich_help_panel="Accuracy", help="Tokens to continue it with; 0: none."
        ),
    ] = 64,
    chip: opt.Chip = "maia200",
    compare: opt.Compare = "h200,b200",
    batch: opt.Batch = 32,
    prefill_batch: opt.PrefillBatch = 1,
    context: opt.Context = None,
    fidelity: opt.Fidelity = None,
    price: opt.Price = None,
    basis: opt.Basis = None,
    pue: opt.Pue = None,
    usd_per_kwh: opt.UsdPerKwh = None,
    utilisation: opt.Utilisation = None,
    idle_power: opt.IdlePower = None,
    overhead_power: opt.OverheadPower = None,
    electricity_extra: opt.ElectricityExtra = False,
    as_json: opt.AsJson = False,
) -> None:
    """Quantize a checkpoint, score it, run it here, time it on a chip, price it, and report.

    Ends in tables here and one HTML file that opens offline.

    Example: `asterope run --chip maia200 --format mxfp4`
    """
    need_torch("run")
    with progress_bars() as progress:
        from asterope import api

        check_directory(out, file_bytes=REPORT_BYTES)
        cost = opt.CostOptions(
            price=price, basis=basis, pue=pue, usd_per_kwh=usd_per_kwh, utilisation=utilisation,
            idle_power_fraction=idle_power, overhead_power_ratio=overhead_power,
            electricity_extra=electricity_extra,
        )  # fmt: skip
        wanted = api.RunOptions(
            checkpoint=checkpoint or api.shipped_model(), format=fmt, activations=activations,
            rule=rule, formats=None if formats is None else opt.listed(formats), text=text,
            max_text_tokens=max_text_tokens, prompt=prompt, max_new_tokens=max_new_tokens,
            dtype=dtype, command=opt.command_line(),
            estimate=opt.estimate_options(
                cost, chip=chip, compare=compare, batch=batch, prefill_batch=prefill_batch,
                context=context, fidelity=fidelity,
            ),
        )  # fmt: skip
        found = api.run_checkpoint(wanted, progress)
        page, _ = write_report(found, out)
    if as_json:
        write_json(report_dict(found))
    else:
        show(run_tables(found))
    say(f"\nreport: {page.absolute()}")

"""`asterope simulate` and `asterope cost`: a model's steps on a chip, from its shapes alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asterope import chips
from asterope.cli import options as opt
from asterope.cli.errors import need_torch
from asterope.cli.output import progress_bars, say, show, write_json
from asterope.cost import cost_of_step, explain
from asterope.errors import ConfigError, OutputError
from asterope.report import (
    assumption_table,
    check_directory,
    estimate_tables,
    new_table,
    notes_text,
    plain,
)

if TYPE_CHECKING:
    from asterope.api import LanguageModel

__all__ = ["cost", "simulate"]

Model = Annotated[
    str,
    typer.Argument(
        help="Checkpoint directory, config.json, or published name (`asterope models`)."
    ),
]


def simulate(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    model: Model,
    fmt: opt.Format = None,
    activations: opt.Activations = "bf16",
    rule: opt.Rule = None,
    phase: Annotated[str, typer.Option(metavar="NAME", help="decode, prefill, or both.")] = "both",
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a trace that ui.perfetto.dev opens."),
    ] = None,
    chip: opt.Chip = "maia200",
    compare: opt.Compare = "",
    batch: opt.Batch = 32,
    prefill_batch: opt.PrefillBatch = 1,
    context: opt.Context = None,
    fidelity: opt.Fidelity = None,
    as_json: opt.AsJson = False,
) -> None:
    """Time one decode step and one prefill of a model on a chip; no weights are needed.

    Example: `asterope simulate llama-3.1-8b --format mxfp4/fp8 --batch 64 --trace decode.json`
    """
    need_torch("simulate")
    if trace is not None:
        _check_trace(trace)
    with progress_bars() as progress:
        from asterope import api

        wanted = opt.estimate_options(
            opt.CostOptions(), chip=chip, compare=compare, batch=batch,
            prefill_batch=prefill_batch, context=context, fidelity=fidelity, phase=phase,
        )  # fmt: skip
        shapes = _shapes(model, fmt, activations, rule)
        found = api.estimate(shapes, wanted, trace=trace, priced=False, progress=progress)
    if as_json:
        write_json(plain(found))
    else:
        show([*estimate_tables(found), *notes_text(found.notes)])
    if trace is not None:
        say(f"trace: {trace.absolute()} (open it at ui.perfetto.dev)")


def cost(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    model: Annotated[
        str | None,
        typer.Argument(
            help="Checkpoint directory, config.json, or published name (`asterope models`)."
        ),
    ] = None,
    fmt: opt.Format = None,
    activations: opt.Activations = "bf16",
    rule: opt.Rule = None,
    tokens_per_s: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Price this measured speed of one chip instead of a model."
        ),
    ] = None,
    power_w: Annotated[
        float | None, typer.Option(metavar="WATTS", help="Its measured power; the TDP if left out.")
    ] = None,
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
    """Say what a million tokens of a model cost, and at which price chips tie.

    Every assumption is listed with its source, and every one has an option.

    Example: `asterope cost llama-3.1-70b --format mxfp4 --batch 64 --context 4096 --price 1.60`
    """
    given = opt.CostOptions(
        price=price, basis=basis, pue=pue, usd_per_kwh=usd_per_kwh, utilisation=utilisation,
        idle_power_fraction=idle_power, overhead_power_ratio=overhead_power,
        electricity_extra=electricity_extra,
    )  # fmt: skip
    if (model is None) == (tokens_per_s is None):
        raise ConfigError(
            "give either a model or --tokens-per-s", where="MODEL",
            hint="asterope cost llama-3.1-70b, or asterope cost --tokens-per-s 12000 --chip h200",
        )  # fmt: skip
    if tokens_per_s is not None:
        _cost_of_speed(chip, tokens_per_s, power_w, given, as_json)
        return
    assert model is not None
    need_torch("cost")
    with progress_bars() as progress:
        from asterope import api

        wanted = opt.estimate_options(
            given, chip=chip, compare=compare, batch=batch, prefill_batch=prefill_batch,
            context=context, fidelity=fidelity,
        )  # fmt: skip
        found = api.estimate(_shapes(model, fmt, activations, rule), wanted, progress=progress)
    if as_json:
        write_json(plain(found))
        return
    stated = [row for row in found.assumptions if row.kind == "cost"]
    show([*estimate_tables(found), assumption_table(stated), *notes_text(found.notes)])


def _check_trace(file: Path) -> None:
    """Check before anything slow begins that a trace can be written."""
    check_directory(file.absolute().parent)
    if file.is_dir():
        raise OutputError(
            "is a directory", where=str(file), hint=f"name a file: {file / 'trace.json'}"
        )


def _shapes(model: str, fmt: str | None, activations: str, rule: str | None) -> LanguageModel:
    """Return the model that a user's words mean, quantized, without weights."""
    from asterope import api

    shapes = api.from_config(model)
    if fmt is None and shapes.scheme is not None:
        return shapes
    return api.with_scheme(shapes, api.resolve_scheme(fmt, activations=activations, rule=rule))


def _cost_of_speed(
    chip_name: str, tokens_per_s: float, power_w: float | None, given: opt.CostOptions,
    as_json: bool,
) -> None:  # fmt: skip
    """Price a measured speed: no model, no simulation, no torch."""
    chip = chips.get(chip_name)
    found = cost_of_step(
        chip,
        tokens=tokens_per_s,
        step_s=1.0,
        energy_j=power_w,
        assumptions=given.pricing(chip_name).of(chip),
    )
    if as_json:
        write_json({**plain(found), "kwh_per_mtok": found.kwh_per_mtok})
        return
    table = new_table("What it rests on", "figure", ">value", "unit", "confidence", "source")
    for row in found.stated:
        source = f"{row.source}; {row.note}" if row.note else row.source
        table.add_row(row.name, f"{row.value:g}", row.unit, str(row.confidence), source)
    show(["\n".join(explain(found)), table])

"""`asterope simulate` and `asterope cost`: a model's steps on a chip, from its shapes alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asterope import chips
from asterope.cli import options as opt
from asterope.cli.attention import Steps, simulate_attention
from asterope.cli.errors import need_torch
from asterope.cli.gemm import simulate_gemm
from asterope.cli.moe import simulate_moe
from asterope.cli.operation import Wanted
from asterope.cli.output import progress_bars, say, show, write_json
from asterope.cli.sweep import simulate_sweep
from asterope.cost import cost_of_step, explain
from asterope.errors import ConfigError
from asterope.report import (
    assumption_table,
    check_file,
    estimate_page,
    estimate_tables,
    new_table,
    notes_text,
    plain,
    write_page,
)

if TYPE_CHECKING:
    from asterope.api import LanguageModel

__all__ = ["cost", "simulate"]

_OPERATIONS = ("gemm", "attention", "moe")

Model = Annotated[
    str | None,
    typer.Argument(
        help="Checkpoint directory, config.json, or published name (`asterope models`)."
    ),
]


def simulate(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    model: Model = None,
    sizes: Annotated[
        list[int] | None,
        typer.Argument(
            help="M, N and K, where the model is the word `gemm`; query heads, key heads and the "
            "size of a head, where it is `attention`; tokens, hidden size, an expert's size, "
            "experts and those of a token, where it is `moe`."
        ),
    ] = None,
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
    kv: opt.KvCache = "auto",
    page_size: Annotated[
        int,
        typer.Option(
            metavar="N", help="With attention: tokens of a page of its cache, 0 for none."
        ),
    ] = 0,
    is_latent: Annotated[
        bool,
        typer.Option(
            "--latent", help="With attention: over latents (MLA), with five sizes as below."
        ),
    ] = False,
    tensor_parallel: opt.TensorParallel = 1,
    expert_parallel: opt.ExpertParallel = 1,
    expert_loads: opt.ExpertLoads = "random",
    overlap: opt.Overlap = "none",
    fidelity: opt.Fidelity = None,
    is_explained: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="With gemm, attention and moe: how it was cut, where time and energy go.",
        ),
    ] = False,
    sweep: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Time all combinations of what a TOML file lists."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --sweep: one line of JSON a row; goes on there."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="With --sweep: processes; all cores.")
    ] = None,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="With --sweep: on Ray, at RAY_ADDRESS or this machine.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page with pictures."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Time one decode step and one prefill of a model on a chip; no weights are needed.

    `simulate gemm M N K` times one matrix product: simulated where the inside of the chip is
    described, from calibrated operators on GPUs. `simulate attention HEADS KV_HEADS SIZE` times
    the attention of one layer in the same way, for --batch, --context and --phase; with --latent
    the sizes are HEADS LATENT ROPE NOPE VALUE, and it is absorbed or expanded, whichever is faster.
    `simulate moe TOKENS HIDDEN INTERMEDIATE EXPERTS TOP_K` times a layer of experts, spread as
    --expert-loads says.
    `simulate --sweep FILE` times many products and steps: the file has tables [[gemm]] (m, n, k,
    chip, format) and [[step]] (model, chip, format, phase, batch, context, fidelity), in which a
    list stands for each of its values.

    Example: `asterope simulate llama-3.1-8b --format mxfp4/fp8 --batch 64 --trace decode.json`

    Example: `asterope simulate llama-3.1-405b --format mxfp4 --tensor-parallel 4 --overlap halves`

    Example: `asterope simulate qwen3-30b-a3b --format mxfp4/fp8 --batch 64 --expert-parallel 4`

    Example: `asterope simulate gemm 8192 8192 8192 --format mxfp4 --compare h100,b200 --explain`

    Example: `asterope simulate gemm 4096 4096 4096 --format mxfp8/same --report gemm.html`

    Example: `asterope simulate attention 32 8 128 --phase decode --batch 1 --explain`

    Example: `asterope simulate attention 32 8 128 --batch 32 --page-size 16 --explain`

    Example: `asterope simulate attention 128 512 64 128 128 --latent --explain`

    Example: `asterope simulate moe 64 2048 768 128 8 --format mxfp4/fp8 --compare h100 --explain`
    """
    need_torch("simulate")
    if sweep is not None:
        alone = [option for option in (model, trace, report) if option is not None]
        if alone:
            raise ConfigError("is for one model or product, not for a sweep", where=str(alone[0]))
        ray = os.environ.get("RAY_ADDRESS", "") if on_ray else None
        simulate_sweep(sweep, out=out, jobs=jobs, ray=ray, as_json=as_json)
        return
    _check_single(model, is_for_sweep=out is not None or jobs is not None or on_ray)
    assert model is not None
    _check_cache(model, has_layout=bool(page_size or is_latent), kv=kv)
    for file in (trace, report):
        check_file(file)
    wanted = Wanted(is_explained=is_explained, as_json=as_json, trace=trace, report=report)
    chip_names = [chip, *opt.listed(compare)]
    if model in _OPERATIONS:
        steps = Steps(
            phase=phase, batch=batch, prefill_batch=prefill_batch, context=context, page=page_size,
            is_latent=is_latent, cache=kv,
        )  # fmt: skip
        formats = (fmt, activations, rule)
        _operation(model, sizes or [], formats, steps, expert_loads, chip_names, wanted)
        return
    if sizes or is_explained:
        raise ConfigError("sizes and --explain are for gemm, attention and moe", where=model,
                          hint="asterope simulate gemm 8192 8192 8192 --explain")  # fmt: skip
    with progress_bars() as progress:
        from asterope import api

        options = opt.estimate_options(
            opt.CostOptions(), chip=chip, compare=compare, batch=batch,
            prefill_batch=prefill_batch, context=context, fidelity=fidelity, phase=phase,
            tensor_parallel=tensor_parallel, expert_parallel=expert_parallel,
            expert_loads=expert_loads, overlap=overlap,
        )  # fmt: skip
        shapes = _shapes(model, fmt, activations, rule, kv)
        found = api.estimate(shapes, options, trace=trace, priced=False, progress=progress)
    if as_json:
        write_json(plain(found))
    else:
        show([*estimate_tables(found), *notes_text(found.notes)])
    if report is not None:
        write_page(estimate_page(found, opt.command_line()), report)
        say(f"report: {report.absolute()}")
    if trace is not None:
        say(f"trace: {trace.absolute()} (open it at ui.perfetto.dev)")


def _check_cache(model: str, *, has_layout: bool, kv: str) -> None:
    """Check that what has no cache is asked for none."""
    if model != "attention" and has_layout:
        raise ConfigError("are for attention", where="--page-size and --latent")
    if model in {"gemm", "moe"} and kv != "auto":
        raise ConfigError("is for models and attention", where="--kv")


def _operation(
    name: str, sizes: Sequence[int], formats: tuple[str | None, str, str | None], steps: Steps,
    loads: str, chip_names: Sequence[str], wanted: Wanted,
) -> None:  # fmt: skip
    """Time one operation; `formats` are those of weights and activations, and a scale rule."""
    fmt, activations, rule = formats
    if name == "gemm":
        simulate_gemm(sizes, fmt, activations, rule, chip_names, wanted)
    elif name == "moe":
        simulate_moe(sizes, fmt, activations, rule, loads, chip_names, wanted)
    else:
        simulate_attention(sizes, fmt, steps, chip_names, wanted)


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
    kv: opt.KvCache = "auto",
    tensor_parallel: opt.TensorParallel = 1,
    expert_parallel: opt.ExpertParallel = 1,
    expert_loads: opt.ExpertLoads = "random",
    overlap: opt.Overlap = "none",
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
            context=context, fidelity=fidelity, tensor_parallel=tensor_parallel,
            expert_parallel=expert_parallel, expert_loads=expert_loads, overlap=overlap,
        )  # fmt: skip
        found = api.estimate(_shapes(model, fmt, activations, rule, kv), wanted, progress=progress)
    if as_json:
        write_json(plain(found))
        return
    stated = [row for row in found.assumptions if row.kind == "cost"]
    show([*estimate_tables(found), assumption_table(stated), *notes_text(found.notes)])


def _check_single(model: str | None, *, is_for_sweep: bool) -> None:
    """Refuse what only a sweep can do without or with."""
    if model is None:
        raise ConfigError("no model given", where="MODEL", hint="asterope simulate llama-3.1-8b")
    if is_for_sweep:
        raise ConfigError("are for --sweep", where="--out, --jobs and --ray")


def _shapes(
    model: str, fmt: str | None, activations: str, rule: str | None, kv: str
) -> LanguageModel:
    """Return the model that a user's words mean, quantized, without weights."""
    from asterope import api

    shapes = api.from_config(model)
    if fmt is not None or shapes.scheme is None:
        scheme = api.resolve_scheme(fmt, activations=activations, rule=rule)
        shapes = api.with_scheme(shapes, scheme)
    return shapes if kv == "auto" else shapes.with_cache(kv)


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

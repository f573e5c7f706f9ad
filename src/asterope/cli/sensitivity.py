"""`asterope sensitivity`, and the search behind `asterope quantize --budget`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asterope.cli import options as opt
from asterope.cli.errors import need_torch
from asterope.cli.output import progress_bars, say, show, write_json
from asterope.native import cache_dir
from asterope.report import MixRow, check_file, mix_page, mix_tables, notes_text, plain, write_page

if TYPE_CHECKING:
    from asterope.api import Calibration, EstimateOptions, LanguageModel, Progress, ScoredText
    from asterope.quant import Budget, Scheme

__all__ = ["mixed_schemes", "sensitivity", "within_budget"]


def sensitivity(  # noqa: PLR0913, PLR0917 - a command takes as many options as it takes
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Hugging Face checkpoint directory, or stdlib-llama, which ships."),
    ],
    formats: opt.MixedFormats = None,
    activations: opt.Activations = "bf16",
    num_points: Annotated[
        int,
        typer.Option("--points", metavar="N", min=0, help="Mixes to measure along each front."),
    ] = 6,
    text: opt.TextFile = None,
    max_text_tokens: opt.MaxTextTokens = 4096,
    algorithm: opt.Algorithm = None,
    calibrate: opt.Calibrate = None,
    calibration_windows: opt.CalibrationWindows = 64,
    dtype: opt.Dtype = None,
    chip: opt.Chip = "maia200",
    batch: opt.Batch = 32,
    context: opt.Context = None,
    fidelity: opt.Fidelity = None,
    price: opt.Price = None,
    basis: opt.Basis = None,
    utilisation: opt.Utilisation = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page with pictures."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Quantize each place of each layer alone: what it loses, and what it saves on a chip.

    Then measure mixes along the Pareto fronts of loss against the time of a decode step, at one
    fidelity, the finest by default, and against bytes: perplexity, KL, tokens a second, dollars.
    A command that was killed goes on behind the places that it measured.

    Example: `asterope sensitivity stdlib-llama --formats mxfp4,fp8 --report mixes.html`
    """
    need_torch("sensitivity")
    check_file(report)
    with progress_bars() as progress:
        from asterope import api

        cost = opt.CostOptions(price=price, basis=basis, utilisation=utilisation)
        options = opt.estimate_options(
            cost, chip=chip, compare="", batch=batch, prefill_batch=1, context=context,
            fidelity=fidelity, phase="decode",
        )  # fmt: skip
        pricing = options.pricing.of(options.chips()[0])
        original = api.load(checkpoint, dtype=dtype, progress=functools.partial(progress, "load"))
        calibration = api.read_calibration(
            original, algorithm, calibrate, num_windows=calibration_windows
        )
        places = api.measure_places(
            original, mixed_schemes(formats, activations),
            api.text_of(original, text, max_tokens=max_text_tokens),
            api.Workload.of(options, original), calibration=calibration, assumptions=pricing,
            kept_in=_kept_in(), progress=progress,
        )  # fmt: skip
        mixes = api.compare_mixes(places, num_points=num_points, progress=progress)
        found = api.mix_report(places, mixes)
    if as_json:
        write_json(plain(found))
    else:
        show([*mix_tables(found), *notes_text(found.notes)])
        say(f"on {found.text}")
        if found.calibrated_on:
            say(f"by {found.algorithm}, calibrated on {found.calibrated_on}")
    if report is not None:
        write_page(mix_page(found, opt.command_line()), report)
        say(f"report: {report.absolute()}")
    places.forget()


def within_budget(
    original: LanguageModel, budget: Budget, schemes: Sequence[Scheme], text: ScoredText,
    options: EstimateOptions, calibration: Calibration | None, progress: Progress,
) -> tuple[LanguageModel, MixRow]:  # fmt: skip
    """Return the mix that fits a budget, and what was measured of it.

    Raises: ConfigError if no mix fits.
    """
    from asterope import api

    places = api.measure_places(
        original, schemes, text, api.Workload.of(options, original), calibration=calibration,
        kept_in=_kept_in(), progress=progress,
    )  # fmt: skip
    found = api.fit_budget(places, budget, progress)
    places.forget()
    return found


def _kept_in() -> Path:
    """Return where losses are until the command ends, so that it goes on if it is killed."""
    return cache_dir() / "places"


def mixed_schemes(formats: str | None, activations: str) -> list[Scheme]:
    """Return the schemes that places may have.

    Raises: FormatError with the nearest name.
    """
    from asterope import api

    names = opt.listed(formats) or api.MIXED_FORMATS
    return [api.read_scheme(name, activations=activations) for name in names]

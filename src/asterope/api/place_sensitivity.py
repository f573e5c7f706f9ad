"""How much each place of a model loses in each format, what it saves, and which mixes are best."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asterope import llm
from asterope.api.calibration import Calibration
from asterope.api.language_model import LanguageModel, made_from, with_scheme
from asterope.api.place_costs import PlaceCosts, Workload, place_costs
from asterope.api.progress import Progress, silent
from asterope.api.text import ScoredText
from asterope.api.timed import counted_energy_j
from asterope.cost import Assumptions, cost_of_step
from asterope.errors import ConfigError, ShapeError
from asterope.quant import (
    PLACES,
    Mix,
    Plan,
    Scheme,
    algorithm,
    mix_of,
    pareto_front,
)
from asterope.report import MixRow, PlaceRow
from asterope.units import PS_PER_S

__all__ = ["MIXED_FORMATS", "FrontMix", "PlaceSensitivity", "measure_places"]

MIXED_FORMATS = ("mxfp4", "nvfp4", "fp8")
"""The formats that mixes are made of where none are named."""

_WINDOW = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontMix:
    """A mix that no other is predicted to beat; `cost` is in seconds of a step, or in bytes."""

    mix: Mix
    cost: float
    predicted_kl: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlaceSensitivity:
    """What each place of an original loses and takes in each format, and how to measure mixes.

    `left_out` says which formats do not fit which places.
    """

    original: LanguageModel
    reference: llm.Reference
    text: ScoredText
    workload: Workload
    losses: tuple[llm.PlaceLoss, ...]
    costs: PlaceCosts
    calibration: Calibration | None = None
    assumptions: Assumptions | None = None
    left_out: tuple[str, ...] = ()
    kept: llm.KeptLosses | None = None

    def forget(self) -> None:
        """Delete what was kept for a run that might be killed."""
        if self.kept is not None:
            self.kept.remove()

    @property
    def plain(self) -> Mix:
        """The original as a mix: nothing is quantized."""
        return Mix.everywhere(None, self.original.config.num_layers)

    def rows(self) -> Iterator[PlaceRow]:
        """Yield what each place loses and saves in each format, alone."""
        time_ps, num_bytes = self.costs.time_ps, self.costs.num_bytes
        for loss in self.losses:
            key, before = (loss.layer, loss.place, loss.scheme), (loss.layer, loss.place, None)
            saved_ps = time_ps[before] - time_ps[key]
            yield PlaceRow(
                layer=loss.layer, place=loss.place, format=loss.scheme.name, kl=loss.quality.kl,
                perplexity_ratio=loss.quality.perplexity / self.reference.quality.perplexity,
                time_saved_s=saved_ps / PS_PER_S,
                bytes_saved=num_bytes[before] - num_bytes[key],
            )  # fmt: skip

    def predicted_kl(self, mix: Mix) -> float:
        """Return the sum of what the mix's places lose alone.

        An approximation: losses of places do not quite add up, and calibrated layers make up for
        those before them. Mixes that are chosen are measured.
        """
        known = self._kl_by_key()
        rows = ((i, mix.of(i)) for i in range(len(mix.layers)))
        return sum(known[i, place, s] for i, row in rows for place, s in row.items() if s)

    def _kl_by_key(self) -> dict[tuple[int, str, Scheme | None], float]:
        return {(x.layer, x.place, x.scheme): x.quality.kl for x in self.losses}

    def front(self, by: Literal["time", "bytes"] = "time") -> list[FrontMix]:
        """Return the mixes of least predicted loss for what they take, the cheapest first."""
        kl = self._kl_by_key()
        taken = self.costs.time_ps if by == "time" else self.costs.num_bytes
        keys = [(layer, place) for layer in range(len(self.plain.layers)) for place in PLACES]
        choices: list[list[Scheme | None]] = [
            [None, *(s for layer, place, s in kl if (layer, place) == key)] for key in keys
        ]
        points = pareto_front(
            [[taken[(*key, s)] for s in row] for key, row in zip(keys, choices, strict=True)],
            [[kl.get((*key, s), 0.0) for s in row] for key, row in zip(keys, choices, strict=True)],
        )
        found = []
        for point in points:
            picked = [row[pick] for row, pick in zip(choices, point.picks, strict=True)]
            mix = Mix(tuple(zip(*[iter(picked)] * len(PLACES), strict=True)))
            cost = self.costs.time_s(mix) if by == "time" else self.costs.weight_bytes(mix)
            found.append(FrontMix(mix=mix, cost=cost, predicted_kl=point.loss))
        return found

    def measure(
        self, plan: Plan | None, name: str = "mix", progress: Progress = silent
    ) -> tuple[LanguageModel, MixRow]:
        """Quantize to a plan, score it and simulate its step: no prediction but the row's own."""
        mix = mix_of(plan, self.original.config.num_layers)
        simplest = mix.simplest
        report = functools.partial(progress, f"quantize to {name}")
        model = with_scheme(self.original, simplest, report, self.calibration)
        quality = self.reference.quality
        if model is not self.original:
            quality = self.reference.score_model(model.model)
        step = self.workload.time(model.model)
        usd = None
        if self.assumptions is not None:
            usd = cost_of_step(
                self.workload.chip, tokens=step.num_tokens, step_s=step.time_s,
                energy_j=counted_energy_j(step), assumptions=self.assumptions,
            ).usd_per_mtok  # fmt: skip
        return model, MixRow(
            name=name,
            kind="mix" if isinstance(simplest, Mix) else "one format" if simplest else "original",
            scheme=model.model.scheme or "unquantized",
            layers=tuple(tuple(s.name if s else "bf16" for s in row) for row in mix.layers),
            predicted_kl=self.predicted_kl(mix), kl=quality.kl, perplexity=quality.perplexity,
            perplexity_ratio=quality.perplexity / self.reference.quality.perplexity,
            top1_agreement=quality.top1_agreement, weight_bytes=model.model.weight_bytes,
            time_s=step.time_s, tokens_per_s=step.tokens_per_s, usd_per_mtok=usd,
        )  # fmt: skip


def measure_places(
    original: LanguageModel, schemes: Sequence[Scheme], text: ScoredText, workload: Workload, *,
    calibration: Calibration | None = None, assumptions: Assumptions | None = None,
    kept_in: Path | None = None, progress: Progress = silent,
) -> PlaceSensitivity:  # fmt: skip
    """Quantize each place of each layer alone to each scheme; score it, and simulate what it saves.

    With a calibration places are quantized by its algorithm. With `assumptions` models that are
    measured later are priced. With `kept_in` losses are kept in a file of that directory until
    `PlaceSensitivity.forget`: a run of the same that was killed goes on behind them.

    Raises: ConfigError if the checkpoint is quantized or no scheme fits any place; CheckpointError
    for weights that are not finite; ChipError, ConfigError as `twin.time_step`.
    """
    original = with_scheme(original, None)
    if not original.has_weights:
        raise ConfigError("has no weights", where=original.name, hint="load a checkpoint directory")
    llm.check_plain(original.model)
    if calibration is not None:
        schemes = [calibration.algorithm.ranked(scheme) for scheme in schemes]
    candidates, left_out = _fitting(original.config, schemes)
    progress("simulate places", 0, 1)
    costs = place_costs(original, candidates, workload)
    progress("simulate places", 1, 1)
    progress("score the original", 0, 1)
    reference = llm.Reference(original.model, text.tokens, context=_WINDOW)
    progress("score the original", 1, 1)
    how = calibration.algorithm if calibration else algorithm("rtn")
    windows = calibration.windows if calibration else None
    kept = None
    if kept_in is not None:
        seen = None if windows is None else windows.tolist()
        name = made_from(original, how, seen, text.tokens, _WINDOW)
        kept = llm.KeptLosses(kept_in / f"{name}.jsonl")
    losses = llm.place_losses(
        original.model, reference, candidates, how, windows=windows, kept=kept,
        progress=functools.partial(progress, "score places"),
    )  # fmt: skip
    return PlaceSensitivity(
        original=original, reference=reference, text=text, workload=workload, losses=losses,
        costs=costs, calibration=calibration, assumptions=assumptions, left_out=left_out, kept=kept,
    )  # fmt: skip


def _fitting(
    config: llm.ModelConfig, schemes: Sequence[Scheme]
) -> tuple[Mapping[str, tuple[Scheme, ...]], tuple[str, ...]]:
    """Return the schemes that fit each place, and why others do not.

    Raises: ConfigError if none fits any.
    """
    fitting: dict[str, tuple[Scheme, ...]] = {}
    left_out: list[str] = []
    layers = dict.fromkeys(config.at(index) for index in range(config.num_layers))
    for place in PLACES:
        pieces = [
            piece
            for layer in layers
            for own, row in llm.projections(layer).items()
            if llm.scheme_place(own) == place
            for piece in row
        ]
        kept = []
        for scheme in dict.fromkeys(s for s in schemes if s.format is not None):
            try:
                for name, n, k, _ in pieces:
                    scheme.check_shape((n, k), name)
                kept.append(scheme)
            except ShapeError as error:
                left_out.append(f"{scheme.name} was left out in {place}: {error.what}")
        fitting[place] = tuple(kept)
    if not any(fitting.values()):
        raise ConfigError(
            left_out[0] if left_out else "there is no format to choose", where="formats",
            hint="fp8 has no blocks, and fits all models",
        )  # fmt: skip
    return fitting, tuple(left_out)

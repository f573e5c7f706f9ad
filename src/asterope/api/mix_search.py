"""Measure mixes along the Pareto front, and find the one that fits a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asterope.api.language_model import LanguageModel
from asterope.api.place_sensitivity import FrontMix, PlaceSensitivity
from asterope.api.progress import Progress, silent
from asterope.api.rows import chip_label
from asterope.errors import ConfigError
from asterope.quant import Budget, Mix, Scheme
from asterope.report import MixReport, MixRow

__all__ = ["compare_mixes", "fit_budget", "mix_report"]

_MOST_TRIES = 8
_WELL_USED = 0.95


def compare_mixes(
    places: PlaceSensitivity, *, num_points: int = 6, progress: Progress = silent
) -> tuple[MixRow, ...]:
    """Measure the original, each format in all places that it fits, and mixes of the front.

    `num_points` mixes are taken from the front of loss against time and as many from that against
    bytes, from end to end; those that are the same are measured once.
    """
    plans: dict[Mix, str] = {places.plain: "original"}
    for scheme in dict.fromkeys(loss.scheme for loss in places.losses):
        plans.setdefault(_everywhere(places, scheme), scheme.name)
    fronts = (_spread(places.front("time"), num_points), _spread(places.front("bytes"), num_points))
    mixes = {mix for front in fronts for mix in front} - plans.keys()
    ordered = sorted(mixes, key=places.predicted_kl)
    plans |= {mix: f"mix {number}" for number, mix in enumerate(ordered, start=1)}
    rows = []
    for done, (mix, name) in enumerate(plans.items()):
        progress("measure mixes", done, len(plans))
        rows.append(places.measure(mix, name)[1])
    progress("measure mixes", len(plans), len(plans))
    return tuple(rows)


def _everywhere(places: PlaceSensitivity, scheme: Scheme) -> Mix:
    """Return the mix that has a scheme in all places that it fits."""
    mix = places.plain
    for loss in places.losses:
        if loss.scheme == scheme:
            mix = mix.replaced(loss.layer, loss.place, loss.scheme)
    return mix


def _spread(front: Sequence[FrontMix], num_points: int) -> list[Mix]:
    """Return mixes of a front from its cheapest on, evenly by the shares of cost and of loss."""
    costs, losses = [p.cost for p in front], [p.predicted_kl for p in front]
    dearer, worse = (max(costs) - costs[0] or 1.0), (losses[0] - min(losses) or 1.0)
    along = [
        (cost - costs[0]) / dearer + (losses[0] - loss) / worse
        for cost, loss in zip(costs, losses, strict=True)
    ]  # from 0 to 2, the original
    targets = [2 * i / num_points for i in range(num_points)]
    return [front[min(range(len(front)), key=lambda i: abs(along[i] - t))].mix for t in targets]


def fit_budget(
    places: PlaceSensitivity, budget: Budget, progress: Progress = silent
) -> tuple[LanguageModel, MixRow]:
    """Quantize to the mix that fits a budget best, and measure it.

    Under a limit of loss that is the fastest mix of the front whose measured loss is within it, or
    the smallest, where none is faster than the original. Under a limit of bytes or time it is the
    mix of least predicted loss.

    Raises: ConfigError if no mix is within the budget, naming the best that was reached.
    """
    if budget.is_of_loss:
        return _within_loss(places, budget, progress)
    front = places.front("bytes" if budget.measure == "bytes" else "time")
    before = _taken(places, budget, places.plain)
    taken = [_taken(places, budget, point.mix) for point in front]
    within = [i for i, value in enumerate(taken) if budget.allows(value, before)]
    if not within:
        raise _unreachable(
            budget, budget.value(taken[0], before), "allow more, or name smaller --formats"
        )
    return places.measure(front[within[-1]].mix, progress=progress)


def _taken(places: PlaceSensitivity, budget: Budget, mix: Mix) -> float:
    """Return what a budget limits of a mix."""
    if budget.measure == "bytes":
        return places.costs.weight_bytes(mix)
    time_s = places.costs.time_s(mix)
    return places.workload.batch / time_s if budget.measure == "tokens/s" else time_s


def _within_loss(
    places: PlaceSensitivity, budget: Budget, progress: Progress
) -> tuple[LanguageModel, MixRow]:
    """Measure mixes of the front, each nearer to the limit, until one is within it and near."""
    front = places.front("time")
    if len(front) == 1:
        front = places.front("bytes")
    room = _room(places, budget)
    too_much, within = -1, len(front) - 1  # the last is the original, which loses nothing
    best: tuple[LanguageModel, MixRow] | None = None
    nearest, target = math.inf, room
    for tried in range(_MOST_TRIES):
        if room <= 0 or within - too_much <= 1:
            break
        progress("fit the budget", tried, _MOST_TRIES)
        between = range(too_much + 1, within)
        at = min(between, key=lambda i: abs(front[i].predicted_kl - target))
        found = places.measure(front[at].mix, progress=progress)
        lost = found[1].kl if budget.measure == "kl" else math.log(found[1].perplexity_ratio)
        nearest = min(nearest, lost)
        if lost < room:
            within, best = at, found
        else:
            too_much = at
        if _WELL_USED * room < lost < room:
            break
        target = front[at].predicted_kl * (room / lost if lost > 0 else 2.0)
    progress("fit the budget", _MOST_TRIES, _MOST_TRIES)
    if best is not None:
        return best
    reached = 0.0 if room <= 0 else nearest  # that of the original, if even that is too much
    if budget.measure == "ppl":
        before = places.reference.quality.perplexity
        reached = math.exp(reached) * (1 if budget.is_relative else before)
    raise _unreachable(budget, reached, "allow more, or name larger --formats")


def _room(places: PlaceSensitivity, budget: Budget) -> float:
    """Return the loss that a budget allows: a KL, or the logarithm of a ratio of perplexities."""
    if budget.measure == "kl":
        return budget.limit
    before = 1.0 if budget.is_relative else places.reference.quality.perplexity
    return math.log(budget.limit / before)


def _unreachable(budget: Budget, reached: float, hint: str) -> ConfigError:
    return ConfigError(
        f"no mix is within {budget}; the best that was reached has {budget.words(reached)}",
        where="budget", hint=hint,
    )  # fmt: skip


def mix_report(places: PlaceSensitivity, mixes: tuple[MixRow, ...]) -> MixReport:
    """Return places and mixes as a report shows them."""
    workload, how = places.workload, places.calibration
    return MixReport(
        model=places.original.name, num_layers=places.original.config.num_layers,
        chip=chip_label(workload.chip), fidelity=workload.fidelity, batch=workload.batch,
        context=workload.context, algorithm=how.algorithm.name if how else "rtn",
        calibrated_on=how.what if how else None, text=places.text.what,
        num_tokens=len(places.text.tokens), places=tuple(places.rows()), mixes=mixes,
        notes=places.left_out,
    )  # fmt: skip

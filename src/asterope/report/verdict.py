"""A run in a few sentences, and the same for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asterope.report.data import AccuracyRow, CostRow, Estimate, RunReport, Step, plain
from asterope.report.numbers import amount, bits, percent, ratio_change, seconds, speed, usd

__all__ = ["chosen_row", "original_row", "report_dict", "verdict"]


def original_row(report: RunReport) -> AccuracyRow:
    """Return the row that others are measured against."""
    return next(row for row in report.accuracy.rows if row.is_original)


def chosen_row(report: RunReport) -> AccuracyRow:
    """Return the row of the chosen format; the original's own if it was not quantized."""
    rows = report.accuracy.rows
    return next((row for row in rows if row.is_chosen), original_row(report))


def verdict(report: RunReport) -> str:
    """Say what is lost, how fast it is, and what it costs."""
    sentences = [_quality(report)]
    found = report.estimate
    step = found.finest("decode")
    if step is not None:
        sentences.append(_speed(step, found.cost(step)))
        sentences += _compared(found, step)
    return " ".join(sentences)


def _quality(report: RunReport) -> str:
    row, original = chosen_row(report), original_row(report)
    name = report.estimate.model.name
    if row is original:
        return f"{name} has a perplexity of {amount(row.perplexity)} as it is ({row.scheme})."
    size = (
        f"at {bits(row.bits_per_weight)} instead of {bits(original.bits_per_weight)} bits a weight"
    )
    if report.accuracy.is_random:
        agreed = percent(1 - row.top1_agreement)
        return (
            f"In {row.format}, {name} predicts another token in {agreed} of random places (KL"
            f" {amount(row.kl, 2)} nats) {size}."
        )
    return (
        f"{row.format} changes the perplexity of {name} by {ratio_change(row.perplexity_ratio)}"
        f" (KL {amount(row.kl, 2)} nats a token) {size}."
    )


def _speed(step: Step, cost: CostRow | None) -> str:
    text = (
        f"On {step.place} a decode step of {step.batch} sequences takes {seconds(step.time_s)}:"
        f" {speed(step.tokens_per_s)} tokens/s, bound by {step.bound_by}"
    )
    if cost is None:
        return f"{text}."
    assumed = "an assumed" if cost.price_is_assumed else "a"
    price = f"{assumed} price of {usd(cost.usd_per_chip_hour)} per chip-hour"
    return f"{text}; at {price}, a million output tokens cost {usd(cost.usd_per_mtok)}."


def _compared(found: Estimate, step: Step) -> Iterator[str]:
    """Set the price beside that on other chips: calibrated ones, or like with like by roofline."""
    rows = [row for row in found.costs if (row.phase, row.scheme) == (step.phase, step.scheme)]
    finest: dict[str, CostRow] = {}
    for row in rows:  # the finest of each chip comes first
        if row.chip != step.chip:
            finest.setdefault(row.chip, row)
    if finest and all(row.fidelity == "operator" for row in finest.values()):
        others = " and ".join(f"{usd(r.usd_per_mtok)} on {chip}" for chip, r in finest.items())
        yield f"They cost {others}, timed by calibrated operators."
        return
    prices = {row.chip: usd(row.usd_per_mtok) for row in rows if row.fidelity == "roofline"}
    own = prices.pop(step.chip, None)
    if own is None or not prices:
        return
    others = " and ".join(f"{price} on {chip}" for chip, price in prices.items())
    yield f"At the roofline of each chip they cost {own} on {step.chip}, {others}."


def report_dict(report: RunReport) -> dict[str, Any]:
    """Return the report as `report.json` holds it: the verdict, then everything else."""
    found = {"verdict": verdict(report), **plain(report)}
    assert isinstance(found, dict)
    return found

"""Where two costs tie, and a cost in words."""

from __future__ import annotations

from collections.abc import Iterator

from asterope.cost.prices import Price
from asterope.cost.step import Cost

__all__ = ["break_even_usd_per_chip_hour", "explain"]


def break_even_usd_per_chip_hour(cost: Cost, other: Cost) -> float:
    """Return the price at which `cost` would tie with `other` in dollars per token.

    Zero or less means that the electricity of `cost` alone is dearer than all of `other`.
    """
    added = 0.0 if cost.electricity_in_price else cost.electricity_usd_per_mtok
    return (other.usd_per_mtok - added) / cost.chip_hours_per_mtok


def explain(cost: Cost, *others: Cost) -> Iterator[str]:
    """Write a cost and where it would tie with others, one line at a time.

    An assumed price says so, and a comparison of prices of two bases too.
    """
    chips = f"{cost.num_chips} chip" if cost.num_chips == 1 else f"{cost.num_chips} chips"
    yield (
        f"{cost.chip}: {cost.usd_per_mtok:.4g} USD and {cost.kwh_per_mtok:.3g} kWh per million"
        f" tokens at {cost.tokens_per_s:,.1f} tokens/s on {chips}"
    )
    yield f"{cost.chip}: {cost.price.label}: {_because(cost.price)}"
    how = "within the price" if cost.electricity_in_price else "added to the price"
    yield f"{cost.chip}: electricity is {cost.electricity_usd_per_mtok:.3g} USD of it, {how}"
    for other in others:
        tie = break_even_usd_per_chip_hour(cost, other)
        at = f"at {tie:.4g} USD per chip-hour" if tie > 0 else "at no price"
        line = f"{cost.chip} ties with {other.chip} ({other.price.label}) {at}"
        same = cost.price.basis == other.price.basis
        yield line if same else f"{line}; the two prices are of different bases"


def _because(price: Price) -> str:
    return f"{price.source}; {price.note}" if price.note else price.source

"""Cost: power, price and utilisation to joules and dollars per million tokens.

Every figure comes with what it rests on: value, unit, source and confidence. A price nobody has
published is labelled *assumed* wherever it shows, next to the price at which it would tie.
"""

from __future__ import annotations

from asterope.cost.assumptions import Assumptions
from asterope.cost.compare import break_even_usd_per_chip_hour, explain
from asterope.cost.per_token import chip_hours_per_mtok, joules_per_token, usd_per_mtok
from asterope.cost.prices import (
    Basis,
    Price,
    Stated,
    overhead_power_ratio,
    price_of,
    priced_chips,
    prices,
)
from asterope.cost.step import Cost, cost_of_step

__all__ = [
    "Assumptions",
    "Basis",
    "Cost",
    "Price",
    "Stated",
    "break_even_usd_per_chip_hour",
    "chip_hours_per_mtok",
    "cost_of_step",
    "explain",
    "joules_per_token",
    "overhead_power_ratio",
    "price_of",
    "priced_chips",
    "prices",
    "usd_per_mtok",
]

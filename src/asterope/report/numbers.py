"""Numbers as people read them: units on all, three digits, no exponents."""

from __future__ import annotations

import math

from asterope.units import SECONDS_PER_HOUR, si

__all__ = [
    "amount",
    "bits",
    "count",
    "energy_per_mtok",
    "energy_per_token",
    "figure_value",
    "parameters",
    "percent",
    "ratio_change",
    "seconds",
    "size",
    "speed",
    "usd",
]


def amount(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits and no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def count(value: float) -> str:
    """Write a whole number with its thousands apart."""
    return f"{value:,.0f}"


def parameters(number: float) -> str:
    """Write a number of weights in millions or, as the field says, billions."""
    return f"{amount(number / 1e9)} B" if number >= 1e9 else f"{amount(number / 1e6)} M"


def percent(share: float, digits: int = 1) -> str:
    """Write a share of one."""
    return f"{100 * share:.{digits}f} %"


def figure_value(value: float | bool | str) -> str:
    """Write a figure of a chip or a cost, whose unit stands beside it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.4g}"


def energy_per_mtok(joules_per_token: float) -> str:
    """Write joules a token as watt-hours a million tokens."""
    return si(joules_per_token * 1e6 / SECONDS_PER_HOUR, "Wh")


def energy_per_token(joules: float | None) -> str:
    """Write joules a token; nothing where they are not known."""
    return "" if joules is None else si(joules, "J")


def ratio_change(ratio: float) -> str:
    """Write a ratio as a change with its sign."""
    return f"{100 * (ratio - 1):+.2f} %"


def seconds(value: float) -> str:
    """Write a duration with the prefix people read."""
    return si(value, "s")


def size(num_bytes: float) -> str:
    """Write bytes with the decimal prefix people read."""
    return si(num_bytes, "B")


def speed(tokens_per_s: float) -> str:
    """Write tokens per second."""
    return f"{tokens_per_s:,.1f}" if tokens_per_s < 100 else count(tokens_per_s)


def usd(value: float) -> str:
    """Write US dollars; what is far below a cent in millionths of a dollar."""
    if 0 < abs(value) < 1e-4:
        return f"{amount(1e6 * value)} µ$"
    return f"${amount(value)}"


def bits(value: float) -> str:
    """Write bits a weight."""
    return f"{value:.2f}"

"""Joules and dollars of a token from plain numbers: no chip, no file, no default."""

from __future__ import annotations

from asterope.cost.limits import check_count, check_number
from asterope.units import SECONDS_PER_HOUR

__all__ = ["JOULES_PER_KWH", "chip_hours_per_mtok", "joules_per_token", "usd_per_mtok"]

JOULES_PER_KWH = 3.6e6
TOKENS_PER_MTOK = 10**6


def chip_hours_per_mtok(*, tokens_per_s: float, num_chips: int, utilisation: float) -> float:
    """Count the chip-hours paid for a million tokens, the idle ones included.

    `tokens_per_s` is what all `num_chips` serve together while they serve.

    Raises: ConfigError naming the field, its value and its limits.
    """
    check_number("tokens_per_s", tokens_per_s, low=1e-9, high=1e15)
    check_count("num_chips", num_chips, high=10**7)
    check_number("utilisation", utilisation, low=0.001, high=1)
    return num_chips * TOKENS_PER_MTOK / (tokens_per_s * SECONDS_PER_HOUR * utilisation)


def usd_per_mtok(
    *, tokens_per_s: float, num_chips: int, usd_per_chip_hour: float, utilisation: float
) -> float:
    """Price a million tokens by the chip-hours they take.

    Raises: ConfigError naming the field, its value and its limits.
    """
    check_number("usd_per_chip_hour", usd_per_chip_hour, low=1e-6, high=1e6)
    return usd_per_chip_hour * chip_hours_per_mtok(
        tokens_per_s=tokens_per_s, num_chips=num_chips, utilisation=utilisation
    )


def joules_per_token(
    *,
    tokens_per_s: float,
    num_chips: int,
    chip_power_w: float,
    overhead_power_ratio: float,
    pue: float,
    utilisation: float,
    idle_power_fraction: float,
) -> float:
    """Count the energy that the site draws for one token: chips, hosts, network and facility.

    The energy of idle hours is shared among the tokens of the serving ones.

    Raises: ConfigError naming the field, its value and its limits.
    """
    hours = chip_hours_per_mtok(
        tokens_per_s=tokens_per_s, num_chips=num_chips, utilisation=utilisation
    )
    check_number("chip_power_w", chip_power_w, low=1e-3, high=1e6)
    check_number("overhead_power_ratio", overhead_power_ratio, low=1, high=20)
    check_number("pue", pue, low=1, high=5)
    check_number("idle_power_fraction", idle_power_fraction, low=0, high=1)
    site_w = chip_power_w * overhead_power_ratio * pue
    mean_w = site_w * (utilisation + (1 - utilisation) * idle_power_fraction)
    return hours * SECONDS_PER_HOUR * mean_w / TOKENS_PER_MTOK

"""What a cost assumes besides speed and power: each with its default, limits and source."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from asterope.chips import Confidence
from asterope.cost.limits import check_flag, check_number
from asterope.cost.prices import Basis, Stated
from asterope.errors import ConfigError

__all__ = ["Assumptions", "stated"]

GIVEN = "Given by the user"


def _assumed(
    default: float | bool, unit: str, source: str, confidence: Confidence, note: str = ""
) -> Any:
    """Declare an assumption: its default, its unit, and where the default comes from."""
    metadata = {"unit": unit, "source": source, "confidence": confidence, "note": note}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """State what a cost assumes; every field can be overridden.

    `basis` None takes the chip's default price, hyperscaler TCO where there is one.
    `usd_per_chip_hour` replaces the packaged price. `electricity_in_price` False adds electricity
    to a given price; packaged prices include it, so for them it is only reported.
    `overhead_power_ratio` None takes the chip's own.

    Raises: ConfigError naming the field, its value and its limits.
    """

    basis: Basis | None = None
    usd_per_chip_hour: float | None = None
    electricity_in_price: bool = _assumed(
        True,
        "yes/no",
        "InferenceX methodology: a TCO includes power and cooling; a rental price does too",
        Confidence.SECONDARY,
    )
    usd_per_kwh: float = _assumed(
        0.083,
        "USD/kWh",
        "SemiAnalysis, AI Datacenter Energy Dilemma (2024-03): average US tariff",
        Confidence.SECONDARY,
    )
    pue: float = _assumed(
        1.12,
        "W/W",
        "Modern hyperscale sites, 1.10 to 1.15 (Uptime Institute 2024 and Google, as quoted by"
        " lynx-cortex.pages.dev)",
        Confidence.SECONDARY,
    )
    utilisation: float = _assumed(
        0.6,
        "h/h",
        "Assumption of Asterope: share of the paid hours that serve at the stated speed",
        Confidence.ASSUMED,
        "published cost comparisons such as InferenceX take 1.0",
    )
    idle_power_fraction: float = _assumed(
        0.3,
        "W/W",
        "Assumption of Asterope: power of an idle hour over that of a serving one",
        Confidence.ASSUMED,
    )
    overhead_power_ratio: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "basis", _basis(self.basis))
        if self.usd_per_chip_hour is not None:
            check_number("usd_per_chip_hour", self.usd_per_chip_hour, low=1e-6, high=1e6)
        check_flag("electricity_in_price", self.electricity_in_price)
        if not self.electricity_in_price and self.usd_per_chip_hour is None:
            raise ConfigError(
                "False needs a price without electricity, and the packaged prices include it",
                where="electricity_in_price",
                hint="give usd_per_chip_hour too",
            )
        check_number("usd_per_kwh", self.usd_per_kwh, low=0, high=100)
        check_number("pue", self.pue, low=1, high=5, hint="facility power over IT power")
        hint = "a fraction of the paid hours: 0.6, not 60"
        check_number("utilisation", self.utilisation, low=0.001, high=1, hint=hint)
        check_number("idle_power_fraction", self.idle_power_fraction, low=0, high=1)
        if self.overhead_power_ratio is not None:
            hint = "power of chip, host and network over that of the chip"
            ratio = self.overhead_power_ratio
            check_number("overhead_power_ratio", ratio, low=1, high=20, hint=hint)


def stated(assumptions: Assumptions) -> Iterator[Stated]:
    """List the assumptions that have one default for all chips, with the source of each."""
    for item in fields(assumptions):
        if "unit" not in item.metadata:
            continue
        value, label = getattr(assumptions, item.name), dict(item.metadata)
        if value != item.default:
            label.update(source=GIVEN, confidence=Confidence.WHAT_IF, note="")
        yield Stated(name=item.name, value=value, **label)


def _basis(basis: object) -> Basis | None:
    if basis is None:
        return None
    name = str(basis)[:200]
    if name in list(Basis):
        return Basis(name)
    close = difflib.get_close_matches(name, list(Basis), n=1)
    known = f"the bases are {', '.join(Basis)}"
    hint = f"did you mean '{close[0]}'? {known}" if close else known
    raise ConfigError(f"{name!r} is not a price basis", where="basis", hint=hint)

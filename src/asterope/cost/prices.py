"""The packaged prices: what an hour of a chip costs, on which basis, and who says so."""

from __future__ import annotations

import dataclasses
import statistics
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from asterope import chips
from asterope.chips import Chip, Confidence
from asterope.errors import ConfigError

__all__ = ["Basis", "Price", "Stated", "overhead_power_ratio", "price_of", "priced_chips", "prices"]


class Basis(StrEnum):
    """What a price per chip-hour pays for; only prices of one basis compare like with like."""

    TCO_HYPERSCALER = "tco_hyperscaler"
    TCO_NEOCLOUD = "tco_neocloud"
    RENTAL_3YR = "rental_3yr"
    ON_DEMAND = "on_demand"


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """One price of one chip-hour; `basis` is None for a price that the user gave."""

    usd_per_chip_hour: float
    basis: Basis | None
    region: str
    date: str
    source: str
    confidence: Confidence
    note: str = ""

    @property
    def is_assumed(self) -> bool:
        """Tell whether no public and verified price stands behind this one."""
        return self.confidence is Confidence.ASSUMED

    @property
    def label(self) -> str:
        """Write the price in one line, with the word *assumed* where it is."""
        parts = [f"{self.usd_per_chip_hour:.4g} USD per chip-hour", str(self.basis or "given")]
        return ", ".join([*parts, "assumed"] if self.is_assumed else parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """One number that a cost rests on, as a table shows it."""

    name: str
    value: float | bool
    unit: str
    source: str
    confidence: Confidence
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Economics:
    """What the packaged file says about one chip."""

    prices: tuple[Price, ...]
    overhead: Stated | None


def priced_chips() -> tuple[str, ...]:
    """List the chips that have a price, public or assumed."""
    return tuple(sorted(_economics()))


def prices(chip_name: str) -> tuple[Price, ...]:
    """Return the prices of a built-in chip, the default one first; none for any other."""
    known = _economics().get(chip_name)
    return known.prices if known else ()


def price_of(chip: Chip, basis: Basis | None = None) -> Price:
    """Return a chip's price on a basis, or its default one; a what-if costs what its base does.

    Raises: ConfigError listing what there is if the chip has no price, or none on this basis.
    """
    rows = prices(chip.base)
    if not rows:
        known = ", ".join(priced_chips())
        hint = f"give a price; there is one for {known}"
        raise ConfigError(f"is not known for {chip.name}", where="usd_per_chip_hour", hint=hint)
    by_basis = {row.basis: row for row in rows}
    if basis is not None and basis not in by_basis:
        hint = f"it has {', '.join(str(row.basis) for row in rows)}; or give usd_per_chip_hour"
        raise ConfigError(f"{chip.name} has no price of basis {basis}", where="basis", hint=hint)
    row = by_basis[basis] if basis else rows[0]
    if not _is_changed(chip):
        return row
    note = f"the price of {chip.base}, which this chip changes"
    return dataclasses.replace(row, note=f"{note}; {row.note}" if row.note else note)


def overhead_power_ratio(chip: Chip) -> Stated:
    """Return the power of chip, host and network over that of the chip, facility excluded.

    Where a chip's provisioned power is public, that power without its PUE over the TDP; elsewhere
    the median of those chips, assumed.
    """
    public = {
        name: known.overhead for name, known in _economics().items() if known.overhead is not None
    }
    if chip.base in public:
        return public[chip.base]
    return Stated(
        name="overhead_power_ratio",
        value=statistics.median(stated.value for stated in public.values()),
        unit="W/W",
        source=f"Assumption of Asterope: the median of {', '.join(public)}",
        confidence=Confidence.ASSUMED,
    )


def _is_changed(chip: Chip) -> bool:
    return any(origin.confidence is Confidence.WHAT_IF for origin in chip.provenance.values())


@cache
def _economics() -> Mapping[str, _Economics]:
    """Read the packaged file, by the name of the chip."""
    file = resources.files("asterope.cost") / "prices.toml"
    tree = tomllib.loads(file.read_text(encoding="utf-8"))
    sources, facility = tree.pop("sources"), tree.pop("facility")
    pue = facility["pue_in_all_in_power"]
    return {
        name: _Economics(
            prices=tuple(_price(row, sources) for row in table["prices"]),
            overhead=_overhead(name, table.get("all_in_power_w"), pue, sources),
        )
        for name, table in tree.items()
    }


def _price(row: dict[str, Any], sources: Mapping[str, str]) -> Price:
    row["source"] = sources[row["source"]]
    row["basis"], row["confidence"] = Basis(row["basis"]), Confidence(row["confidence"])
    return Price(**row)


def _overhead(
    name: str, all_in: Mapping[str, Any] | None, pue: Mapping[str, Any], sources: Mapping[str, str]
) -> Stated | None:
    tdp_w = chips.get(name).power.tdp_w
    if all_in is None or tdp_w is None:
        return None
    return Stated(
        name="overhead_power_ratio",
        value=all_in["value"] / pue["value"] / tdp_w,
        unit="W/W",
        source=f"{sources[all_in['source']]}; {sources[pue['source']]}",
        confidence=Confidence.DERIVED,
        note=f"{all_in['value']:g} W provisioned, PUE {pue['value']:g} out, over {tdp_w:g} W TDP",
    )

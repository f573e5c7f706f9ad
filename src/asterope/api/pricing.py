"""What chips cost under a user's assumptions; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from asterope.chips import Chip
from asterope.cost import Assumptions, price_of

__all__ = ["Pricing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pricing:
    """State what costs assume. `prices` are US dollars per chip-hour by chip name.

    With `electricity_extra` these prices are without electricity, which is then added.
    """

    assumptions: Assumptions = field(default_factory=Assumptions)
    prices: Mapping[str, float] = field(default_factory=dict)
    electricity_extra: bool = False

    def of(self, chip: Chip) -> Assumptions:
        """Return what the cost of a chip assumes, its own price included.

        Raises: ConfigError if the chip has no price.
        """
        price = self.prices.get(chip.name)
        if price is not None:
            return replace(
                self.assumptions,
                usd_per_chip_hour=price,
                electricity_in_price=not self.electricity_extra,
            )
        if self.assumptions.usd_per_chip_hour is None:
            price_of(chip, self.assumptions.basis)
        return self.assumptions

"""The cost of a step: what a chip, its speed and its power come to under stated assumptions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asterope.chips import Chip, Confidence
from asterope.cost.assumptions import GIVEN, Assumptions, stated
from asterope.cost.limits import check_count, check_number
from asterope.cost.per_token import (
    JOULES_PER_KWH,
    TOKENS_PER_MTOK,
    chip_hours_per_mtok,
    joules_per_token,
    usd_per_mtok,
)
from asterope.cost.prices import Price, Stated, overhead_power_ratio, price_of
from asterope.errors import ConfigError

__all__ = ["Cost", "cost_of_step"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a million tokens cost on one chip, and everything the figure rests on.

    `usd_per_mtok` includes electricity once: within the price, or added where the price has none.
    `electricity_usd_per_mtok` is that share either way.
    """

    chip: str
    profile: str
    num_chips: int
    tokens_per_s: float
    price: Price
    usd_per_mtok: float
    electricity_usd_per_mtok: float
    electricity_in_price: bool
    joules_per_token: float
    chip_hours_per_mtok: float
    stated: tuple[Stated, ...]

    @property
    def usd_per_chip_hour(self) -> float:
        """Return the price of a chip-hour."""
        return self.price.usd_per_chip_hour

    @property
    def kwh_per_mtok(self) -> float:
        """Return the energy of a million tokens."""
        return self.joules_per_token * TOKENS_PER_MTOK / JOULES_PER_KWH

    @property
    def tokens_per_usd(self) -> float:
        """Return the tokens that a dollar buys."""
        return TOKENS_PER_MTOK / self.usd_per_mtok

    @property
    def tokens_per_s_per_usd_hour(self) -> float:
        """Return the speed while serving for each dollar per hour of chips."""
        return self.tokens_per_s / (self.num_chips * self.usd_per_chip_hour)


def cost_of_step(
    chip: Chip,
    *,
    tokens: float,
    step_s: float,
    num_chips: int = 1,
    energy_j: float | None = None,
    assumptions: Assumptions | None = None,
) -> Cost:
    """Price a step that makes `tokens` in `step_s` on `num_chips`, repeated for hours.

    `energy_j` is what those chips drew for it, hosts excluded; without it they draw their TDP.

    Raises: ConfigError naming the field, or saying that the chip has no price or no TDP.
    """
    assumed = assumptions or Assumptions()
    tokens = check_number("tokens", tokens, low=1e-6, high=1e15, hint="of all requests of one step")
    step_s = check_number("step_s", step_s, low=1e-9, high=1e9, hint="seconds of one step")
    num_chips = check_count("num_chips", num_chips, high=10**7)
    price = _price(chip, assumed)
    power = _chip_power(chip, energy_j, step_s * num_chips)
    overhead = _overhead(chip, assumed)
    tokens_per_s = tokens / step_s
    utilisation = assumed.utilisation
    joules = joules_per_token(
        tokens_per_s=tokens_per_s,
        num_chips=num_chips,
        chip_power_w=power.value,
        overhead_power_ratio=overhead.value,
        pue=assumed.pue,
        utilisation=utilisation,
        idle_power_fraction=assumed.idle_power_fraction,
    )
    usd = usd_per_mtok(
        tokens_per_s=tokens_per_s,
        num_chips=num_chips,
        usd_per_chip_hour=price.usd_per_chip_hour,
        utilisation=utilisation,
    )
    electricity = joules * TOKENS_PER_MTOK / JOULES_PER_KWH * assumed.usd_per_kwh
    return Cost(
        chip=chip.name,
        profile=chip.profile,
        num_chips=num_chips,
        tokens_per_s=tokens_per_s,
        price=price,
        usd_per_mtok=usd if assumed.electricity_in_price else usd + electricity,
        electricity_usd_per_mtok=electricity,
        electricity_in_price=assumed.electricity_in_price,
        joules_per_token=joules,
        chip_hours_per_mtok=chip_hours_per_mtok(
            tokens_per_s=tokens_per_s, num_chips=num_chips, utilisation=utilisation
        ),
        stated=(_stated_price(price), power, overhead, *stated(assumed)),
    )


def _price(chip: Chip, assumed: Assumptions) -> Price:
    if assumed.usd_per_chip_hour is None:
        return price_of(chip, assumed.basis)
    return Price(
        usd_per_chip_hour=float(assumed.usd_per_chip_hour),
        basis=assumed.basis,
        region="not stated",
        date="not stated",
        source=GIVEN,
        confidence=Confidence.WHAT_IF,
    )


def _stated_price(price: Price) -> Stated:
    where_when = f"{price.label}, region {price.region}, date {price.date}"
    return Stated(
        name="usd_per_chip_hour",
        value=price.usd_per_chip_hour,
        unit="USD/h",
        source=price.source,
        confidence=price.confidence,
        note=f"{where_when}; {price.note}" if price.note else where_when,
    )


def _chip_power(chip: Chip, energy_j: float | None, chip_seconds: float) -> Stated:
    """Return the mean power of one chip during the step, or its TDP if the energy is not given."""
    if energy_j is not None:
        hint = "joules that the chips of one step draw, hosts excluded"
        power_w = check_number("energy_j", energy_j, low=1e-12, high=1e15, hint=hint) / chip_seconds
        source, confidence = "Energy of the step over its time and chips", Confidence.DERIVED
        return _stated_power(power_w, source, confidence, "")
    if chip.power.tdp_w is None:
        what = f"is not given, and {chip.name} has no TDP to take in its place"
        raise ConfigError(what, where="energy_j")
    origin = chip.provenance["power.tdp_w"]
    note = "the TDP, an upper bound: the energy of the step was not given"
    return _stated_power(chip.power.tdp_w, origin.source, origin.confidence, note)


def _stated_power(power_w: float, source: str, confidence: Confidence, note: str) -> Stated:
    return Stated(
        name="chip_power_w",
        value=power_w,
        unit="W",
        source=source,
        confidence=confidence,
        note=note,
    )


def _overhead(chip: Chip, assumed: Assumptions) -> Stated:
    default = overhead_power_ratio(chip)
    if assumed.overhead_power_ratio is None:
        return default
    return replace(
        default,
        value=assumed.overhead_power_ratio,
        source=GIVEN,
        confidence=Confidence.WHAT_IF,
        note="",
    )

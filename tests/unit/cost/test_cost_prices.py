from __future__ import annotations

import pytest

from asterope import chips, cost
from asterope.chips import Confidence
from asterope.cost import Basis
from asterope.errors import ConfigError

EVERY = [(name, row) for name in cost.priced_chips() for row in cost.prices(name)]
NO_PUBLIC_PRICE = {"maia100", "maia200", "tpu7x", "trainium3"}

# USD per GPU-hour of the SemiAnalysis model: hyperscaler TCO, neocloud TCO, 3-year rental.
SEMIANALYSIS = {
    "h100": (1.30, 1.69, 1.30),
    "h200": (1.41, 1.74, 1.60),
    "b200": (1.95, 2.34, 2.90),
    "mi300x": (1.12, 1.40, 1.55),
    "mi355x": (1.48, 1.90, 2.10),
}
# USD per hour of a rented instance, and its chips.
INSTANCES = {
    "a100": (27.44705, 8),
    "h100": (55.04, 8),
    "h200": (63.296, 8),
    "b200": (113.93, 8),
    "mi300x": (48.0, 8),
    "trainium2": (35.76, 16),
}
ALL_IN_W = {"h100": 1730, "h200": 1730, "b200": 2170, "mi300x": 1790, "mi355x": 2650}


def test_every_built_in_chip_has_a_price() -> None:
    assert cost.priced_chips() == chips.names()


@pytest.mark.parametrize(("name", "row"), EVERY)
def test_no_price_without_place_date_source_and_confidence(name: str, row: cost.Price) -> None:
    assert 0.5 < row.usd_per_chip_hour < 20
    assert row.basis in list(Basis)
    assert row.region
    assert row.date.startswith("202")
    assert len(row.source) > 20
    assert row.confidence in {Confidence.SECONDARY, Confidence.ASSUMED}


@pytest.mark.parametrize("name", cost.priced_chips())
def test_a_chip_has_one_price_for_a_basis(name: str) -> None:
    bases = [row.basis for row in cost.prices(name)]
    assert len(bases) == len(set(bases))


@pytest.mark.parametrize("name", SEMIANALYSIS)
def test_tco_and_rental_prices_are_the_published_model(name: str) -> None:
    chip = chips.get(name)
    bases = (Basis.TCO_HYPERSCALER, Basis.TCO_NEOCLOUD, Basis.RENTAL_3YR)
    rows = [cost.price_of(chip, basis) for basis in bases]
    assert tuple(row.usd_per_chip_hour for row in rows) == SEMIANALYSIS[name]
    assert all(row.source.startswith("SemiAnalysis") for row in rows)
    assert not any(row.is_assumed for row in rows)


@pytest.mark.parametrize("name", INSTANCES)
def test_an_on_demand_price_is_the_instance_over_its_chips(name: str) -> None:
    row = cost.price_of(chips.get(name), Basis.ON_DEMAND)
    usd_per_hour, num_chips = INSTANCES[name]
    assert row.usd_per_chip_hour == pytest.approx(usd_per_hour / num_chips, rel=1e-3)
    assert f"{usd_per_hour:g} USD for {num_chips}"[:5] in row.note


@pytest.mark.parametrize("name", cost.priced_chips())
def test_the_default_is_hyperscaler_tco_where_there_is_one(name: str) -> None:
    rows, default = cost.prices(name), cost.price_of(chips.get(name))
    assert default == rows[0]
    if Basis.TCO_HYPERSCALER in {row.basis for row in rows}:
        assert default.basis is Basis.TCO_HYPERSCALER


@pytest.mark.parametrize("name", cost.priced_chips())
def test_a_price_nobody_published_says_assumed_wherever_it_shows(name: str) -> None:
    for row in cost.prices(name):
        assert row.is_assumed == row.label.endswith(", assumed")
        if name in NO_PUBLIC_PRICE:
            assert row.is_assumed
            assert row.source.startswith("Assumption of Asterope")
            assert row.note.startswith("as the ")


def test_maia200_is_assumed_to_cost_what_a_b200_costs_and_claims_are_not_fitted() -> None:
    maia, b200 = cost.price_of(chips.maia200()), cost.price_of(chips.get("b200"))
    assert maia.usd_per_chip_hour == b200.usd_per_chip_hour
    assert maia.label == "1.95 USD per chip-hour, tco_hyperscaler, assumed"
    assert "+30 %" in maia.note
    assert "not used" in maia.note


def test_a_basis_that_a_chip_lacks_gets_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"^basis: mi355x has no price of basis on_demand") as no:
        cost.price_of(chips.get("mi355x"), Basis.ON_DEMAND)
    assert no.value.hint.startswith("it has tco_hyperscaler, tco_neocloud, rental_3yr; or give")


def test_a_what_if_costs_what_its_base_does_and_says_so() -> None:
    mine = chips.loads_toml('base = "h200"\nname = "mine"\n[hbm]\nefficiency = 0.7\n')
    row = cost.price_of(mine)
    assert row.usd_per_chip_hour == 1.41
    assert row.note == "the price of h200, which this chip changes"
    assert cost.price_of(chips.get("h200")).note == ""
    assert cost.overhead_power_ratio(mine) == cost.overhead_power_ratio(chips.get("h200"))


def test_a_chip_from_nowhere_has_no_price() -> None:
    text = chips.dumps_toml(chips.get("a100")).replace('base = "a100"', "")
    alone = chips.loads_toml(text)
    assert alone.base == ""
    with pytest.raises(ConfigError, match=r"^usd_per_chip_hour: is not known for a100") as caught:
        cost.price_of(alone)
    assert "maia200" in caught.value.hint


@pytest.mark.parametrize("name", ALL_IN_W)
def test_the_tdp_with_overhead_and_the_models_pue_is_the_provisioned_power(name: str) -> None:
    stated = cost.overhead_power_ratio(chips.get(name))
    tdp_w = chips.get(name).power.tdp_w
    assert tdp_w is not None
    assert stated.value * 1.25 * tdp_w == pytest.approx(ALL_IN_W[name])
    assert stated.confidence is Confidence.DERIVED
    assert f"{ALL_IN_W[name]} W provisioned, PUE 1.25 out" in stated.note


@pytest.mark.parametrize("name", sorted(set(cost.priced_chips()) - set(ALL_IN_W)))
def test_an_overhead_nobody_published_is_the_median_and_assumed(name: str) -> None:
    stated = cost.overhead_power_ratio(chips.get(name))
    assert stated.value == cost.overhead_power_ratio(chips.get("mi300x")).value
    assert stated.confidence is Confidence.ASSUMED
    assert stated.source == (
        "Assumption of Asterope: the median of b200, h100, h200, mi300x, mi355x"
    )

from __future__ import annotations

import dataclasses

import pytest

from asterope import chips, cost
from asterope.chips import Confidence
from asterope.cost import Assumptions, Basis
from asterope.errors import ConfigError

GIVEN = {
    "electricity_in_price": False,
    "usd_per_kwh": 0.05,
    "pue": 1.3,
    "utilisation": 0.9,
    "idle_power_fraction": 0.1,
    "overhead_power_ratio": 1.5,
    "usd_per_chip_hour": 3.0,
}


def _stated(assumptions: Assumptions | None) -> dict[str, cost.Stated]:
    result = cost.cost_of_step(chips.maia200(), tokens=1, step_s=1e-3, assumptions=assumptions)
    return {row.name: row for row in result.stated}


def test_every_number_a_cost_rests_on_has_unit_and_source() -> None:
    rows = _stated(None)
    fields = {field.name for field in dataclasses.fields(Assumptions)} - {"basis"}
    assert set(rows) == fields | {"chip_power_w"}
    for row in rows.values():
        assert row.unit, row.name
        assert len(row.source) > 20, row.name
        assert row.confidence in set(Confidence), row.name


def test_what_no_source_gives_says_assumed() -> None:
    rows = _stated(None)
    for name in ("usd_per_chip_hour", "utilisation", "idle_power_fraction"):
        assert rows[name].confidence is Confidence.ASSUMED, name
    for row in rows.values():
        if row.source.startswith("Assumption of Asterope"):
            assert row.confidence is Confidence.ASSUMED, row.name


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_an_overridden_number_is_labelled_given(name: str) -> None:
    assumptions = Assumptions(**{name: GIVEN[name]} | {"usd_per_chip_hour": 3.0})  # type: ignore[arg-type]
    row = _stated(assumptions)[name]
    assert row.value == GIVEN[name]
    assert row.source == "Given by the user"
    assert row.confidence is Confidence.WHAT_IF


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("usd_per_chip_hour", 0, "0 is not from 1e-06 to 1e+06"),
        ("usd_per_chip_hour", float("nan"), "nan is not from 1e-06 to 1e+06"),
        ("usd_per_chip_hour", "3", "'3' is not a number"),
        ("usd_per_kwh", -0.01, "-0.01 is not from 0 to 100"),
        ("usd_per_kwh", float("inf"), "inf is not from 0 to 100"),
        ("pue", 0.9, "0.9 is not from 1 to 5"),
        ("utilisation", 60, "60 is not from 0.001 to 1"),
        ("utilisation", 0, "0 is not from 0.001 to 1"),
        ("utilisation", True, "True is not a number"),
        ("utilisation", 10**400, "1000.*000 is not from 0.001 to 1"),
        ("idle_power_fraction", 1.1, "1.1 is not from 0 to 1"),
        ("overhead_power_ratio", 0.5, "0.5 is not from 1 to 20"),
        ("electricity_in_price", 1, "1 is neither True nor False"),
    ],
)
def test_a_number_outside_its_limits_is_named_with_them(
    name: str, value: object, limits: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: {limits}".replace("+", r"\+")):
        Assumptions(**{name: value})  # type: ignore[arg-type]


def test_a_percentage_gets_the_hint_that_it_is_a_fraction() -> None:
    with pytest.raises(ConfigError) as caught:
        Assumptions(utilisation=60)
    assert caught.value.hint == "a fraction of the paid hours: 0.6, not 60"


def test_a_basis_may_be_written_as_text_and_a_misspelt_one_is_corrected() -> None:
    assert Assumptions(basis="rental_3yr").basis is Basis.RENTAL_3YR  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^basis: 'rental_3y' is not a price basis") as caught:
        Assumptions(basis="rental_3y")  # type: ignore[arg-type]
    assert caught.value.hint.startswith("did you mean 'rental_3yr'? the bases are tco_hyperscaler")


def test_electricity_is_never_added_to_a_price_that_includes_it() -> None:
    with pytest.raises(ConfigError, match=r"^electricity_in_price: False needs a price") as caught:
        Assumptions(electricity_in_price=False)
    assert caught.value.hint == "give usd_per_chip_hour too"

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope import chips, cost
from asterope.cost import Assumptions, Cost
from asterope.errors import ConfigError

WHOLE_HOURS = Assumptions(utilisation=1.0)
speeds = st.floats(1e-3, 1e9)
prices = st.floats(1e-3, 1e3)
counts = st.integers(1, 10_000)
fractions = st.floats(0.01, 1.0)


def _cost(name: str, assumptions: Assumptions | None = None, **step: float) -> Cost:
    step = {"tokens": 1000, "step_s": 1.0} | step
    return cost.cost_of_step(chips.get(name), assumptions=assumptions, **step)  # type: ignore[arg-type]


def test_a_million_tokens_cost_the_chip_hours_they_take() -> None:
    """By hand: 1,000 tokens/s are 3.6 Mtok/h, at 1.30 USD/h and no idle hours."""
    assert _cost("h100", WHOLE_HOURS).usd_per_mtok == pytest.approx(1.30 / 3.6)
    half = Assumptions(utilisation=0.5)
    assert _cost("h100", half).usd_per_mtok == pytest.approx(2 * 1.30 / 3.6)
    assert _cost("h100", WHOLE_HOURS, num_chips=8).usd_per_mtok == pytest.approx(8 * 1.30 / 3.6)


@pytest.mark.parametrize(("name", "all_in_w"), [("h100", 1730), ("b200", 2170), ("mi355x", 2650)])
def test_at_full_load_and_its_pue_a_token_takes_the_provisioned_power(
    name: str, all_in_w: float
) -> None:
    """InferenceX: joules per token are the all-in watts over the tokens per second."""
    result = _cost(name, Assumptions(utilisation=1.0, pue=1.25))
    assert result.joules_per_token == pytest.approx(all_in_w / 1000)
    assert result.kwh_per_mtok == pytest.approx(all_in_w / 1000 / 3.6)


def test_power_reaches_the_token_through_host_facility_and_idle_hours() -> None:
    """By hand: 200 W x 1.5 x 1.2 = 360 W serving; half the hours at 0.25 of it: 450 J/s served."""
    joules = cost.joules_per_token(
        tokens_per_s=90.0,
        num_chips=2,
        chip_power_w=200.0,
        overhead_power_ratio=1.5,
        pue=1.2,
        utilisation=0.5,
        idle_power_fraction=0.25,
    )
    assert joules == pytest.approx(2 * 450 / 90)


def test_the_energy_of_a_step_gives_the_chips_their_power() -> None:
    result = _cost("maia200", tokens=64, step_s=0.02, num_chips=4, energy_j=24.0)
    power = next(row for row in result.stated if row.name == "chip_power_w")
    assert power.value == pytest.approx(300)
    assert power.confidence is chips.Confidence.DERIVED


def test_without_the_energy_of_a_step_the_chips_draw_their_tdp_and_say_so() -> None:
    power = next(row for row in _cost("maia200").stated if row.name == "chip_power_w")
    assert power.value == 750
    assert power.note == "the TDP, an upper bound: the energy of the step was not given"
    assert power.confidence is chips.Confidence.PUBLISHED
    with_energy = _cost("maia200", energy_j=400.0)
    assert with_energy.joules_per_token < _cost("maia200").joules_per_token
    assert with_energy.usd_per_mtok == _cost("maia200").usd_per_mtok


def test_a_chip_without_a_tdp_needs_the_energy_of_the_step() -> None:
    text = chips.dumps_toml(chips.get("h100")).replace('base = "h100"\n', "")
    kept = [line for line in text.splitlines() if not line.startswith("tdp_w")]
    alone = chips.loads_toml("\n".join(kept))
    price = Assumptions(usd_per_chip_hour=1.0)
    with pytest.raises(ConfigError, match=r"^energy_j: is not given, and h100 has no TDP"):
        cost.cost_of_step(alone, tokens=1, step_s=1e-3, assumptions=price)
    cost.cost_of_step(alone, tokens=1, step_s=1e-3, energy_j=0.5, assumptions=price)


def test_electricity_is_reported_within_the_price_and_added_only_when_asked() -> None:
    within = _cost("h100", Assumptions(usd_per_chip_hour=1.0))
    added = _cost("h100", Assumptions(usd_per_chip_hour=1.0, electricity_in_price=False))
    assert within.electricity_usd_per_mtok == added.electricity_usd_per_mtok > 0
    assert within.electricity_usd_per_mtok == pytest.approx(within.kwh_per_mtok * 0.083)
    assert added.usd_per_mtok == pytest.approx(
        within.usd_per_mtok + within.electricity_usd_per_mtok
    )


@pytest.mark.parametrize("name", ["h100", "h200", "b200", "mi300x", "mi355x"])
def test_electricity_is_less_than_the_published_fifth_of_a_tco(name: str) -> None:
    """InferenceMAX (2025-10): rent and electricity are less than 20 % of the cost of ownership."""
    result = _cost(name, WHOLE_HOURS)
    assert 0.05 < result.electricity_usd_per_mtok / result.usd_per_mtok < 0.20


def test_the_ways_to_say_a_cost_agree() -> None:
    result = _cost("b200", num_chips=8, tokens=500, step_s=0.05)
    assert result.tokens_per_s == 10_000
    assert result.usd_per_chip_hour == 1.95
    assert result.tokens_per_usd * result.usd_per_mtok == pytest.approx(1e6)
    assert result.tokens_per_s_per_usd_hour == pytest.approx(10_000 / (8 * 1.95))
    assert result.chip_hours_per_mtok * 1.95 == pytest.approx(result.usd_per_mtok)


@settings(derandomize=True, deadline=None)
@given(a=speeds, b=speeds, price=prices, num_a=counts, num_b=counts, utilisation=fractions)
def test_at_the_break_even_price_two_chips_tie(
    a: float, b: float, price: float, num_a: int, num_b: int, utilisation: float
) -> None:
    mine = _cost("maia200", Assumptions(utilisation=utilisation), tokens=a, num_chips=num_a)
    other = _cost("b200", Assumptions(usd_per_chip_hour=price), tokens=b, num_chips=num_b)
    tie = cost.break_even_usd_per_chip_hour(mine, other)
    if 1e-6 <= tie <= 1e6:
        at_tie = Assumptions(utilisation=utilisation, usd_per_chip_hour=tie)
        tied = _cost("maia200", at_tie, tokens=a, num_chips=num_a)
        assert tied.usd_per_mtok == pytest.approx(other.usd_per_mtok)
    assert tie > 0


def test_at_the_break_even_price_electricity_is_counted_on_both_sides() -> None:
    apart = {"electricity_in_price": False, "usd_per_chip_hour": 5.0}
    mine, other = _cost("maia200", Assumptions(**apart)), _cost("h200")  # type: ignore[arg-type]
    tie = cost.break_even_usd_per_chip_hour(mine, other)
    tied = _cost("maia200", Assumptions(**apart | {"usd_per_chip_hour": tie}))  # type: ignore[arg-type]
    assert tied.usd_per_mtok == pytest.approx(other.usd_per_mtok)
    cheap = _cost("h200", Assumptions(usd_per_chip_hour=0.01))
    assert cost.break_even_usd_per_chip_hour(mine, cheap) < 0
    assert list(cost.explain(mine, cheap))[-1].endswith("at no price")


@settings(derandomize=True, deadline=None)
@given(speed=speeds, price=prices, num_chips=counts, utilisation=fractions)
def test_twice_the_speed_is_half_the_cost_and_twice_the_chips_is_twice(
    speed: float, price: float, num_chips: int, utilisation: float
) -> None:
    def usd(speed: float, num_chips: int) -> float:
        return cost.usd_per_mtok(
            tokens_per_s=speed,
            num_chips=num_chips,
            usd_per_chip_hour=price,
            utilisation=utilisation,
        )

    assert usd(2 * speed, num_chips) == pytest.approx(usd(speed, num_chips) / 2)
    assert usd(speed, 2 * num_chips) == pytest.approx(usd(speed, num_chips) * 2)


def test_an_assumed_price_is_explained_with_the_price_at_which_it_would_tie() -> None:
    mine = _cost("maia200", tokens=1500)
    lines = list(cost.explain(mine, _cost("b200"), _cost("a100")))
    assert lines[0] == (
        "maia200: 0.6019 USD and 0.356 kWh per million tokens at 1,500.0 tokens/s on 1 chip"
    )
    assert lines[1].startswith(
        "maia200: 1.95 USD per chip-hour, tco_hyperscaler, assumed: Assumption of Asterope: no"
    )
    assert "only Microsoft has the chip" in lines[1]
    assert lines[2] == "maia200: electricity is 0.0296 USD of it, within the price"
    assert lines[3] == (
        "maia200 ties with b200 (1.95 USD per chip-hour, tco_hyperscaler)"
        " at 2.925 USD per chip-hour"
    )
    assert lines[4] == (
        "maia200 ties with a100 (3.431 USD per chip-hour, on_demand)"
        " at 5.146 USD per chip-hour; the two prices are of different bases"
    )


def test_numbers_of_the_simulator_are_taken_as_they_come() -> None:
    numpy_step = {"tokens": np.int64(64), "step_s": np.float32(0.5), "num_chips": np.int32(2)}
    result = _cost("h100", **numpy_step)
    assert result == _cost("h100", tokens=64, step_s=0.5, num_chips=2)
    assert type(result.num_chips) is int


def test_a_given_price_replaces_the_packaged_one_and_keeps_the_basis_it_is_given() -> None:
    result = _cost("maia200", Assumptions(usd_per_chip_hour=1.2))
    assert result.price.label == "1.2 USD per chip-hour, given"
    named = _cost("maia200", Assumptions(usd_per_chip_hour=1.2, basis=cost.Basis.ON_DEMAND))
    assert named.price.label == "1.2 USD per chip-hour, on_demand"
    assert not named.price.is_assumed


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"tokens": 0}, "tokens: 0 is not from 1e-06 to 1e\\+15"),
        ({"step_s": -1.0}, "step_s: -1.0 is not from 1e-09 to 1e\\+09"),
        ({"step_s": float("nan")}, "step_s: nan is not from"),
        ({"num_chips": 0}, "num_chips: 0 is not a whole number from 1 to 10000000"),
        ({"num_chips": 1.5}, "num_chips: 1.5 is not a whole number"),
        ({"num_chips": True}, "num_chips: True is not a whole number"),
        ({"energy_j": 0.0}, "energy_j: 0.0 is not from"),
        ({"energy_j": 1e9}, "chip_power_w: 1000000000.0 is not from 0.001 to 1e\\+06"),
    ],
)
def test_a_step_outside_its_limits_is_named_with_them(step: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        _cost("h100", **step)


def test_the_door_is_sorted_and_every_name_is_there() -> None:
    assert cost.__all__ == sorted(cost.__all__)
    assert all(hasattr(cost, name) for name in cost.__all__)

"""Fronts of sums against all sums, and budgets as people write them."""

from __future__ import annotations

import itertools
import random

import pytest

from asterope.errors import ConfigError
from asterope.quant import Budget, pareto_front, parse_budget
from asterope.quant import front as module


def drawn(seed, places, choices, *, ties=False):
    """Costs and losses of some places; with ties they are small whole numbers."""
    generator = random.Random(seed)
    draw = (lambda: float(generator.randint(0, 3))) if ties else generator.random
    return tuple(
        [[draw() for _ in range(choices)] for _ in range(places)] for _ in ("costs", "losses")
    )


def all_sums(costs, losses):
    """The slow, obvious definition: every choice, and those that none beats."""
    sums = [
        (sum(c[p] for c, p in zip(costs, picks, strict=True)),
         sum(x[p] for x, p in zip(losses, picks, strict=True)))
        for picks in itertools.product(*(range(len(c)) for c in costs))
    ]  # fmt: skip
    return sorted(
        {a for a in sums if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in sums)}
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_front_is_what_no_choice_beats(seed, ties):
    costs, losses = drawn(seed, 5, 3, ties=ties)
    found = pareto_front(costs, losses)
    expected = all_sums(costs, losses)
    assert [(p.cost, p.loss) for p in found] == [pytest.approx(pair) for pair in expected]
    for point in found:
        at = list(zip(point.picks, costs, losses, strict=True))
        assert point.cost == pytest.approx(sum(c[p] for p, c, _ in at))
        assert point.loss == pytest.approx(sum(x[p] for p, _, x in at))


def test_a_thinned_front_is_near_the_exact_one(monkeypatch):
    costs, noise = drawn(7, 12, 3)
    losses = [[(1 - x) ** 2 + 0.1 * n for x, n in zip(*pair, strict=True)]
              for pair in zip(costs, noise, strict=True)]  # fmt: skip
    exact = pareto_front(costs, losses)
    monkeypatch.setattr(module, "MAX_POINTS", 50)
    thin = pareto_front(costs, losses)
    assert len(thin) <= 50 < len(exact)
    reach = exact[-1].cost - exact[0].cost
    for point in thin:
        best = min(p.loss for p in exact if p.cost <= point.cost)
        near = min(p.loss for p in exact if p.cost <= point.cost - 0.1 * reach or p is exact[0])
        assert best <= point.loss + 1e-12
        assert point.loss <= near + 1e-12
    assert thin[0].cost == exact[0].cost
    assert thin[-1].loss == pytest.approx(exact[-1].loss)


def test_places_without_a_choice_to_make_change_nothing():
    assert pareto_front([], [])[0].picks == ()
    [only] = pareto_front([[2.0], [3.0]], [[0.5], [0.25]])
    assert (only.cost, only.loss, only.picks) == (5.0, 0.75, (0, 0))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("ppl<1.02x", Budget(measure="ppl", limit=1.02, is_relative=True)),
        (" PPL <= 18 ", Budget(measure="ppl", limit=18.0, is_relative=False)),
        ("kl<1e-2", Budget(measure="kl", limit=0.01, is_relative=False)),
        ("bytes<6GB", Budget(measure="bytes", limit=6e9, is_relative=False)),
        ("time<5ms", Budget(measure="time", limit=5e-3, is_relative=False)),
        ("time<0.6x", Budget(measure="time", limit=0.6, is_relative=True)),
        ("tokens/s>1.5x", Budget(measure="tokens/s", limit=1.5, is_relative=True)),
    ],
)
def test_budgets_are_read(text, budget):
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


def test_a_budget_allows_what_is_below_it_or_faster():
    assert parse_budget("ppl<1.02x").allows(10.1, 10.0)
    assert not parse_budget("ppl<1.02x").allows(10.2, 10.0)
    assert parse_budget("tokens/s>1000").allows(1001, 1.0)
    assert not parse_budget("tokens/s>2x").allows(1001, 900)


@pytest.mark.parametrize(
    "text",
    ["", "ppl", "ppl<x", "ppl>1.02x", "tokens/s<5", "kl<2x", "bytes<5ms", "time<5", "loss<1",
     "ppl<0", "ppl<1.2.3", "ppl<1e999999x<"],
)  # fmt: skip
def test_what_is_no_budget_is_refused_with_what_is_one(text):
    with pytest.raises(ConfigError) as caught:
        parse_budget(text)
    assert "ppl<1.02x" in caught.value.hint

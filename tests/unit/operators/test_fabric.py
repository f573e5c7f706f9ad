"""Collectives on Maia 200's trays and switches: bounds, ways by size, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterope import chips, operators
from asterope.errors import ChipError, ConfigError
from asterope.operators import COLLECTIVES, collective

MAIA = chips.maia200()
GROUPS = (2, 3, 4, 8, 12, 48, 96, 6144)
names = st.sampled_from(sorted(COLLECTIVES))
groups = st.sampled_from(GROUPS)
sizes = st.floats(1, 1e11)


@given(names, groups, sizes)
def test_no_collective_is_faster_than_the_links_of_a_chip_and_one_way(name, joined, num_bytes):
    found = collective(MAIA, name, num_bytes, joined)
    net = MAIA.network
    sent = COLLECTIVES[name](joined) * num_bytes
    way_s = net.fixed_link_latency_s if joined <= net.tray_chips else net.one_way_latency_s
    assert found.time_s > max(sent / net.per_direction_bytes_per_s, way_s)
    assert found.time_s == pytest.approx(sum(found.parts.values()))


@given(names, groups, sizes, st.floats(1, 10))
def test_more_bytes_never_take_less_time(name, joined, num_bytes, more):
    before, after = (collective(MAIA, name, b, joined) for b in (num_bytes, num_bytes * more))
    assert after.time_s >= before.time_s


@given(names, st.sampled_from(GROUPS[3:]), sizes)
def test_chips_off_the_rack_are_bound_by_its_uplinks(name, joined, num_bytes):
    slower = chips.replace(MAIA, {"network.off_rack_bytes_per_s": 1e9})
    times = [collective(chip, name, num_bytes, joined).time_s for chip in (MAIA, slower)]
    assert times[0] == times[1] if joined <= MAIA.network.rack_chips else times[0] < times[1]


@given(groups, sizes)
def test_a_sum_takes_no_longer_than_its_halves_one_after_the_other(joined, num_bytes):
    halves = (collective(MAIA, n, num_bytes, joined) for n in ("reduce_scatter", "all_gather"))
    whole = collective(MAIA, "all_reduce", num_bytes, joined)
    assert whole.time_s <= sum(half.time_s for half in halves)


def test_small_ones_are_broadcast_medium_hierarchical_and_large_go_in_rings():
    ways = [
        collective(MAIA, "all_gather", num_bytes, 8).mapping.removeprefix("2 trays of 4, ")
        for num_bytes in (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
    ]
    assert [way for way, _ in itertools.groupby(ways)] == ["broadcast", "hierarchical", "ring"]


def test_a_large_gather_fills_the_links_but_for_headers():
    net = MAIA.network
    share = net.packet_bytes / (net.packet_bytes + net.packet_overhead_bytes)
    for joined in (4, 8, 48):
        found = collective(MAIA, "all_gather", 1e13, joined)
        links_s = COLLECTIVES["all_gather"](joined) * 1e13 / (share * net.per_direction_bytes_per_s)
        assert found.time_s == pytest.approx(links_s, rel=1e-4)


def test_two_chips_of_a_tray_have_one_fixed_link_and_the_switch():
    net = MAIA.network
    found = collective(MAIA, "all_gather", 2e12, 2)
    assert found.mapping == "2 of a tray, ring"
    share = net.packet_bytes / (net.packet_bytes + net.packet_overhead_bytes)
    rate = (net.fixed_ew_bytes_per_s + net.switched_bytes_per_s) * share
    assert found.parts["links"] == pytest.approx(1e12 / rate)


@pytest.mark.parametrize("joined", [1, 5, 6148])
def test_chips_that_are_no_whole_trays_are_refused(joined):
    with pytest.raises(ConfigError) as raised:
        collective(MAIA, "all_reduce", 1e6, joined)
    assert str(joined) in raised.value.what
    assert raised.value.where == "chips"


def test_a_fabric_without_its_links_is_refused():
    with pytest.raises(ChipError):
        operators.collective(chips.get("maia100"), "all_reduce", 1e6, 4)

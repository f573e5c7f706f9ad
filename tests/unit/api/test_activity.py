"""Busy shares over time: what engines did, slice by slice, adds up to what they did in all."""

from __future__ import annotations

import dataclasses

import pytest

from asterope.api.activity import activity_of_engines, activity_of_resources
from asterope.runtime import TimedLaunch
from asterope.sim import Event
from sim_programs import FIXED, PLAIN, simulated


def timed(start_ps, result):
    return TimedLaunch(name="k", grid=(1, 1, 1), start_ps=start_ps, result=result)


@pytest.fixture(scope="module")
def launches():
    first, second = (simulated(p, PLAIN, 75, 6) for p in FIXED[:2])
    return [timed(0, first), timed(first.time_ps, second)]


def mean(shares):
    return sum(shares) / len(shares)


def test_the_mean_over_time_is_the_occupancy_of_the_launches(launches):
    found = activity_of_resources(launches)
    total = sum(x.result.time_ps for x in launches)
    assert found.time_s == pytest.approx(total / 1e12)
    for name, shares in found.busy.items():
        busy = sum(x.result.occupancy[name] * x.result.time_ps for x in launches)
        assert mean(shares) == pytest.approx(busy / total)


@pytest.mark.parametrize("engine", ["tensor", "vector"])
def test_engines_that_do_one_thing_at_a_time_are_as_busy_as_counted(launches, engine):
    shares = activity_of_engines(launches, PLAIN.num_tiles).busy[engine]
    busy = sum(x.result.occupancy[engine] * x.result.time_ps for x in launches)
    assert mean(shares) == pytest.approx(busy / sum(x.result.time_ps for x in launches))
    assert all(0 <= share <= 1 for share in shares)


def event(start, end, tile=0, number=0):
    return Event(tile=tile, engine="load", label="", loc="", number=number, start_ps=start,
                 end_ps=end, bytes=0, waits=())  # fmt: skip


def test_transfers_that_overlap_are_busy_once(launches):
    spans = [event(0, 800), event(100, 500), event(1200, 1600), event(1600, 2000)]
    result = dataclasses.replace(
        launches[0].result, events=tuple(spans), time_ps=3200, instructions=4
    )
    shares = activity_of_engines([timed(0, result)], num_tiles=1).busy["load"]
    assert mean(shares) == pytest.approx(1600 / 3200)
    assert shares[:40] == (1.0,) * 40
    assert shares[45:55] == (0.0,) * 10


def test_what_comes_after_the_kept_events_is_not_known(launches):
    result = launches[0].result
    few = dataclasses.replace(result, events=result.events[: len(result.events) // 2])
    shares = activity_of_engines([timed(0, few)], PLAIN.num_tiles).busy["load"]
    known = [share is not None for share in shares]
    assert known == sorted(known, reverse=True)
    assert 0 < sum(known) < len(known)


def test_without_events_or_time_there_is_nothing_to_show(launches):
    bare = dataclasses.replace(launches[0].result, events=())
    assert activity_of_engines([timed(0, bare)], 4) is None
    assert activity_of_engines([], 4) is None
    assert activity_of_resources([]) is None

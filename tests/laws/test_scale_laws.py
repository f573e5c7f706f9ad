"""Law 2: a chip whose rates are all k times as high and whose latencies are 1/k takes 1/k the time.

Rates on the die and latencies are in cycles, so that the clock, the launch overhead, and the
bandwidth and times of HBM are all there is to scale. The engine counts whole picoseconds: where
every duration is a whole number of them at both speeds the law is exact; elsewhere each duration is
up to one too long, and where that changes who is served first, or by whom, nothing is said.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_time_laws import GRIDS, QUICK, STEPS, THOROUGH

from asterope import chips
from sim_programs import changed, programs, simulated, what_ifs

SCALES = st.sampled_from([2, 4, 8])
_POWERS = (64, 1024, 1 << 14)
# Of a chip of the slowest clock a picosecond is 1e-6 of a cycle.
_SLOW_HZ = 1e6


def dyadic_chips():
    """Chips whose cycle is 2^20 ps, and whose rates are powers of two: durations are whole."""
    rates = st.sampled_from(_POWERS)
    return st.fixed_dictionaries({
        "clock_hz": st.just(1e12 / 2**20),
        "hbm.bandwidth_bytes_per_s": st.sampled_from([1e12 / 2**n for n in (4, 8, 12)]),
        "hbm.efficiency": st.sampled_from([1.0, 0.5]),
        "hbm.latency_cycles": st.sampled_from([0, 700]),
        "hbm.access.activate_s": st.just(0.0),
        "hbm.access.turnaround_s": st.just(0.0),
        "hbm.access.reads_in_flight_bytes": st.sampled_from([1 << 18, 1 << 21]),
        "cluster.csram_bytes": st.sampled_from([4096, 65536, 36_700_160]),
        "cluster.csram_bytes_per_cycle": rates,
        "noc.global_bytes_per_cycle": rates,
        "tile.dma.ingest_bytes_per_cycle": rates,
        "tile.dma.egress_bytes_per_cycle": rates,
        "tile.tsram.read_bytes_per_cycle": rates,
        "tile.tsram.write_bytes_per_cycle": rates,
        "tile.dma.channels": st.sampled_from([1, 8]),
        "tile.control.queue_depth": st.sampled_from([2, 32]),
        "tiles_per_cluster": st.sampled_from([1, 9]),
        "launch_overhead_s": st.sampled_from([0.0, 2**30 * 1e-12]),
        "power.tdp_w": st.just(1e9),
    }).map(lambda figures: chips.replace(chips.maia200(), figures))  # fmt: skip


def scaled(chip, k):
    """Make everything of a chip k times as fast."""
    access = chip.hbm.access
    faster = changed(
        chip, clock_hz=k * chip.clock_hz, launch_overhead_s=chip.launch_overhead_s / k,
        hbm__bandwidth_bytes_per_s=k * chip.hbm.bandwidth_bytes_per_s,
        hbm__access__activate_s=access.activate_s / k,
        hbm__access__turnaround_s=access.turnaround_s / k,
    )  # fmt: skip
    # These follow the bandwidth, but latency is shorter by as much.
    return changed(faster, hbm__access__reads_in_flight_bytes=access.reads_in_flight_bytes)


def assert_same_work(slow, fast):
    for name in ("bytes", "flop", "vector_ops", "instructions", "asked_bytes", "tsram_bytes"):
        assert getattr(slow, name) == getattr(fast, name), name
    for part in slow.energy_parts_j.keys() - {"leakage", "clock"}:
        assert slow.energy_parts_j[part] == pytest.approx(fast.energy_parts_j[part], rel=1e-12)


def check_exact(program, chip, grid, steps, k):
    slow = simulated(program, chip, grid, steps)
    fast = simulated(program, scaled(chip, k), grid, steps)
    assert slow.time_ps == k * fast.time_ps
    assert slow.breakdown_ps == {name: k * ps for name, ps in fast.breakdown_ps.items()}
    assert slow.occupancy == pytest.approx(fast.occupancy)
    assert [(e.start_ps, e.end_ps) for e in slow.events] == [
        (k * e.start_ps, k * e.end_ps) for e in fast.events
    ]
    assert_same_work(slow, fast)
    assert slow.energy_parts_j["leakage"] == pytest.approx(k * fast.energy_parts_j["leakage"])
    assert slow.energy_parts_j["clock"] == pytest.approx(fast.energy_parts_j["clock"])


@QUICK
@given(programs(), dyadic_chips(), GRIDS, STEPS, SCALES)
def test_time_scales_exactly_where_durations_are_whole(program, chip, grid, steps, k):
    check_exact(program, chip, grid, steps, k)


@pytest.mark.slow
@THOROUGH
@given(programs(), dyadic_chips(), GRIDS, STEPS, SCALES)
def test_many_times_scale_exactly(program, chip, grid, steps, k):
    check_exact(program, chip, grid, steps, k)


def order_of(result):
    """Which instruction of which tile came after which, over the whole chip."""
    return [(event.tile, event.engine, event.number) for event in result.events]


def check_rounded(program, chip, grid, steps, k):
    factor = _SLOW_HZ / chip.clock_hz
    chip = changed(scaled(chip, factor), power__tdp_w=1e9)
    slow = simulated(program, chip, grid, steps)
    fast = simulated(program, scaled(chip, k), grid, steps)
    assume(order_of(slow) == order_of(fast) and slow.bytes == fast.bytes)
    rounding = 8 * k * (slow.instructions + 1)
    assert abs(slow.time_ps - k * fast.time_ps) <= rounding
    assert_same_work(slow, fast)


@QUICK
@given(programs(), what_ifs(), GRIDS, STEPS, st.sampled_from([1.5, 3.0, 7.0]))
def test_time_scales_up_to_rounding_on_any_chip(program, chip, grid, steps, k):
    check_rounded(program, chip, grid, steps, k)


@pytest.mark.slow
@THOROUGH
@given(programs(), what_ifs(), GRIDS, STEPS, st.sampled_from([1.5, 3.0, 7.0]))
def test_many_times_scale_up_to_rounding(program, chip, grid, steps, k):
    check_rounded(program, chip, grid, steps, k)


@settings(QUICK, max_examples=8)
@given(programs(), dyadic_chips(), st.integers(1, 40), STEPS, SCALES)
def test_rooflines_scale_with_the_chip(program, chip, grid, steps, k):
    slow = simulated(program, chip, grid, steps, fidelity="roofline")
    fast = simulated(program, scaled(chip, k), grid, steps, fidelity="roofline")
    assert abs(slow.time_ps - k * fast.time_ps) <= k

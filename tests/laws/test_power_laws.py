"""Law 2 under a power limit: a launch keeps to the TDP at the highest clock that does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_time_laws import FASTER, GRIDS, QUICK, STEPS, THOROUGH, assert_adds_up, check_launch

from asterope import chips
from asterope.errors import ChipError
from sim_programs import PLAIN, Access, Program, changed, programs, simulated, what_ifs

LIMITS = st.sampled_from([80.0, 120.0, 200.0, 350.0, 750.0])
# Requests that come later may share memory better, with the same bytes moved: SHARING shows 1.06.
_, ANOMALY = FASTER["clock_hz"]
SHARING = Program(
    shape=(8, 8), num_stages=2,
    loads=tuple(Access("x0", 0, 0, per_step, 0, 1) for per_step in (0, 0, 64)),
)  # fmt: skip
CROWDED = changed(
    chips.maia200(), clock_hz=1.7e9, launch_overhead_s=0.0, clusters=1, noc__hop_cycles=0,
    noc__multicast=False, noc__global_bytes_per_cycle=64, cluster__csram_bytes=512,
    cluster__csram_bytes_per_cycle=64, hbm__bandwidth_bytes_per_s=1e11,
    hbm__access__reads_in_flight_bytes=1000, hbm__access__write_batch_bytes=1,
    hbm__access__turnaround_s=1e-6, tile__control__queue_depth=1, tile__control__kernel_cycles=0,
    tile__control__issue_cycles=0, tile__dma__latency_cycles=0, tile__dma__channels=8,
    tile__dma__ingest_bytes_per_cycle=16, tile__dma__egress_bytes_per_cycle=16,
    tile__vector__startup_cycles=16, tile__tensor__startup_cycles=0,
)  # fmt: skip
HARD = Program("bf16", (128, 128), (Access("x0", 0, 4096, 0, 128),), work=("dot",) * 8)


def check_limit(program, chip, grid, steps, tdp_w):
    """Hold a launch under a limit against the same launch without one."""
    free = simulated(program, changed(chip, power__tdp_w=1e9), grid, steps)
    chip = changed(chip, power__tdp_w=tdp_w)
    capped = simulated(program, chip, grid, steps)
    assert not free.is_throttled
    if free.power_w is None or free.power_w <= tdp_w:
        assert repr(capped) == repr(free)
        return
    assert_adds_up(capped, chip)
    assert capped.is_throttled
    assert ANOMALY * capped.time_ps >= free.time_ps
    assert capped.throttled_ps == capped.time_ps - free.time_ps
    assert 0.98 * tdp_w <= capped.power_w <= tdp_w
    for name in ("asked_bytes", "flop", "vector_ops", "instructions", "roofline_ps"):
        assert getattr(capped, name) == getattr(free, name)


@QUICK
@given(programs(), what_ifs(), GRIDS, STEPS, LIMITS)
def test_a_launch_keeps_to_the_tdp_and_below_it_nothing_changes(program, chip, grid, steps, tdp_w):
    check_limit(program, chip, grid, steps, tdp_w)


@pytest.mark.slow
@THOROUGH
@given(programs(), what_ifs(), GRIDS, STEPS, LIMITS)
def test_many_launches_keep_to_the_tdp(program, chip, grid, steps, tdp_w):
    check_limit(program, chip, grid, steps, tdp_w)


@settings(QUICK, max_examples=6)
@given(programs(), what_ifs(), st.integers(1, 60), STEPS)
def test_a_throttled_launch_keeps_the_laws_of_time(program, chip, grid, steps):
    check_launch(program, changed(chip, power__tdp_w=100.0), grid, steps)


def test_a_launch_that_a_lower_clock_speeds_up_stays_within_the_stated_bound():
    check_limit(SHARING, CROWDED, 20, 7, 80.0)
    free = simulated(SHARING, changed(CROWDED, power__tdp_w=1e9), 20, 7)
    capped = simulated(SHARING, changed(CROWDED, power__tdp_w=80.0), 20, 7)
    assert capped.time_ps < free.time_ps
    assert capped.throttled_ps < 0


def test_a_lower_limit_is_never_faster():
    times = [
        simulated(HARD, changed(chips.maia200(), power__tdp_w=tdp_w), 72, 20, max_events=0).time_ps
        for tdp_w in (750.0, 400.0, 300.0, 200.0, 100.0)
    ]
    assert times == sorted(times)
    assert times[-1] > 2 * times[0]


def test_memory_is_not_slowed_by_a_lower_clock_where_it_alone_binds():
    copy = Program("fp32", (64, 64), (Access("x0", 0, 1 << 16, 4096, 64),))
    chip = changed(
        chips.maia200(), hbm__latency_cycles=0, tile__dma__channels=64,
        tile__control__kernel_cycles=0,
    )  # fmt: skip
    free = simulated(copy, chip, 72, 20, max_events=0)
    capped = simulated(copy, changed(chip, power__tdp_w=0.9 * free.power_w), 72, 20, max_events=0)
    assert free.bound_by == capped.bound_by == "hbm"
    assert capped.clock_share < 0.95
    assert capped.time_ps < 1.02 * free.time_ps


def test_without_a_voltage_curve_energy_on_the_die_stays_and_without_a_tdp_there_is_no_limit():
    chip = changed(
        PLAIN, power__tdp_w=120.0, power__scaling__least_voltage=1.0,
        power__scaling__least_voltage_clock=1.0,
    )  # fmt: skip
    free = simulated(HARD, changed(chip, power__tdp_w=1e9), 72, 20, max_events=0)
    capped = simulated(HARD, chip, 72, 20, max_events=0)
    assert capped.is_throttled
    assert capped.energy_parts_j["tensor"] == free.energy_parts_j["tensor"]
    deeper = changed(
        chip, power__scaling__least_voltage=0.7, power__scaling__least_voltage_clock=0.5
    )
    assert simulated(HARD, deeper, 72, 20, max_events=0).time_ps < capped.time_ps


@settings(QUICK, max_examples=8)
@given(programs(), what_ifs(), GRIDS, STEPS, st.sampled_from([0.3, 0.6, 0.9]))
def test_a_deployment_may_set_a_lower_clock(program, chip, grid, steps, share):
    full = simulated(program, changed(chip, power__tdp_w=1e9), grid, steps)
    chip = changed(chip, power__tdp_w=1e9, power__scaling__set_clock=share)
    check_launch(program, chip, grid, steps)
    slower = simulated(program, chip, grid, steps)
    assert (slower.clock_share, slower.is_throttled, slower.throttled_ps) == (share, False, 0)
    assert ANOMALY * slower.time_ps >= full.time_ps
    assert slower.power_w is None or slower.power_w <= full.power_w
    hotter = changed(chip, power__tdp_w=80.0)
    capped = simulated(program, hotter, grid, steps)
    assert capped.clock_share <= share
    assert capped.throttled_ps == capped.time_ps - slower.time_ps


def test_a_limit_that_no_clock_keeps_is_said():
    chip = changed(chips.maia200(), power__tdp_w=75.0000001, power__scaling__least_voltage=1.0)
    with pytest.raises(ChipError, match="no clock is low enough for 75 W"):
        simulated(HARD, chip, 72, 20, max_events=0)

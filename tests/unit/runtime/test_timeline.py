"""`with simulate(chip) as timeline`: what is timed, what is computed, what is simulated twice."""

from __future__ import annotations

import threading

import pytest
import torch
import triton
import triton.language as tl

from asterope import chips
from asterope.errors import AsteropeError, CapacityError, ChipError, ConfigError, KernelError
from asterope.kernels import linear, rms_norm, silu_mul
from asterope.runtime import Timeline, simulate
from library_kernels import random
from sim_programs import changed

MAIA = chips.maia200()
TINY = changed(MAIA, tile__tsram__capacity_bytes=2048)


@triton.jit
def _count_kernel(count, x):
    total = 0.0
    for i in range(tl.load(count)):
        total += tl.load(x + i)
    tl.store(x, total)


def norm(rows=8, k=100, device="cpu", seed=0):
    return rms_norm(random(rows, k, seed=seed, device=device), random(k, device=device), 1e-6)


def test_launches_follow_one_another_and_add_up():
    with simulate(MAIA) as timeline:
        norm()
        silu_mul(random(4, 64))
        linear(random(3, 64), random(5, 64))
    names = [t.name for t in timeline.launches]
    assert names == ["_rms_norm_kernel", "_silu_mul_kernel", "_linear_kernel"]
    at = 0
    for timed in timeline.launches:
        assert timed.start_ps == at
        at += timed.result.time_ps
    assert timeline.time_ps == at == sum(timeline.breakdown_ps().values())
    assert timeline.time_s == pytest.approx(at / 1e12)
    assert timeline.energy_j == pytest.approx(sum(t.result.energy_j for t in timeline.launches))
    assert timeline.launches[0].grid == (8, 1, 1)


def test_an_empty_timeline_took_no_time():
    with simulate(MAIA) as timeline:
        pass
    assert (timeline.time_ps, timeline.energy_j, timeline.breakdown_ps()) == (0, 0, {})


def test_values_are_the_same_inside_and_outside():
    outside = norm()
    with simulate(MAIA):
        inside = norm()
    assert torch.equal(inside, outside)


def test_nothing_is_timed_after_the_block_and_before_it():
    norm()
    with simulate(MAIA) as timeline:
        norm()
    norm()
    assert len(timeline.launches) == 1


def test_without_values_nothing_is_computed():
    x, y = random(4, 64), None
    with simulate(MAIA, values=False) as timeline:
        residual = random(4, 64, seed=1)
        before = residual.clone()
        y = rms_norm(x, random(64), 1e-6, residual)
    assert torch.equal(residual, before)
    assert y.shape == x.shape
    assert len(timeline.launches) == 1


def test_meta_tensors_are_timed_where_no_values_are_wanted():
    with simulate(MAIA, values=False) as timeline:
        y = linear(random(1000, 4096, device="meta"), random(2000, 4096, device="meta"))
    assert y.device.type == "meta"
    assert timeline.launches[0].result.hbm_bytes >= 4 * (1000 + 2000) * 4096


def test_meta_tensors_cannot_be_computed():
    with pytest.raises(KernelError) as caught, simulate(MAIA):
        norm(device="meta")
    assert "has no memory" in str(caught.value)
    assert "values=False" in caught.value.hint
    assert caught.value.where == "_rms_norm_kernel"
    with pytest.raises(KernelError):
        norm(device="meta")


# -- several timelines -----------------------------------------------------------------------------
def test_two_chips_listen_at_once_each_with_its_own_time():
    h200 = chips.get("h200")
    with simulate(MAIA) as first, simulate(h200, fidelity="roofline") as second:
        norm()
    assert [len(t.launches) for t in (first, second)] == [1, 1]
    assert first.launches[0].result.chip == "maia200:bench"
    assert second.launches[0].result.chip.startswith("h200")
    assert first.time_ps > second.time_ps > 0


def test_an_inner_timeline_ends_before_the_outer():
    with simulate(MAIA) as outer:
        norm()
        with simulate(MAIA) as inner:
            norm()
        norm()
    assert len(outer.launches) == 3
    assert len(inner.launches) == 1
    assert inner.launches[0].start_ps == 0
    assert outer.launches[1].start_ps > 0


def test_one_timeline_without_values_is_enough_to_compute_nothing():
    residual = random(4, 64, seed=1)
    before = residual.clone()
    with simulate(MAIA), simulate(MAIA, values=False):
        rms_norm(random(4, 64), random(64), 1e-6, residual)
    assert torch.equal(residual, before)


def test_timelines_of_other_threads_are_not_told():
    with simulate(MAIA) as timeline:
        worker = threading.Thread(target=norm)
        worker.start()
        worker.join()
    assert timeline.launches == []


def test_an_error_inside_ends_the_timeline():
    made = []

    def fails():
        with simulate(MAIA) as timeline:
            made.append(timeline)
            norm()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    norm()
    assert len(made[0].launches) == 1


# -- equal launches --------------------------------------------------------------------------------
def test_equal_launches_are_simulated_once():
    with simulate(MAIA) as timeline:
        for seed in range(4):
            norm(seed=seed)
    results = [t.result for t in timeline.launches]
    assert all(r is results[0] for r in results)
    assert [t.start_ps for t in timeline.launches] == [
        n * results[0].time_ps for n in range(4)
    ]  # fmt: skip


def test_another_shape_number_or_aliasing_is_another_launch():
    with simulate(MAIA) as timeline:
        norm(rows=8)
        norm(rows=9)
        norm(k=99)
        x = random(8, 100)
        rms_norm(x, random(100), 1e-6, residual=random(8, 100))
        rms_norm(x, random(100), 1e-6, residual=x)  # x is also the residual
    assert len({id(t.result) for t in timeline.launches}) == 5


def test_a_launch_that_reads_its_way_from_memory_is_simulated_every_time():
    with simulate(MAIA) as timeline:
        count, x = torch.tensor([3], dtype=torch.int32), torch.ones(64)
        for n in (3, 3, 50):
            count[0] = n
            _count_kernel[(1,)](count, x)
    first, again, longer = (t.result for t in timeline.launches)
    assert first == again
    assert longer.instructions > first.instructions
    assert longer.time_ps > first.time_ps


def test_a_launch_that_writes_what_decides_under_another_name_is_refused():
    memory = torch.full((64,), 3, dtype=torch.int32)
    with simulate(MAIA) as timeline:
        _count_kernel[(1,)](memory[:1], torch.ones(64))
        with pytest.raises(KernelError, match="also writes") as caught:
            _count_kernel[(1,)](memory[:1], memory)
    assert "test_timeline.py:" in caught.value.where
    assert len(timeline.launches) == 1
    assert memory.tolist() == [3] * 64


def test_progress_is_told_after_each_launch():
    seen = []
    with simulate(MAIA) as timeline:
        timeline.on_progress = seen.append
        timeline.tag = "first"
        norm()
        timeline.tag = "second"
        norm()
    assert seen == timeline.launches
    assert [t.tag for t in seen] == ["first", "second"]


# -- errors ----------------------------------------------------------------------------------------
def test_an_unknown_fidelity_is_refused_before_anything_runs():
    with pytest.raises(ConfigError) as caught, simulate(MAIA, fidelity="cycle"):
        pytest.fail("the block ran")
    assert "'cycle'" in str(caught.value)
    assert caught.value.where == "fidelity"
    assert "roofline or tile" in caught.value.hint


def test_a_chip_without_tiles_is_refused_at_tile_fidelity():
    with pytest.raises(ChipError) as caught, simulate(chips.get("h200")):
        norm()
    assert caught.value.where == "tile"
    assert "roofline" in caught.value.hint
    with simulate(chips.get("h200"), fidelity="roofline") as timeline:
        norm()
    assert timeline.time_ps > 0


def test_a_program_too_large_for_a_tile_computes_nothing():
    residual = random(4, 4096, seed=1)
    before = residual.clone()
    with pytest.raises(CapacityError) as caught, simulate(TINY) as timeline:
        rms_norm(random(4, 4096), random(4096), 1e-6, residual)
    assert "2048" in str(caught.value)
    assert "norm.py:" in caught.value.where
    assert torch.equal(residual, before)
    assert timeline.launches == []


def test_a_chip_without_power_figures_has_no_energy():
    chip = chips.get("tpu7x")
    with simulate(chip, fidelity="roofline") as timeline:
        norm()
    expected = None if chip.power.tdp_w is None else chip.power.tdp_w * timeline.time_s
    assert timeline.energy_j == (expected if expected is None else pytest.approx(expected))


def test_every_error_of_ours_says_where():
    for call in (lambda: norm(device="meta"), lambda: simulate(MAIA, fidelity="x").__enter__()):
        with pytest.raises(AsteropeError) as caught:
            call()
        assert caught.value.where


def test_a_timeline_is_itself_however_equal_another_looks():
    assert Timeline(MAIA) != Timeline(MAIA)

"""Law 2 on the kernel library: launches recorded once, timed on random chips."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_time_laws import assert_adds_up, assert_rungs_agree, at_clock_of

from asterope import chips
from asterope.errors import CapacityError
from asterope.kernels import choose_blocks, linear, rms_norm, silu_mul
from asterope.runtime import Array, simulate
from asterope.sim import simulate_launch
from library_kernels import CALLS, random, recorded
from sim_programs import replay, streams_of, what_ifs

QUICK = settings(
    deadline=None, derandomize=True, database=None, max_examples=20, phases=[Phase.generate]
)


@functools.cache
def launches(name):
    """Record a call: time program, grid, and arrays that are far apart as arguments.

    Arrays that decide where a kernel goes stay where they are.
    """
    found = []
    for launch in recorded(CALLS[name]):
        places, program = {}, launch.kernel.time_program
        args = [
            places.setdefault(a.start, len(places) + 1) * (1 << 44)
            if isinstance(a, Array) and i not in program.deciding
            else getattr(a, "address", a)
            for i, a in enumerate(launch.args)
        ]
        found.append((program, launch.grid, args))
    return found


def check(name, chip):
    for program, grid, args in launches(name):
        has_memory = bool(program.reads_memory)
        try:
            tile = simulate_launch(
                program, grid, args, chip, has_memory=has_memory, max_events=1 << 17
            )  # fmt: skip
        except CapacityError:
            assert program.need.num_bytes > chip.tile.tsram.capacity_bytes
            continue
        assert_adds_up(tile, chip)
        roofline = simulate_launch(
            program, grid, args, chip, has_memory=has_memory, fidelity="roofline"
        )  # fmt: skip
        assert_rungs_agree(roofline, tile)
        streams = streams_of(program, grid, args, chip.num_tiles)
        replay(tile, at_clock_of(tile, chip), streams, program)


@QUICK
@given(st.sampled_from(sorted(CALLS)), what_ifs())
@pytest.mark.slow
def test_library_kernels_keep_the_laws_of_time_on_random_chips(name, chip):
    check(name, chip)


@pytest.mark.parametrize("name", CALLS)
def test_library_kernels_keep_the_laws_of_time_on_maia_200(name):
    check(name, chips.maia200())


def timed(call):
    with simulate(chips.maia200(), values=False) as timeline:
        call()
    (launch,) = timeline.launches
    return launch.result


@pytest.mark.parametrize("m", [1, 2, 37, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_linear_moves_its_operands_once_a_block_and_its_result_once(m, dtype):
    n, k, size = 200, 96, dtype.itemsize
    x, w = (random(rows, k, dtype=dtype, device="meta") for rows in (m, n))
    moved = timed(lambda: linear(x, w)).bytes
    blocks = choose_blocks(m, n, k, 8 * size, 8 * size)
    assert moved["hbm_written"] == moved["tsram_dma_read"] == m * n * size
    assert moved["hbm_read"] == (m * k + n * k) * size
    times_x, times_w = -(-n // blocks.n), -(-m // blocks.m)
    assert moved["tsram_dma_written"] == (times_x * m * k + times_w * n * k) * size


@pytest.mark.parametrize("rows", [1, 5, 200])
def test_norm_and_gate_read_each_element_once_and_write_each_once(rows):
    x, weight = random(rows, 300, device="meta"), random(300, device="meta")
    result = timed(lambda: rms_norm(x, weight, 1e-6))
    assert result.bytes["hbm_read"] == 4 * (rows * 300 + 300)
    assert result.bytes["tsram_dma_written"] == 4 * 2 * rows * 300
    assert result.bytes["hbm_written"] == 4 * rows * 300
    result = timed(lambda: silu_mul(x))
    assert result.bytes["hbm_read"] == 4 * rows * 300
    assert result.bytes["hbm_written"] == 4 * rows * 150


def test_a_residual_that_is_updated_in_place_is_read_and_written():
    x, residual, weight = (random(*s, device="meta") for s in [(40, 300), (40, 300), (300,)])
    result = timed(lambda: rms_norm(x, weight, 1e-6, residual))
    assert result.bytes["hbm_read"] == 4 * (2 * 40 * 300 + 300)
    assert result.bytes["hbm_written"] == 4 * 2 * 40 * 300


def test_the_flop_of_linear_are_those_of_its_blocks():
    x, w = (random(r, 96, dtype=torch.bfloat16, device="meta") for r in (64, 128))
    assert timed(lambda: linear(x, w)).flop == {"bf16": 2 * 64 * 128 * 128}

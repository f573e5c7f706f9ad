"""Law 3: the same input gives the same bytes, whatever the process, addresses and threads."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope import chips
from asterope.kernels import (
    attention,
    linear,
    quantize_rows,
    rms_norm,
    scaled_linear,
    silu_mul,
)
from asterope.runtime import simulate
from asterope.sim import simulate_launch
from library_kernels import CALLS, as_bytes, random, scaled_weight
from sim_programs import (
    FIXED,
    PLACES,
    changed,
    fixed_digest,
    fixed_results,
    programs,
    simulated,
    what_ifs,
)


def test_the_same_launch_gives_the_same_result_every_time():
    assert fixed_results() == fixed_results()


@settings(deadline=None, derandomize=True, database=None, max_examples=6)
@given(programs(), what_ifs(), st.integers(0, 80), st.integers(0, 12), st.booleans())
def test_a_random_launch_gives_the_same_bytes_again(program, chip, grid, steps, is_cool):
    chip = changed(chip, power__tdp_w=100.0) if is_cool else chip
    first = simulated(program, chip, grid, steps)
    again = simulated(dataclasses.replace(program), changed(chip), grid, steps)
    assert repr(first) == repr(again)


def test_another_process_with_other_hashes_gives_the_same_result():
    code = "import sim_programs; print(sim_programs.fixed_digest())"
    env = {
        **os.environ,
        "PYTHONHASHSEED": "1",
        "ASTEROPE_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == fixed_digest(), done.stderr


def test_where_arrays_lie_in_memory_does_not_change_time():
    chip = chips.maia200()
    for program in FIXED:
        found = set()
        for start in (1 << 20, 1 << 40, 0x7F3A_1234_5678_0040):
            args = [start + i * (1 << 30) for i in range(len(PLACES))]
            time_program = program.tile_kernel.time_program
            result = simulate_launch(time_program, (50, 1, 1), [*args, 5], chip, has_memory=False)
            found.add(repr(result))
        assert len(found) == 1


def test_timing_does_not_see_which_tensors_were_allocated_before():
    found, kept = set(), []
    for i in range(4):
        kept.append(torch.empty(1000 * i + 1))  # moves what comes after it
        with simulate(chips.maia200()) as timeline:
            CALLS["attention"]()
            CALLS["linear bf16"]()
        found.add(repr([t.result for t in timeline.launches]))
    assert len(found) == 1


def test_meta_tensors_take_the_time_of_real_ones():
    for name in ("linear bf16", "attention with a window", "rotate_and_cache", "rms_norm"):
        times = []
        for device in ("cpu", "meta"):
            with simulate(chips.maia200(), values=device == "cpu") as timeline:
                CALLS[name](device)
            times.append([t.result for t in timeline.launches])
        assert times[0] == times[1], name


# Each is more than two threads' worth of programs; the runtime keeps smaller work on one.
LARGE = {
    "linear": lambda: [linear(random(300, 512), random(700, 512, seed=1))],
    "scaled_linear": lambda: [
        scaled_linear(quantize_rows(random(260, 512), "mxfp8"), scaled_weight("mxfp4", 600, 512))
    ],
    "attention": lambda: [
        attention(
            random(2 * 150, 8, 32), *(random(2, 4, 200, 32, seed=s) for s in (1, 2)),
            past=40, scale=0.2,
        )
    ],
    "rms_norm": lambda: [rms_norm(random(600, 512), random(512, seed=1), 1e-6)],
    "silu_mul": lambda: [silu_mul(random(600, 1024))],
    "quantize_rows": lambda: [quantize_rows(random(600, 512), "nvfp4").codes],
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_any_number_of_threads_computes_the_same_bytes(name, monkeypatch):
    found = set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("ASTEROPE_NUM_THREADS", threads)
        found.add(as_bytes(LARGE[name]()))
    assert len(found) == 1

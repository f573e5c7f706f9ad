"""Choosing and timing: the autotuner and `do_bench` go by the chip that is simulated."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl

from asterope import chips
from asterope.errors import CapacityError
from asterope.runtime import current_timeline, simulate
from library_kernels import random
from sim_programs import changed

MAIA = chips.maia200()
SIZE = 1 << 14


def doubling(configs, **options):
    @triton.autotune(configs=configs, key=["n"], **options)
    @triton.jit
    def kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
        offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        on = offs < n
        tl.store(y_ptr + offs, tl.load(y_ptr + offs, mask=on) + tl.load(x_ptr + offs, mask=on),
                 mask=on)  # fmt: skip

    return kernel


def blocks(*sizes, **options):
    return [triton.Config({"BLOCK": size}, **options) for size in sizes]


def run(kernel, n=SIZE):
    x, y = random(n), torch.zeros(n)
    kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, y, n)
    return x, y


def simulated_ms(kernel, config):
    with simulate(MAIA) as timeline:
        x, y = torch.ones(SIZE), torch.zeros(SIZE)
        grid = (triton.cdiv(SIZE, config.kwargs["BLOCK"]),)
        kernel.fn[grid](x, y, SIZE, **config.all_kwargs())
    return 1e3 * timeline.time_s


def test_inside_a_simulation_the_config_of_the_least_simulated_time_is_taken():
    kernel = doubling(blocks(16, 64, 1024))
    with simulate(MAIA):
        run(kernel)
    times = {config: simulated_ms(kernel, config) for config in kernel.configs}
    assert kernel.best_config is min(times, key=times.get)
    assert {c: t[0] for c, t in kernel.configs_timings.items()} == pytest.approx(times)


def test_what_was_tuned_on_this_cpu_is_tuned_again_for_a_chip_and_then_remembered():
    seen = []
    kernel = doubling(blocks(16, 1024), pre_hook=lambda args, reset_only=False: seen.append(1))
    counts = []
    for chip in (None, None, MAIA, MAIA, changed(MAIA, tile__tsram__capacity_bytes=1 << 20), None):
        seen.clear()
        if chip is None:
            run(kernel)
        else:
            with simulate(chip):
                run(kernel)
        counts.append(len(seen) > 0)
    assert counts == [True, False, True, False, True, False]


def test_tuning_is_no_part_of_what_is_timed_and_computes_nothing():
    kernel = doubling(blocks(16, 64, 1024))
    with simulate(MAIA) as timeline:
        x, y = run(kernel)
    assert torch.equal(x, y), "a trial has added to y"
    assert len(timeline.launches) == 1
    assert 1e3 * timeline.time_s == pytest.approx(kernel.configs_timings[kernel.best_config][0])


def test_a_block_too_large_for_the_chip_is_not_taken():
    small = changed(MAIA, tile__tsram__capacity_bytes=2048)
    kernel = doubling(blocks(4096, 64))
    with simulate(small):
        run(kernel)
    assert kernel.best_config.kwargs == {"BLOCK": 64}
    with simulate(small), pytest.raises(CapacityError, match=r"test_plugin_tuning\.py:\d+.*TSRAM"):
        run(doubling(blocks(4096, 8192)))


@pytest.mark.parametrize("chip", [None, MAIA])
def test_pruning_resetting_and_restoring_work_as_written(chip):
    seen = []

    def only_large(configs, named_args, **meta):
        seen.append(named_args["n"])
        return [c for c in configs if c.kwargs["BLOCK"] >= 64]

    kernel = doubling(
        blocks(16, 64, 128), prune_configs_by={"early_config_prune": only_large},
        reset_to_zero=["y_ptr"], restore_value=["x_ptr"],
    )  # fmt: skip
    if chip is None:
        x, y = run(kernel)
    else:
        with simulate(chip):
            x, y = run(kernel)
    assert seen == [SIZE]
    assert set(kernel.configs_timings) == set(kernel.configs[1:])
    assert torch.equal(x, y)
    assert torch.equal(x, random(SIZE))


def test_a_config_hook_and_a_performance_model_are_asked():
    calls = []
    configs = [
        triton.Config({"BLOCK": b}, pre_hook=lambda args: calls.append(args["BLOCK"]))
        for b in (16, 64, 256)
    ]
    model = {"perf_model": lambda **args: 1 / args["BLOCK"], "top_k": 2}
    kernel = doubling(configs, prune_configs_by=model, reset_to_zero=["y_ptr"])
    x, y = run(kernel)
    assert set(calls) == {64, 256}
    assert torch.equal(x, y)


def test_on_this_cpu_configs_that_differ_in_warps_and_stages_are_tried_once():
    tried = []
    configs = [c for warps in (1, 8) for c in blocks(16, 64, num_warps=warps, num_stages=warps)]
    kernel = doubling(configs, pre_hook=lambda args, **_: tried.append(args["num_warps"]))
    run(kernel)
    assert set(tried[:-1]) == {1}
    times = [kernel.configs_timings[c] for c in configs]
    assert times[:2] == times[2:]
    with simulate(MAIA):
        tried.clear()
        run(kernel)
    assert set(tried) == {1, 8}


def test_do_bench_gives_simulated_milliseconds_inside_a_simulation():
    kernel = doubling(blocks(64))
    with simulate(MAIA) as timeline:
        run(kernel)
        expected = 1e3 * timeline.time_s
        ms = triton.testing.do_bench(lambda: run(kernel), warmup=expected, rep=3 * expected)
    assert ms == pytest.approx(expected)
    outside = triton.testing.do_bench(lambda: run(kernel), warmup=1, rep=1)
    assert outside != pytest.approx(expected)


def test_the_innermost_simulation_counts():
    assert current_timeline() is None
    with simulate(MAIA) as outer:
        assert current_timeline() is outer
        with simulate(MAIA) as inner:
            assert current_timeline() is inner
        assert current_timeline() is outer
    assert current_timeline() is None


@pytest.mark.slow
def test_choices_kept_on_disk_are_found_by_another_process(tmp_path):
    script = tmp_path / "tuned.py"
    script.write_text(
        "import sys, torch, triton, triton.language as tl\n"
        "configs = [triton.Config({'BLOCK': b}) for b in (16, 64)]\n"
        "@triton.autotune(configs=configs, key=['n'], cache_results=True)\n"
        "@triton.jit\n"
        "def kernel(y_ptr, n, BLOCK: tl.constexpr):\n"
        "    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)\n"
        "    tl.store(y_ptr + offs, 1.0, mask=offs < n)\n"
        "y = torch.zeros(100)\n"
        "kernel[lambda meta: (triton.cdiv(100, meta['BLOCK']),)](y, 100)\n"
        "assert y.all()\n"
        "print(sorted(t[0] for t in kernel.configs_timings.values()))\n"
    )
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", script], capture_output=True, text=True, check=True,
            env=env,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert outputs[0] == outputs[1], "wall times that agree to the last digit were not measured"

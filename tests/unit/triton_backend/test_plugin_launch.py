"""What users do around kernels: arguments, aliasing, tuning, benchmarking, warming up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from asterope import chips
from asterope.native import available_isas
from asterope.runtime import simulate
from library_kernels import CALLS, as_bytes, random
from triton_kernels import add_kernel, matmul_kernel, softmax_kernel


@triton.jit
def scale_kernel(x_ptr, y_ptr, n, factor, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    on = offs < n
    tl.store(y_ptr + offs, tl.load(x_ptr + offs, mask=on) * factor, mask=on)


def scaled(x, factor=2.0, block=256):
    y = torch.empty_like(x)
    scale_kernel[(triton.cdiv(x.numel(), block),)](x, y, x.numel(), factor, BLOCK=block)
    return y


# -- grids -----------------------------------------------------------------------------------------
@triton.jit
def place_kernel(y_ptr):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sizes = tl.num_programs(0), tl.num_programs(1)
    at = (z * sizes[1] + y) * sizes[0] + x
    tl.store(y_ptr + at, x + 100 * y + 10_000 * z)


@pytest.mark.parametrize("grid", [(6,), (3, 2), (3, 2, 4), (1, 1, 5)])
def test_programs_know_their_place_in_the_grid(grid):
    sizes = (*grid, 1, 1)[:3]
    y = torch.full(sizes[::-1], -1, dtype=torch.int32)
    place_kernel[grid](y)
    z, row, x = torch.meshgrid(*(torch.arange(s) for s in sizes[::-1]), indexing="ij")
    assert torch.equal(y, (x + 100 * row + 10_000 * z).int())


@pytest.mark.parametrize("grid", [(0,), (4, 0), (0, 1, 1)])
def test_a_grid_of_nothing_does_nothing(grid):
    y = torch.full((8,), -1, dtype=torch.int32)
    place_kernel[grid](y)
    assert torch.equal(y, torch.full_like(y, -1))
    with simulate(chips.maia200()) as timeline:
        place_kernel[grid](y)
    assert all(t.result.instructions == 0 for t in timeline.launches)


def test_empty_tensors_are_taken():
    x = torch.empty(0)
    y = torch.empty(0)
    scale_kernel[(1,)](x, y, 0, 2.0, BLOCK=16)
    assert scaled(x).numel() == 0


# -- arguments -------------------------------------------------------------------------------------
@triton.jit
def maybe_bias_kernel(x_ptr, bias_ptr, y_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    value = tl.load(x_ptr + offs)
    if bias_ptr is not None:
        value += tl.load(bias_ptr + offs)
    tl.store(y_ptr + offs, value)


def test_none_is_an_argument():
    x, bias = random(32), random(32, seed=1)
    for given, expected in ((None, x), (bias, x + bias), (None, x)):
        y = torch.empty_like(x)
        maybe_bias_kernel[(1,)](x, given, y, BLOCK=32)
        assert torch.equal(y, expected)


@triton.jit(do_not_specialize=["a"])
def scalar_kernel(y_ptr, a, b, flag):
    tl.store(y_ptr, a.to(tl.int64) * 3 + flag)
    tl.store(y_ptr + 1, b.to(tl.int64))


@pytest.mark.parametrize("a", [0, 1, 16, -1, -(2**31), 2**31 - 1, 2**31, 2**40, -(2**62)])
@pytest.mark.parametrize("flag", [True, False])
def test_integers_of_any_width_arrive(a, flag):
    y = torch.zeros(2, dtype=torch.int64)
    scalar_kernel[(1,)](y, a, 7, flag)
    wrapped = (a * 3 + flag + 2**63) % 2**64 - 2**63
    assert y.tolist() == [wrapped, 7]


@triton.jit
def float_kernel(y_ptr, x):
    tl.store(y_ptr, x)


@pytest.mark.parametrize(
    "x", [0.0, -0.0, 1.0, 0.1, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan")]
)
def test_floats_arrive_as_float32(x):
    y = torch.zeros(1)
    float_kernel[(1,)](y, x)
    expected = torch.tensor([x])
    assert y.view(torch.int32).item() == expected.view(torch.int32).item() or y.isnan().item()
    assert bool(y.isnan()) == (x != x)


@triton.jit
def typed_kernel(x_ptr, y_ptr, TYPE: tl.constexpr, OP: tl.constexpr, SIZE: tl.constexpr):
    total = tl.zeros((SIZE,), dtype=TYPE)
    for i in tl.static_range(4):
        offs = i * SIZE + tl.arange(0, SIZE)
        if OP == "sum":
            total += tl.load(x_ptr + offs).to(TYPE)
        else:
            total = tl.maximum(total, tl.load(x_ptr + offs).to(TYPE))
    tl.store(y_ptr + tl.arange(0, SIZE), total)


@pytest.mark.parametrize("op", ["sum", "max"])
def test_constants_may_be_types_and_strings(op):
    x = random(4, 32).abs()
    y = torch.empty(32)
    typed_kernel[(1,)](x, y, tl.float32, op, 32)
    assert torch.allclose(y, x.sum(0) if op == "sum" else x.max(0).values)


def test_every_constant_is_its_own_kernel():
    x = random(300)
    for block in (16, 64, 512):
        assert torch.equal(scaled(x, block=block), 2 * x)


def test_numbers_that_divide_by_sixteen_do_not_stand_for_those_that_do_not():
    for n in (256, 255, 16, 1, 17, 32):
        x = random(n)
        assert torch.equal(scaled(x, block=64), 2 * x)
    base = random(400)
    for start in (0, 1, 4, 16):
        assert torch.equal(
            scaled(base[start : start + 200], block=64), 2 * base[start : start + 200]
        )


# -- overlap ---------------------------------------------------------------------------------------
def test_in_place_is_as_good_as_out_of_place():
    x, y = random(5000), random(5000, seed=1)
    expected = x + y
    add_kernel[(5,)](x, y, x, 5000, BLOCK=1024)
    assert torch.equal(x, expected)
    z = random(1000)
    expected = z + z
    add_kernel[(1,)](z, z, z, 1000, BLOCK=1024)
    assert torch.equal(z, expected)


@pytest.mark.parametrize("shift", [1, 3, 16, 100, -1, -7, -64])
def test_a_program_loads_its_block_before_it_stores_to_a_shifted_one(shift):
    """y is x shifted within one buffer; one program does it all, load before store."""
    buffer = random(2048)
    low, high = (0, shift) if shift > 0 else (-shift, 0)
    x, y = buffer[low : low + 1024], buffer[high : high + 1024]
    expected = buffer.clone()
    expected[high : high + 1024] = 2 * buffer[low : low + 1024]
    scale_kernel[(1,)](x, y, 1024, 2.0, BLOCK=1024)
    assert torch.equal(buffer, expected)


@triton.jit
def running_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    for i in range(n):
        offs = i * BLOCK + tl.arange(0, BLOCK)
        tl.store(y_ptr + offs, tl.load(x_ptr + offs) + 1.0)


@pytest.mark.parametrize("shift", [16, 8, 1])
def test_a_loop_sees_what_its_earlier_rounds_stored(shift):
    """With y = x shifted by a block, each round reads what the one before it wrote."""
    buffer, block, rounds = torch.zeros(16 * 12), 16, 10
    running_kernel[(1,)](buffer, buffer[shift:], rounds, BLOCK=block)
    expected = torch.zeros(16 * 12)
    for i in range(rounds):
        expected[i * block + shift : (i + 1) * block + shift] = (
            expected[i * block : (i + 1) * block].clone() + 1
        )
    assert torch.equal(buffer, expected)


@triton.jit
def swap_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    y = tl.load(y_ptr + offs)
    tl.store(x_ptr + offs, y)
    tl.store(y_ptr + offs, x)


def test_both_loads_are_done_before_either_store():
    x, y = random(512), random(512, seed=1)
    kept = x.clone(), y.clone()
    swap_kernel[(1,)](x, y, BLOCK=512)
    assert torch.equal(x, kept[1])
    assert torch.equal(y, kept[0])
    z = random(512)
    kept = z.clone()
    swap_kernel[(1,)](z, z, BLOCK=512)
    assert torch.equal(z, kept)


# -- around the kernel -----------------------------------------------------------------------------
@triton.autotune(
    configs=[triton.Config({"BLOCK": b}, num_stages=s) for b, s in ((64, 1), (256, 2))], key=["n"]
)
@triton.jit
def tuned_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    on = offs < n
    tl.store(y_ptr + offs, tl.load(x_ptr + offs, mask=on) * 2, mask=on)


def test_autotune_times_its_choices_and_takes_one():
    x = random(1000)
    y = torch.zeros_like(x)
    tuned_kernel[lambda meta: (triton.cdiv(1000, meta["BLOCK"]),)](x, y, 1000)
    assert torch.equal(y, 2 * x)
    assert tuned_kernel.best_config in tuned_kernel.configs
    assert set(tuned_kernel.configs_timings) == set(tuned_kernel.configs)
    assert all(t > 0 for ts in tuned_kernel.configs_timings.values() for t in (*ts,))


@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def even_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if EVEN:
        tl.store(y_ptr + offs, tl.load(x_ptr + offs) * 2)
    else:
        on = offs < n
        tl.store(y_ptr + offs, tl.load(x_ptr + offs, mask=on) * 3, mask=on)


def test_heuristics_decide_constants():
    x = random(128)
    for n, factor in ((128, 2), (100, 3)):
        y = torch.zeros_like(x)
        even_kernel[(2,)](x, y, n, BLOCK=64)
        assert torch.equal(y[:n], factor * x[:n])


def test_do_bench_times_a_launch():
    x = random(1 << 16)
    ms = triton.testing.do_bench(lambda: scaled(x), warmup=1, rep=5)
    assert 0 < ms < 1000
    low, middle, high = triton.testing.do_bench(
        lambda: scaled(x), warmup=1, rep=5, quantiles=[0.1, 0.5, 0.9]
    )
    assert 0 < low <= middle <= high


def test_warmup_compiles_without_running():
    x, y = random(64), torch.full((64,), -1.0)
    compiled = scale_kernel.warmup(x, y, 64, 2.0, BLOCK=64, grid=(1,))
    assert torch.equal(y, torch.full((64,), -1.0))
    assert "kernel @scale_kernel" in compiled.asm["tileir"].decode()
    assert "tt.func" in str(compiled.asm["ttir"])
    assert compiled.metadata.target.backend == "maia"
    typed = scale_kernel.warmup(torch.float32, torch.float32, 64, 2.0, BLOCK=64, grid=(1,))
    assert typed.metadata.name == "scale_kernel"


def test_options_of_gpus_change_nothing():
    x = random(300)
    y = torch.zeros_like(x)
    scale_kernel[(2,)](x, y, 300, 2.0, BLOCK=256, num_warps=8, num_stages=4, num_ctas=1)
    assert torch.equal(y, 2 * x)


def test_num_stages_reaches_the_simulator():
    a, b, c = (torch.empty(256, 256, device="meta") for _ in "abc")
    times = {}
    for stages in (1, 3):
        with simulate(chips.maia200(), values=False) as timeline:
            matmul_kernel[(4,)](
                a, b, c, 256, 256, 256, 256, 1, 256, 1, 256, 1, BLOCK_M=128, BLOCK_N=128,
                BLOCK_K=32, GROUP_M=8, ACTIVATION="", num_stages=stages,
            )  # fmt: skip
        times[stages] = timeline.time_ps
    assert times[3] < times[1]


def test_launch_hooks_are_called_around_a_launch():
    seen = []
    x, y = random(16), torch.zeros(16)

    def enter(metadata):
        seen.append(("enter", metadata.get()["name"], y.any().item()))

    def leave(metadata):
        seen.append(("exit", metadata.get()["name"], y.any().item()))

    triton.knobs.runtime.launch_enter_hook.add(enter)
    triton.knobs.runtime.launch_exit_hook.add(leave)
    try:
        scale_kernel[(1,)](x, y, 16, 2.0, BLOCK=16)
    finally:
        triton.knobs.runtime.launch_enter_hook.remove(enter)
        triton.knobs.runtime.launch_exit_hook.remove(leave)
    assert seen == [("enter", "scale_kernel", False), ("exit", "scale_kernel", True)]


def test_the_driver_is_ours_and_tensors_live_on_the_cpu():
    assert triton.runtime.driver.active.get_current_target().backend == "maia"
    assert triton.runtime.driver.active.get_active_torch_device() == torch.device("cpu")


# -- the interpreter and instruction sets ----------------------------------------------------------
def in_a_process(code, **env):
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tests), **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_triton_interpret_still_interprets():
    out = in_a_process(
        "import torch, triton_kernels as t\n"
        "x, y, out = torch.arange(100.), torch.ones(100), torch.zeros(100)\n"
        "t.add_kernel[(2,)](x, y, out, 100, BLOCK=64)\n"
        "print(type(t.add_kernel).__name__, torch.equal(out, x + 1))\n",
        TRITON_INTERPRET="1",
    )
    assert out.split() == ["InterpretedFunction", "True"]


SOME = ["linear fp32", "linear bf16", "linear fp8", "attention", "rotate_and_cache", "rms_norm",
        "gates", "quantize_rows nvfp4", "scaled_linear mxfp4 x mxfp4"]  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_every_instruction_set_gives_the_same_bytes(name, monkeypatch):
    expected = as_bytes(CALLS[name]())
    monkeypatch.setenv("ASTEROPE_ISA", "portable")
    assert "portable" in available_isas()
    assert as_bytes(CALLS[name]()) == expected


def test_softmax_gives_the_same_bytes_on_portable_code(monkeypatch):
    x = random(9, 700, scale=4.0)
    found = set()
    for isa in available_isas():
        monkeypatch.setenv("ASTEROPE_ISA", isa)
        out = torch.empty_like(x)
        softmax_kernel[(4,)](out, x, 700, 700, 9, 700, 1024, num_stages=2)
        found.add(as_bytes([out]))
    assert len(found) == 1


@triton.jit
def kept_kernel(o):
    tl.store(o, 1.0)


def test_triton_keeps_kernels_under_the_name_that_torch_gives_the_device():
    kept_kernel[(1,)](torch.zeros(1))
    assert list(kept_kernel.device_caches) == [torch.cpu.current_device()]

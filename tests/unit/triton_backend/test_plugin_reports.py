"""device_print and device_assert in launched kernels."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from asterope import chips
from asterope.errors import DeviceAssertError
from asterope.runtime import simulate

HERE = Path(__file__).name


def line_of(kernel, text):
    """Return file:line of the line of a kernel that holds a text."""
    lines, first = inspect.getsourcelines(kernel.fn)
    (at,) = [i for i, line in enumerate(lines) if text in line]
    return f"{HERE}:{first + at}"


# -- printing -------------------------------------------------------------------------------------
@triton.jit
def prints(x, B: tl.constexpr):
    pid = tl.program_id(0)
    v = tl.load(x + pid * B + tl.arange(0, B))
    tl.device_print("v", v, pid)
    for i in range(2):
        if i == pid:
            tl.device_print("only here:", v.to(tl.int32).to(tl.uint8), hex=True)
    tl.device_print('100%s {} \\ "q"')


def test_the_text_is_that_of_a_gpu_in_the_order_of_programs(capsys):
    prints[(2,)](torch.tensor([1.0, -2.5, 250.0, 3.0]), B=2)
    assert capsys.readouterr().out.splitlines() == [
        "pid (0, 0, 0) idx (0) v: (operand 0) 1.000000",
        "pid (0, 0, 0) idx (1) v: (operand 0) -2.500000",
        "pid (0, 0, 0) idx () v: (operand 1) 0",
        "pid (0, 0, 0) idx (0) only here: 0x01",
        "pid (0, 0, 0) idx (1) only here: 0xfe",
        'pid (0, 0, 0) 100%s {} \\ "q"',
        "pid (1, 0, 0) idx (0) v: (operand 0) 250.000000",
        "pid (1, 0, 0) idx (1) v: (operand 0) 3.000000",
        "pid (1, 0, 0) idx () v: (operand 1) 1",
        "pid (1, 0, 0) idx (0) only here: 0xfa",
        "pid (1, 0, 0) idx (1) only here: 0x03",
        'pid (1, 0, 0) 100%s {} \\ "q"',
    ]


@triton.jit
def prints_much(x, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + at)
    tl.store(x + at, v + 1)
    tl.device_print("", tl.sum(v, 0))
    tl.device_print("after", tl.max(tl.load(x + at), 0))


def test_many_programs_print_in_order_and_what_they_had_loaded(capsys):
    x = torch.arange(64).repeat_interleave(1024)
    prints_much[(64,)](x, B=1024)
    expected = []
    for i in range(64):
        expected += [f"pid ({i}, 0, 0) idx (): {1024 * i}"]
        expected += [f"pid ({i}, 0, 0) idx () after: {i + 1}"]
    assert capsys.readouterr().out.splitlines() == expected
    assert torch.equal(x, torch.arange(64).repeat_interleave(1024) + 1)


@triton.jit
def prints_one(n):
    print("n", n)


def test_a_launch_that_gives_num_warps_prints_once_a_thread_as_a_gpu_would(capsys):
    prints_one[(1,)](5)
    assert capsys.readouterr().out == "pid (0, 0, 0) idx () n: 5\n"
    prints_one[(1,)](5, num_warps=2)
    assert capsys.readouterr().out == "pid (0, 0, 0) idx () n: 5\n" * 64


def test_a_launch_that_is_only_timed_prints_nothing(capsys):
    with simulate(chips.maia200(), values=False) as timeline:
        prints_much[(64,)](torch.arange(64 * 1024), B=1024)
    assert capsys.readouterr().out == ""
    assert timeline.time_ps > 0


# -- assertions -----------------------------------------------------------------------------------
@triton.jit
def checks(x, o, n, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + at, mask=at < n)
    tl.device_assert(v < 10, "v is too large", mask=at < n)  # the check
    assert tl.program_id(0) < 3, "a fourth program"
    tl.store(o + at, v, mask=at < n)


def test_assertions_that_hold_change_nothing():
    x, o = torch.arange(10.0), torch.zeros(10)
    checks[(3,)](x, o, 10, B=4, debug=True)
    assert torch.equal(o, x)


def test_a_failed_assertion_names_message_line_program_and_element():
    x, o = torch.arange(2.0, 14.0), torch.zeros(12)
    with pytest.raises(DeviceAssertError) as caught:
        checks[(3,)](x, o, 12, B=4, debug=True)
    assert "device-side assert" in caught.value.what
    assert "v is too large" in caught.value.what
    assert "program (2, 0, 0), element (0)" in caught.value.what
    assert line_of(checks, "# the check") in caught.value.where
    assert caught.value.hint


def test_masked_elements_are_not_checked():
    x, o = torch.arange(2.0, 14.0), torch.zeros(12)
    checks[(2,)](x, o, 8, B=4, debug=True)
    assert torch.equal(o[:8], x[:8])


def test_a_failed_assert_statement_is_a_runtime_error_and_the_process_goes_on():
    x, o = torch.zeros(16), torch.full((16,), -1.0)
    with pytest.raises(RuntimeError, match="a fourth program"):
        checks[(4,)](x, o, 16, B=4, debug=True)
    assert torch.equal(o[12:], torch.full((4,), -1.0))
    checks[(3,)](x, o, 16, B=4, debug=True)
    assert torch.equal(o[:12], x[:12])


def test_without_debug_nothing_is_checked():
    x, o = torch.full((16,), 99.0), torch.zeros(16)
    checks[(4,)](x, o, 16, B=4)
    assert torch.equal(o, x)


@triton.jit
def guards(x, o, at, n):
    tl.device_assert(at < n, "outside")
    tl.store(o, tl.load(x + at))


def test_what_an_assertion_guards_is_not_reached():
    """The load would end the process."""
    with pytest.raises(DeviceAssertError, match="outside"):
        guards[(1,)](torch.zeros(4), torch.zeros(1), 1 << 40, 4, debug=True)


def test_a_failed_assertion_of_a_simulated_launch_is_raised_after_it_is_timed():
    x, o = torch.full((16,), 99.0), torch.zeros(16)
    with simulate(chips.maia200()) as checked:
        with pytest.raises(DeviceAssertError):
            checks[(3,)](x, o, 12, B=4, debug=True)
        assert len(checked.launches) == 1
    with simulate(chips.maia200(), values=False) as timed:
        checks[(3,)](x, o, 12, B=4, debug=True)
    assert timed.time_ps == checked.time_ps


@triton.jit(debug=True)
def multiplies(x, y, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i) * tl.load(y + i))  # the product


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8])
def test_integer_overflow_is_caught_in_debug_mode(dtype):
    top = torch.iinfo(dtype).max
    x, y = torch.tensor([top, 2, 3, top // 2], dtype=dtype), torch.tensor([1, 5, 7, 2], dtype=dtype)
    out = torch.zeros(4, dtype=dtype)
    multiplies[(1,)](x, y, out, B=4)
    assert torch.equal(out, x * y)
    y[3] = 3
    with pytest.raises(DeviceAssertError, match="overflow detected for operation mul") as caught:
        multiplies[(1,)](x, y, out, B=4)
    assert "element (3)" in caught.value.what
    assert line_of(multiplies, "# the product") in caught.value.where
    multiplies[(1,)](x, y, out, B=4, sanitize_overflow=False)
    assert torch.equal(out, x * y)


@triton.jit
def steps(o, n, step):
    for i in range(0, n, step):  # for ever
        tl.store(o + i, 1)


@pytest.mark.parametrize("step", [0, -1])
def test_a_loop_that_would_never_end_is_refused_with_its_line(step):
    with pytest.raises(DeviceAssertError, match="does not end") as caught:
        steps[(1,)](torch.zeros(8), 8, step)
    assert line_of(steps, "# for ever") in caught.value.where
    steps[(1,)](torch.zeros(8), 0, step)


@triton.jit
def says_at_compile_time(x, B: tl.constexpr):
    tl.static_print("B is", B)
    tl.static_assert(B > 4, "B is too small")
    tl.store(x, 1.0)


def test_static_prints_and_asserts_happen_while_compiling(capsys):
    says_at_compile_time[(1,)](torch.zeros(1), B=8)
    assert "B is" in capsys.readouterr().out
    with pytest.raises(triton.CompilationError, match="B is too small"):
        says_at_compile_time[(1,)](torch.zeros(1), B=2)


@pytest.mark.slow
def test_prints_reach_a_pipe_and_triton_debug_turns_checks_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, triton, triton.language as tl\n"
        "@triton.jit\n"
        "def k(x):\n"
        "    tl.device_print('x', tl.load(x))\n"
        "    tl.device_assert(tl.load(x) > 3, 'small')\n"
        "k[(1,)](torch.tensor([2]))\n"
    )
    environment = {**os.environ, "TRITON_DEBUG": "1"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "pid (0, 0, 0) idx () x: 2\n"
    assert done.returncode == 1
    assert "script.py:5" in done.stderr
    assert "small" in done.stderr

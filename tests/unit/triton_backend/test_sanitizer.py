"""ASTEROPE_SANITIZE=1 finds what a kernel does wrong, by line, program and element."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton")

import torch
import triton
import triton.language as tl

from asterope.errors import KernelError, SanitizerError


@pytest.fixture(autouse=True)
def sanitizing(monkeypatch):
    monkeypatch.setenv("ASTEROPE_SANITIZE", "1")


def line_of(text):
    with open(__file__) as file:
        return next(n for n, line in enumerate(file, 1) if line.rstrip().endswith(f"# {text}"))


def found(launch, line, *patterns):
    with pytest.raises(SanitizerError) as caught:
        launch()
    assert caught.value.where.startswith(f"{__file__}:{line_of(line)}:")
    for pattern in patterns:
        assert re.search(pattern, caught.value.what), caught.value.what


@triton.jit
def copy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)  # copy reads
    tl.store(y_ptr + at, x, mask=at < n)  # copy writes


def test_a_right_kernel_gives_its_values_and_no_finding(capfd):
    x, y = torch.randn(100), torch.zeros(100)
    copy[(4,)](x, y, 100, BLOCK=32)
    assert torch.equal(x, y)
    assert capfd.readouterr().err == ""


def test_a_read_past_the_end_names_program_and_element():
    x, y = torch.zeros(100), torch.zeros(128)
    found(lambda: copy[(4,)](x, y, 128, BLOCK=32), "copy reads",
          r"program \(3, 0, 0\) reads x_ptr\[100\]", "4 bytes past its end")  # fmt: skip


def test_a_write_past_the_end_does_not_happen():
    x, memory = torch.ones(128), torch.zeros(200)
    y = memory[:100].clone()
    found(lambda: copy[(4,)](x, y, 128, BLOCK=32), "copy writes",
          r"program \(3, 0, 0\) writes y_ptr\[100\]")  # fmt: skip
    assert torch.equal(y, torch.ones(100))


class Address:
    """All that Triton needs of a pointer: a type and a place."""

    dtype = torch.float32

    def __init__(self, tensor):
        self.data_ptr = tensor.data_ptr


def test_a_bare_address_is_refused_by_name():
    x, y = torch.zeros(32), torch.zeros(32)
    with pytest.raises(KernelError, match="x_ptr is a bare address"):
        copy[(1,)](Address(x), y, 32, BLOCK=32)


def test_arrays_without_elements_are_checked_too():
    empty = torch.zeros(0)
    copy[(1,)](empty, empty, 0, BLOCK=32)
    with pytest.raises(SanitizerError, match="in no array"):
        copy[(1,)](empty, torch.zeros(32), 32, BLOCK=32)


@triton.jit
def shifted(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at - 1))  # before


def test_a_read_before_the_start_is_found():
    found(lambda: shifted[(1,)](torch.zeros(16), torch.zeros(16), BLOCK=16), "before",
          r"reads x_ptr\[-1\]", "4 bytes before its start")  # fmt: skip


def test_landing_in_another_array_is_outside_too():
    both = [torch.zeros(16), torch.zeros(16)]
    x, y = sorted(both, key=lambda t: t.data_ptr())
    apart = (y.data_ptr() - x.data_ptr()) // 4

    @triton.jit
    def jumps(x_ptr, y_ptr, apart):
        tl.store(y_ptr, tl.load(x_ptr + apart))  # jumps

    found(lambda: jumps[(1,)](x, y, apart), "jumps", rf"reads x_ptr\[{apart}\]")


@triton.jit
def neighbours(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at + BLOCK, mask=at + BLOCK < n)  # races reading
    tl.store(x_ptr + at, x, mask=at < n)  # races writing


def test_programs_that_read_what_another_writes_race():
    found(lambda: neighbours[(4,)](torch.zeros(64), 64, BLOCK=16), "races writing",
          r"program \(1, 0, 0\) writes x_ptr\[16\], which program \(0, 0, 0\) reads",
          f":{line_of('races reading')}:")  # fmt: skip


@triton.jit
def all_write(x_ptr):
    tl.store(x_ptr, tl.program_id(0))  # all write


def test_programs_that_write_the_same_element_race():
    found(lambda: all_write[(3,)](torch.zeros(1, dtype=torch.int32)), "all write",
          r"program \(1, 0, 0\) writes x_ptr\[0\], which program \(0, 0, 0\) writes")  # fmt: skip


def test_one_program_alone_cannot_race():
    neighbours[(1,)](torch.zeros(64), 64, BLOCK=16)


@triton.jit
def counts(x_ptr, y_ptr):
    tl.atomic_add(x_ptr, 1)
    tl.store(y_ptr + tl.program_id(0), 1)


def test_atomics_on_one_address_do_not_race():
    x = torch.zeros(1, dtype=torch.int32)
    counts[(5,)](x, torch.zeros(5, dtype=torch.int32))
    assert x.item() == 5


@triton.jit
def locked(lock_ptr, sum_ptr):
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    tl.store(sum_ptr, tl.load(sum_ptr) + 1)
    tl.atomic_xchg(lock_ptr, 0)


def test_what_a_lock_orders_does_not_race():
    lock, total = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    locked[(6,)](lock, total)
    assert total.item() == 6


@triton.jit
def waits_its_turn(turn_ptr, x_ptr):
    while tl.load(turn_ptr, volatile=True) != tl.program_id(0):
        pass
    tl.store(x_ptr + tl.program_id(0), 1)
    tl.atomic_add(turn_ptr, 1)


def test_a_volatile_load_may_wait_for_an_atomic():
    turn, x = torch.zeros(1, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    waits_its_turn[(4,)](turn, x)
    assert x.tolist() == [1] * 4


@triton.jit
def adds_beside_an_atomic(x_ptr):
    if tl.program_id(0) == 0:
        tl.atomic_add(x_ptr, 1)
    else:
        tl.store(x_ptr, 5)  # plain


def test_a_plain_write_beside_an_atomic_races():
    found(lambda: adds_beside_an_atomic[(2,)](torch.zeros(1, dtype=torch.int32)), "plain",
          "program \\(0, 0, 0\\) writes")  # fmt: skip


EMPTY = """
import torch, triton, triton.language as tl

@triton.jit
def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at, mask=at < n), mask=at < n)

x, y, z = torch.empty(64), torch.empty(64), torch.empty(64)
x[:40] = 1.0
double[(1,)](x, y, 40, BLOCK=64)
double[(1,)](y, z, 40, BLOCK=64)
print("fine", flush=True)
double[(1,)](x, y, 64, BLOCK=64)
"""


@pytest.mark.slow
def test_a_read_of_what_nobody_wrote_is_found(tmp_path):
    script = tmp_path / "empty.py"
    script.write_text(EMPTY)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False,
        env={**os.environ, "ASTEROPE_SANITIZE": "1"},
    )  # fmt: skip
    assert done.stdout == "fine\n"
    assert done.returncode != 0
    assert "empty.py:7:" in done.stderr
    assert re.search(
        r"program \(0, 0, 0\) reads x_ptr\[40\], which nothing has written", done.stderr
    )

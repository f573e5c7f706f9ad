"""Launching tile IR: grids, arguments, listeners, and the passes a kernel goes through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asterope.compiler import find_tiles, flatten, forward, simplify
from asterope.errors import IRError, KernelError
from asterope.ir import Block, Builder, Kernel, Param, Type, Value, print_kernel
from asterope.runtime import (
    PASSES,
    Array,
    TileKernel,
    launch,
    listen,
    optimise,
    stop_listening,
)
from ir_builder import Writer


def count_up():
    """Each program writes one more than its number along each axis of the grid."""
    w = Writer(y="ptr<i32>", columns="i32", rows="i32")
    ids = [w("program_id", to=Type("i32"), axis=axis) for axis in range(3)]
    row = w("add", w("mul", ids[2], w["rows"]), ids[1])
    at = w("add", w("mul", row, w["columns"]), ids[0])
    w.store_at(w("addptr", w["y"], at), w("add", at, w.const("i32", 1)))
    return TileKernel(optimise(w.done()))


KERNEL = count_up()


def array(values):
    start = values.ctypes.data
    return Array(start, start, start + values.nbytes)


def run(grid, size=64):
    y = np.zeros(size, np.int32)
    launch(KERNEL, grid, [array(y), grid[0], grid[1]])
    return y


@pytest.mark.parametrize("grid", [(1, 1, 1), (7, 1, 1), (1, 7, 1), (1, 1, 7), (2, 3, 4), (4, 2, 8)])
def test_every_program_of_a_grid_runs_once(grid):
    count = int(np.prod(grid))
    y = run(grid)
    np.testing.assert_array_equal(y[:count], np.arange(1, count + 1))
    assert not y[count:].any()


@pytest.mark.parametrize("grid", [(0, 1, 1), (4, 0, 1), (4, 4, 0), (0, 0, 0)])
def test_a_grid_of_nothing_does_nothing(grid):
    assert not run(grid).any()


@pytest.mark.parametrize("size", [-1, 1 << 31, 1 << 40])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_grid_size_outside_its_limits_is_refused_by_axis(axis, size):
    grid = [1, 1, 1]
    grid[axis] = size
    with pytest.raises(KernelError) as caught:
        run(tuple(grid))
    assert f"grid size {size} along {'xyz'[axis]}" in str(caught.value)
    assert caught.value.where == "k"


@pytest.mark.parametrize("grid", [(1 << 30, 1 << 30, 4), (1 << 30, 1 << 30, 8)])
def test_more_programs_than_can_be_counted_are_refused(grid):
    """Run apart: counting wrongly may mean running for ever."""
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path[:0] = {[str(here), str(here.parents[1])]!r}\n"
        "import test_launch\n"
        f"try: test_launch.run({grid})\n"
        "except test_launch.KernelError as error: print('refused:', error)\n"
        "else: print('ran')\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=4.5
        )
    except subprocess.TimeoutExpired:
        pytest.fail("the launch did not come back")
    assert done.stdout.startswith("refused:"), done.stdout + done.stderr[-400:]


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_a_wrong_number_of_arguments_is_refused(count):
    y = np.zeros(4, np.int32)
    with pytest.raises(KernelError) as caught:
        launch(KERNEL, (1, 1, 1), [array(y), 1, 1, 1][:count])
    assert f"takes 3 arguments, got {count}" in str(caught.value)


@pytest.mark.parametrize("bad", ["7", 2.5, None, float("nan"), 1j, [1]])
def test_an_argument_of_another_type_is_refused(bad):
    y = np.zeros(4, np.int32)
    with pytest.raises(KernelError) as caught:
        launch(KERNEL, (1, 1, 1), [array(y), bad, 1])
    assert f"argument columns is {bad!r}, which does not fit i32" in str(caught.value)
    assert caught.value.where == "k"
    assert not y.any()


def test_a_number_where_an_array_belongs_is_refused_unless_it_is_an_address():
    with pytest.raises(KernelError, match=r"argument y is 0\.5, which does not fit ptr<i32>"):
        launch(KERNEL, (1, 1, 1), [0.5, 1, 1])
    y = np.zeros(4, np.int32)
    launch(KERNEL, (2, 1, 1), [y.ctypes.data, np.int64(2), True])
    np.testing.assert_array_equal(y, [1, 2, 0, 0])


def test_a_refused_argument_is_not_heard_of(ear):
    with pytest.raises(KernelError):
        launch(KERNEL, (1, 1, 1), [array(np.zeros(4, np.int32)), 2.5, 1])
    assert ear.heard == []


def test_an_integer_argument_wraps_to_its_width():
    y = np.zeros(4, np.int32)
    launch(KERNEL, (2, 1, 1), [array(y), (1 << 32) + 2, (5 << 32) + 1])
    np.testing.assert_array_equal(y, [1, 2, 0, 0])


def test_an_array_without_memory_is_refused_by_name():
    with pytest.raises(KernelError) as caught:
        launch(KERNEL, (1, 1, 1), [Array(0, 0, 0, exists=False), 1, 1])
    assert "argument y has no memory" in str(caught.value)


# -- listeners -------------------------------------------------------------------------------------
class Ear:
    def __init__(self, wants_values=True, fails=False):
        self.wants_values, self.fails, self.heard = wants_values, fails, []

    def on_launch(self, heard):
        self.heard.append(heard)
        if self.fails:
            raise KernelError("I do not like it", where="ear")


@pytest.fixture
def ear():
    made = Ear()
    listen(made)
    yield made
    stop_listening(made)


def test_a_listener_sees_kernel_grid_and_arguments(ear):
    y = np.zeros(8, np.int32)
    launch(KERNEL, (2, 3, 1), [array(y), 2, 3])
    (heard,) = ear.heard
    assert heard.kernel is KERNEL
    assert heard.grid == (2, 3, 1)
    assert heard.args == (array(y), 2, 3)
    np.testing.assert_array_equal(y[:6], np.arange(1, 7))


def test_a_refused_grid_is_not_heard_of(ear):
    with pytest.raises(KernelError):
        launch(KERNEL, (-1, 1, 1), [array(np.zeros(1, np.int32)), 1, 1])
    assert ear.heard == []


def test_a_listener_that_raises_keeps_the_kernel_from_running():
    deaf = Ear(fails=True)
    listen(deaf)
    try:
        y = np.zeros(4, np.int32)
        with pytest.raises(KernelError, match="I do not like it"):
            launch(KERNEL, (1, 1, 1), [array(y), 1, 1])
        assert not y.any()
    finally:
        stop_listening(deaf)


# -- passes ----------------------------------------------------------------------------------------
def broken():
    """A body whose addition has one operand."""
    block = Block([Value(Type("i32"), None, "x")])
    b = Builder(block, "kernel.py:3")
    b.value("add", (block.args[0],), Type("i32"))
    b.op("return")
    return Kernel("broken", [Param("x")], block)


def test_the_pipeline_has_its_order():
    assert list(PASSES) == [forward, flatten, find_tiles, simplify]


def test_the_pipeline_verifies_what_it_is_given():
    with pytest.raises(IRError) as caught:
        optimise(broken())
    assert "broken" in caught.value.where
    assert "kernel.py:3" in caught.value.where


def test_the_pipeline_verifies_after_each_pass(monkeypatch):
    def breaks(kernel):
        return broken()

    monkeypatch.setattr("asterope.runtime.kernel.PASSES", (simplify, breaks))
    with pytest.raises(IRError, match="takes 2 operands"):
        optimise(Writer(y="ptr<i32>").done())


def test_optimising_twice_changes_nothing():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    block = w.load("x", (16, 64))
    w.store("y", w("fadd", block, block))
    once = print_kernel(optimise(w.done()))
    assert print_kernel(optimise(TileKernel.parse(once).kernel)) == once


def test_a_kernel_is_its_text():
    text = KERNEL.text
    again = TileKernel.parse(text)
    assert (again.text, again.name) == (text, "k")
    with pytest.raises(IRError):
        TileKernel.parse(text.replace("add(", "ad(", 1))
    with pytest.raises(IRError):
        TileKernel.parse(text[:-20])


def test_machine_code_is_made_once_for_each_instruction_set(monkeypatch):
    kernel = count_up()
    first = kernel.host
    assert kernel.host is first
    monkeypatch.setenv("ASTEROPE_ISA", "portable")
    assert kernel.host is not first
    assert kernel.host.isa.name == "portable"

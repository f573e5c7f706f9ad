"""Kernels whose way depends on what is in memory: timed with it, refused without."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.errors import AsteropeError, KernelError
from asterope.runtime import TileKernel, optimise
from asterope.sim import Region, simulate_launch
from ir_builder import Writer
from sim_programs import PLAIN, timed


def counted():
    """Load how often to loop, then loop so often over loads."""
    w = Writer(n="ptr<i32>", x="ptr<fp32>", y="ptr<fp32>")
    w.builder.loc = "kernel.py:7"
    count = w.load("n")
    w.builder.loc = "kernel.py:9"
    zero, one = w.const("i32", 0), w.const("i32", 1)
    start = w.const(w["x"].type.with_elem("fp32"), 0.0)

    def body(i, total):
        return [w("fadd", total, w.load_at(w("addptr", w["x"], i)))]

    (total,) = w.for_(zero, count, one, [start], body)
    w.store_at(w["y"], total)
    return w.done()


def branching():
    w = Writer(n="ptr<i32>", x="ptr<fp32>", y="ptr<fp32>")
    w.builder.loc = "kernel.py:4"
    yes = w.compare("sgt", w.load("n"), w.const("i32", 0))
    (block,) = w.if_(
        yes, lambda: [w("exp", w.load("x", (64,)))], lambda: [w.const("fp32[64]", 0.0)]
    )
    w.store("y", block)
    return w.done()


def arrays(n):
    return [np.array([n], np.int32), np.ones(4096, np.float32), np.zeros(64, np.float32)]


@pytest.mark.parametrize("kernel", [counted, branching])
def test_without_memory_the_line_that_decides_is_named(kernel):
    with pytest.raises(KernelError) as caught:
        timed(kernel(), PLAIN)
    assert (
        caught.value.where
        == {"counted": "kernel.py:7", "branching": "kernel.py:4"}[kernel.__name__]
    )
    assert "depends on values in memory" in caught.value.what
    assert "real tensors" in caught.value.hint


@pytest.mark.parametrize("fidelity", ["tile", "roofline"])
@pytest.mark.parametrize("n", [0, 1, 5, 40])
def test_with_memory_the_loop_runs_as_often_as_memory_says(n, fidelity):
    result = timed(counted(), PLAIN, memory=arrays(n), fidelity=fidelity)
    assert result.instructions == 1 + 2 * n + 1  # the count, loads and additions, the store
    assert result.asked_bytes == 4 * (1 + n + 1)


def test_with_memory_the_branch_is_taken_that_memory_says():
    engines = [
        [e.label for e in timed(branching(), PLAIN, memory=arrays(n)).events] for n in (0, 1)
    ]
    assert engines[0] == ["load n", "store y"]
    assert engines[1] == ["load n", "load x", "exp", "store y"]


def test_what_follows_waits_for_the_value_that_decides_its_addresses():
    w = Writer(index="ptr<i32>", x="ptr<fp32>", y="ptr<fp32>")
    at = w("addptr", w["x"], w.load("index"))
    w.store("y", w.load_at(w.pointers(at, (64,))))
    events = timed(w.done(), PLAIN, memory=arrays(64)).events
    first, second = sorted((e for e in events if e.engine == "load"), key=lambda e: e.number)
    assert second.start_ps == first.end_ps
    assert second.waits == (first.number,)


def test_memory_is_not_changed_by_timing():
    memory = arrays(9)
    before = [a.copy() for a in memory]
    timed(counted(), PLAIN, memory=memory)
    for array, copy in zip(memory, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_kernel_that_decides_by_what_it_has_itself_written_is_not_timed_wrongly():
    """It stores 3 and then loops as often as it reads there; timing computes no values."""
    w = Writer(n="ptr<i32>", x="ptr<fp32>", y="ptr<fp32>")
    w.store_at(w["n"], w.const("i32", 3))
    count = w.load("n")

    def body(i):
        w.store_at(w("addptr", w["y"], i), w.load_at(w("addptr", w["x"], i)))
        return []

    w.for_(w.const("i32", 0), count, w.const("i32", 1), [], body)
    kernel = w.done()
    try:
        result = timed(kernel, PLAIN, memory=arrays(0))
    except AsteropeError as error:
        assert error.where or error.hint
        return
    assert result.instructions == 2 + 2 * 3


def writes_what_it_reads(pointer):
    """Loop as often as `n` says, and write through a pointer."""
    w = Writer(n="ptr<i32>", other="ptr<i32>")
    w.builder.loc = "kernel.py:3"
    count = w.load("n")

    def body(i):
        w.store_at(w("addptr", pointer(w, count), i), i)
        return []

    w.for_(w.const("i32", 0), count, w.const("i32", 1), [], body)
    return w.done()


def chosen(w, count):
    """Choose a pointer in a branch."""
    yes = w.compare("sgt", count, w.const("i32", 100))
    return w.if_(yes, lambda: [w["n"]], lambda: [w["other"]])[0]


@pytest.mark.parametrize("pointer", [lambda w, _: w["n"], chosen], ids=["itself", "chosen"])
@pytest.mark.parametrize("fidelity", ["tile", "roofline"])
def test_a_kernel_that_writes_what_decides_is_refused_by_line(pointer, fidelity):
    memory = [np.array([3], np.int32), np.zeros(8, np.int32)]
    with pytest.raises(KernelError) as caught:
        timed(writes_what_it_reads(pointer), PLAIN, memory=memory, fidelity=fidelity)
    assert caught.value.where == "kernel.py:3"
    assert "also writes" in caught.value.what
    assert "two launches" in caught.value.hint


def test_a_kernel_that_writes_elsewhere_is_timed():
    memory = [np.array([3], np.int32), np.zeros(8, np.int32)]
    kernel = writes_what_it_reads(lambda w, _: w["other"])
    assert timed(kernel, PLAIN, memory=memory).instructions == 1 + 3


# -- on copies of what is written ------------------------------------------------------------------
def test_writes_that_decide_are_repeated_on_a_copy():
    memory = [np.array([3, 0, 0, 0], np.int32), np.zeros(8, np.int32)]
    before = [a.copy() for a in memory]
    for pointer in (lambda w, _: w["n"], chosen):
        result = timed(writes_what_it_reads(pointer), PLAIN, memory=memory, copied=True)
        assert result.instructions == 1 + 3
    for array, copy in zip(memory, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def counting(step):
    """Each program loops as often as `n` says, which the one before it has raised."""
    w = Writer(n="ptr<i32>", x="ptr<fp32>", y="ptr<fp32>")
    count = w.load("n")

    def body(i):
        w.store_at(w("addptr", w["y"], i), w.load_at(w("addptr", w["x"], i)))
        return []

    w.for_(w.const("i32", 0), count, w.const("i32", 1), [], body)
    w.store_at(w["n"], w("add", count, w.const("i32", step)))
    return w.done()


@pytest.mark.parametrize("fidelity", ["tile", "roofline"])
@pytest.mark.parametrize(("step", "programs"), [(1, 4), (0, 200), (20, 20)])
def test_programs_run_in_order_once_whoever_plays_them(step, programs, fidelity):
    """Also where the first room for records is too small and all programs run anew."""
    memory = arrays(2)
    result = timed(counting(step), PLAIN, programs, memory=memory, copied=True, fidelity=fidelity)
    loops = sum(2 + step * p for p in range(programs))
    assert result.instructions == 2 * programs + 2 * loops
    assert memory[0].item() == 2
    again = timed(counting(step), PLAIN, programs, memory=memory, copied=True, fidelity=fidelity)
    assert again == result


def test_two_names_of_one_array_are_copied_as_one():
    w = Writer(flag="ptr<i32>", same="ptr<i32>", y="ptr<fp32>")
    w.store_at(w["same"], w("add", w.load("same"), w.const("i32", 2)))

    def body(i):
        w.store_at(w("addptr", w["y"], i), w.const("fp32", 1.0))
        return []

    w.for_(w.const("i32", 0), w.load("same"), w.const("i32", 1), [], body)
    w.for_(w.const("i32", 0), w.load("flag"), w.const("i32", 1), [], body)
    memory = [np.array([3], np.int32)] * 2 + [np.zeros(8, np.float32)]
    result = timed(w.done(), PLAIN, memory=memory, copied=True)
    assert result.instructions == 2 + 1 + 5 + 1 + 5


def test_an_address_without_an_array_is_refused():
    memory = [np.array([3, 0, 0], np.int32), np.zeros(8, np.int32)]
    kernel = optimise(writes_what_it_reads(lambda w, _: w["n"]))
    program = TileKernel(kernel).time_program
    args = [Region(a.ctypes.data, 0, 1 << 63) for a in memory]
    with pytest.raises(KernelError, match="also writes"):
        simulate_launch(program, (1, 1, 1), args, PLAIN)

"""Atomics in time: a read, then a write, and what waits for them.

On `PLAIN` a cycle is 1000 ps.
"""

from __future__ import annotations

import numpy as np
import pytest

from asterope.errors import KernelError
from asterope.ir import Type
from ir_builder import Writer
from sim_programs import PLAIN, timed


def atomic(w, pointers, value, *, order="relaxed", combine="fadd", mask=None):
    operands = [v for v in (pointers, value, mask) if v is not None]
    attrs = {"combine": combine, "memory_order": order, "mask": mask is not None}
    return w("atomic_rmw", *operands, to=value.type, **attrs)


def one_atomic(shape, mask=None):
    """Load a block and add it to memory."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    value = w.load("x", shape)
    at = w.pointers("y", shape)
    atomic(w, at, value, mask=mask(w) if mask else None)
    return w.done()


def events(result, label):
    return sorted((e for e in result.events if e.label == label), key=lambda e: e.number)


@pytest.mark.parametrize("shape", [(64,), (16, 32)])
def test_an_atomic_reads_and_writes_each_byte_once(shape):
    size = 4 * int(np.prod(shape))
    result = timed(one_atomic(shape), PLAIN)
    read, write = events(result, "atomic y")
    assert (read.engine, write.engine) == ("load", "store")
    assert (read.bytes, write.bytes) == (size, size)
    assert result.asked_bytes == 3 * size
    assert result.bytes["hbm_read"] == 2 * size
    assert result.bytes["hbm_written"] == size


def test_the_write_waits_for_the_read_and_the_read_for_the_value():
    result = timed(one_atomic((64,)), PLAIN)
    (load,), (read, write) = events(result, "load x"), events(result, "atomic y")
    assert read.waits == (load.number,)
    assert write.waits == (read.number,)
    assert write.start_ps == read.end_ps > load.end_ps


def test_elements_at_one_address_are_moved_once():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    columns = w.along(w.iota(32), 1, (16, 32))
    atomic(w, w("addptr", w.broadcast(w["y"], (16, 32)), columns), w.load("x", (16, 32)))
    result = timed(w.done(), PLAIN)
    assert [e.bytes for e in events(result, "atomic y")] == [4 * 32, 4 * 32]


def test_what_is_masked_off_is_not_moved():
    def first_five(w):
        return w.compare("slt", w.iota(64), w.const("i32[64]", 5))

    result = timed(one_atomic((64,), mask=first_five), PLAIN)
    assert [e.bytes for e in events(result, "atomic y")] == [20, 20]


def test_atomics_at_scattered_addresses_cost_a_granule_each():
    w = Writer(index="ptr<i32>", x="ptr<fp32>", y="ptr<fp32>")
    at = w("addptr", w.broadcast(w["y"], (64,)), w.load("index", (64,)))
    atomic(w, at, w.load("x", (64,)))
    memory = [np.arange(64, dtype=np.int32), np.ones(64, np.float32), np.ones(64, np.float32)]
    result = timed(w.done(), PLAIN, memory=memory)
    granule = PLAIN.tile.dma.gather_granule_bytes
    assert [e.bytes for e in events(result, "atomic y")] == [64 * granule, 64 * granule]


def test_who_uses_the_old_value_waits_for_the_round_trip():
    w = Writer(y="ptr<fp32>", z="ptr<fp32>")
    old = atomic(w, w.pointers("y", (64,)), w.const("fp32[64]", 1.0))
    w.store("z", old)
    result = timed(w.done(), PLAIN)
    (_, write), (store,) = events(result, "atomic y"), events(result, "store z")
    assert store.waits == (write.number,)


def around(order, where):
    """An atomic in a loop, a branch or neither, then a load."""
    w = Writer(y="ptr<fp32>", x="ptr<fp32>", z="ptr<fp32>", n="i32")
    one = w.const("fp32", 1.0)

    def step(*_):
        atomic(w, w["y"], one, order=order)
        return []

    if where == "for":
        w.for_(0, 3, 1, [], step)
    elif where == "while":
        w.while_(
            [w.const("i32", 0)],
            lambda i: (w.compare("slt", i, w.const("i32", 3)), i),
            lambda i: [*step(), w("add", i, w.const("i32", 1))],
        )
    elif where == "if":
        w.if_(w.compare("sgt", w["n"], w.const("i32", 0)), step)
    else:
        step()
    w.store("z", w.load("x", (64,)))
    return w.done()


@pytest.mark.parametrize("where", ["for", "while", "if", "straight"])
@pytest.mark.parametrize("order", ["relaxed", "acquire", "release", "acq_rel"])
def test_what_follows_an_acquiring_atomic_waits_for_it(order, where):
    result = timed(around(order, where), PLAIN, args=(1,))
    last, (load,) = events(result, "atomic y")[-1], events(result, "load x")
    if order in ("acquire", "acq_rel"):
        assert load.waits == (last.number,)
        assert load.start_ps == last.end_ps
    else:
        assert load.waits == ()
        assert load.start_ps < last.end_ps


def test_a_branch_not_taken_holds_nobody_up():
    result = timed(around("acq_rel", "if"), PLAIN, args=(0,))
    (load,) = events(result, "load x")
    assert load.waits == ()


def test_release_comes_after_the_stores_before_it():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    w.store("x", w.const(Type("fp32", (1 << 14,)), 1.0))
    atomic(w, w["y"], w.const("fp32", 1.0), order="release")
    result = timed(w.done(), PLAIN)
    (store,), (_, write) = events(result, "store x"), events(result, "atomic y")
    assert write.end_ps >= store.end_ps


# -- locks -----------------------------------------------------------------------------------------
def locked():
    w = Writer(lock="ptr<i32>", x="ptr<fp32>")
    zero, one = w.const("i32", 0), w.const("i32", 1)

    def condition():
        old = w("atomic_cas", w["lock"], zero, one, to=one.type, memory_order="acq_rel")
        return [w.compare("eq", old, one)]

    w.while_([], condition, list)
    w.store("x", w("fadd", w.load("x", (64,)), w.const("fp32[64]", 1.0)))
    atomic(w, w["lock"], zero, order="acq_rel", combine="exchange")
    return w.done()


def test_a_lock_is_timed_as_if_nobody_else_held_it():
    memory = [np.zeros(1, np.int32), np.zeros(64, np.float32)]
    result = timed(locked(), PLAIN, 50, memory=memory, copied=True)
    assert len(events(result, "atomic lock")) == 50 * 4
    assert not memory[0].any()
    assert not memory[1].any()
    assert result == timed(locked(), PLAIN, 50, memory=memory, copied=True)


def test_inside_the_lock_nothing_is_loaded_before_it_is_held():
    memory = [np.zeros(1, np.int32), np.zeros(64, np.float32)]
    result = timed(locked(), PLAIN, memory=memory, copied=True)
    taken, (load,) = events(result, "atomic lock")[1], events(result, "load x")
    assert load.start_ps == taken.end_ps


def test_a_loop_that_takes_work_from_other_programs_is_refused_by_line():
    w = Writer(counter="ptr<i32>", x="ptr<fp32>", n="i32")
    one = w.const("i32", 1)

    def ticket():
        return atomic(w, w["counter"], one, combine="add")

    def work(i):
        w.store_at(w("addptr", w["x"], i), w.const("fp32", 1.0))
        return [ticket()]

    first = ticket()
    w.builder.loc = "kernel.py:8"
    w.while_([first], lambda i: (w.compare("slt", i, w["n"]), i), work)
    memory = [np.zeros(1, np.int32), np.zeros(64, np.float32)]
    with pytest.raises(KernelError, match="take work from each other") as caught:
        timed(w.done(), PLAIN, args=(5,), memory=memory, copied=True)
    assert caught.value.where == "kernel.py:8"
    assert "program_id" in caught.value.hint

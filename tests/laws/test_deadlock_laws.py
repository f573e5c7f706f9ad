"""Programs that wait for each other: played where it can be, reported where it cannot, never hung.

Each program waits until the flag of another is set, if it waits for one, and then sets its own.
Some order of the programs ends exactly where the waits have no cycle.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_time_laws import QUICK, THOROUGH

from asterope.errors import DeadlockError
from asterope.host import timing
from asterope.ir import Type
from asterope.runtime import TileKernel, optimise
from ir_builder import Writer
from sim_programs import PLAIN, timed

NOBODY = -1


def chain():
    """Wait for flags[waits[p]], then set flags[p]."""
    w = Writer(waits="ptr<i32>", flags="ptr<i32>")
    pid = w("program_id", to=Type("i32"), axis=0)
    target = w.load_at(w("addptr", w["waits"], pid))
    zero, one = w.const("i32", 0), w.const("i32", 1)

    def wait():
        w.builder.loc = "kernel.py:5"
        w.while_([zero], is_unset, lambda seen: [seen])
        w.builder.loc = ""
        return []

    def is_unset(_):
        flag = w.load_at(w("addptr", w["flags"], target), volatile=True)
        return [w.compare("eq", flag, zero), flag]

    w.if_(w.compare("sge", target, zero), wait)
    w.store_at(w("addptr", w["flags"], pid), one)
    return TileKernel(optimise(w.done()))


CHAIN = chain()


@st.composite
def waits(draw, max_programs=12):
    count = draw(st.integers(1, max_programs))
    return [draw(st.integers(NOBODY, count - 1)) for _ in range(count)]


def run(waiting, **options):
    memory = [np.array(waiting, np.int32), np.zeros(len(waiting), np.int32)]
    return timed(CHAIN, PLAIN, len(waiting), memory=memory, copied=True, **options)


def without_end(waiting):
    """Return the programs whose waits lead into a cycle, by following them."""
    found = []
    for program in range(len(waiting)):
        at, seen = program, set()
        while at != NOBODY and at not in seen:
            seen.add(at)
            at = waiting[at]
        if at != NOBODY:
            found.append(program)
    return found


def check_waits(waiting):
    stuck = without_end(waiting)
    if not stuck:
        result = run(waiting)
        assert result.instructions == sum(2 + (other != NOBODY) for other in waiting)
        assert sum(result.breakdown_ps.values()) == result.time_ps
        return
    with pytest.raises(DeadlockError) as caught:
        run(waiting)
    assert caught.value.where == "kernel.py:5"
    assert "wait for each other" in caught.value.what
    named = [f"program {p} at kernel.py:5" for p in stuck[:8]]
    assert caught.value.what.count("program ") == len(named)
    assert all(name in caught.value.what for name in named)
    assert (f"and {len(stuck) - 8} more" in caught.value.what) == (len(stuck) > 8)


@settings(QUICK, max_examples=12)
@given(waits())
def test_waits_are_played_or_the_programs_of_a_cycle_are_named(waiting):
    check_waits(waiting)


@pytest.mark.slow
@settings(THOROUGH, max_examples=200)
@given(waits(max_programs=20))
def test_many_waits_are_played_or_reported(waiting):
    check_waits(waiting)


@pytest.mark.parametrize("count", [2, 9, 500])
def test_programs_that_each_wait_for_the_next_are_played_from_the_last(count):
    assert run([*range(1, count), NOBODY]).instructions == 3 * count - 1


def test_a_ring_is_a_deadlock_at_any_fidelity():
    for fidelity in ("roofline", "tile"):
        with pytest.raises(DeadlockError, match=r"program 0 at kernel\.py:5, program 1 at"):
            run([1, 2, 0], fidelity=fidelity)


def test_pairs_of_which_the_first_waits_are_played():
    pairs = [p + 1 if p % 2 == 0 else NOBODY for p in range(400)]
    assert run(pairs).instructions == 200 * 5


def test_waits_that_take_too_long_to_put_in_order_are_said():
    scattered = [(577 * p + 300) % 1000 if p < 999 else NOBODY for p in range(1000)]
    with pytest.raises(DeadlockError, match="no order of the programs was found"):
        run(scattered)


def test_a_loop_that_waits_for_what_nobody_writes_is_said():
    w = Writer(flags="ptr<i32>", y="ptr<i32>")
    zero = w.const("i32", 0)
    w.builder.loc = "kernel.py:9"

    def is_unset(_):
        flag = w.load_at(w["flags"], volatile=True)
        return [w.compare("eq", flag, zero), flag]

    (flag,) = w.while_([zero], is_unset, lambda seen: [seen])
    w.store_at(w["y"], flag)
    memory = [np.zeros(1, np.int32), np.zeros(1, np.int32)]
    with pytest.raises(DeadlockError, match="waits for what no program of the launch writes") as e:
        timed(w.done(), PLAIN, memory=memory)
    assert e.value.where == "kernel.py:9"


def test_a_loop_may_take_many_rounds_that_end():
    w = Writer(n="i32", y="ptr<i32>")
    zero, one = w.const("i32", 0), w.const("i32", 1)
    (count,) = w.while_(
        [zero], lambda i: [w.compare("slt", i, w["n"]), i], lambda i: [w("add", i, one)]
    )
    w.store_at(w("addptr", w["y"], count), one)
    assert timed(w.done(), PLAIN, args=[timing.MOST_ROUNDS - 1]).instructions == 1

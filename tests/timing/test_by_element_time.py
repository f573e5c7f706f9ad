"""What reductions, scans and permutations cost, and that control may depend on them."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.errors import KernelError
from ir_builder import Writer
from sim_programs import PLAIN, timed


def test_a_reduction_and_a_scan_cost_their_function_for_every_element():
    def kernel(name, **attrs):
        w = Writer(x="ptr<i32>", y="ptr<i32>")
        x = w.load("x", (8, 64))
        to = ["i32[8]"] * 2 if name == "reduce" else [x.type] * 2

        def body(a, i, b, j):
            wins = w.compare("sgt", a, b)
            return [w("select", wins, *pair, to="i32") for pair in ((a, b), (i, j))]

        _, where = w.by_element(name, [x, w("add", x, x)], body, to=to, axis=1, **attrs)
        w.store("y", where)
        return w.done()

    for made in (kernel("reduce"), kernel("scan", reverse=False)):
        result = timed(made, PLAIN)
        assert result.vector_ops == 8 * 64 * (1 + 3)  # a sum, a comparison, two choices
        assert result.time_ps >= result.roofline_ps


@pytest.mark.parametrize("name", ["exchange", "gather"])
def test_elements_that_change_places_go_through_the_reshaper(name):
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", i="ptr<i32>")
    x = w.load("x", (16, 64))
    if name == "exchange":
        moved = w("exchange", x, axis=1, mask=3)
    else:
        moved = w("gather", x, w.load("i", (16, 64)), to=x.type, axis=1)
    w.store("y", moved)
    (event,) = [e for e in timed(w.done(), PLAIN).events if e.engine == "vector"]
    assert event.label == name
    lanes = PLAIN.tile.reshaper.lanes_fp32
    assert event.end_ps - event.start_ps == (16 * 64 // lanes + 5) * 1000


def test_a_pattern_of_the_index_alone_costs_nothing():
    w = Writer(x="ptr<i32>", y="ptr<i32>")
    bit = w("and", w("shru", w.iota(64), w.const("i32[64]", 3)), w.const("i32[64]", 1))
    w.store("y", w("xor", w.load("x", (64,)), bit))
    assert timed(w.done(), PLAIN).vector_ops == 64


def counted_by_a_reduction():
    """Loop as often as the place of the largest element says."""
    w = Writer(n="ptr<i32>", x="ptr<fp32>", y="ptr<fp32>")
    w.builder.loc = "kernel.py:3"
    n = w.load("n", (16,))
    limit = w.const("i32", 100)

    def body(a, i, b, j):
        wins = w("and", w.compare("sgt", a, b), w.compare("slt", a, limit))
        return [w("select", wins, *pair, to="i32") for pair in ((a, b), (i, j))]

    _, where = w.by_element("reduce", [n, w.iota(16)], body, to=["i32"] * 2, axis=0)
    start = w.const("fp32", 0.0)
    zero, one = w.const("i32", 0), w.const("i32", 1)
    (total,) = w.for_(
        zero, where, one, [start],
        lambda i, t: [w("fadd", t, w.load_at(w("addptr", w["x"], i)))],
    )  # fmt: skip
    w.store("y", total)
    return w.done()


@pytest.mark.parametrize("place", [0, 5, 15])
def test_a_loop_runs_as_often_as_a_reduction_of_memory_says(place):
    numbers = np.zeros(16, np.int32)
    numbers[place] = 7
    memory = [numbers, np.ones(64, np.float32), np.zeros(1, np.float32)]
    result = timed(counted_by_a_reduction(), PLAIN, memory=memory)
    loads = [e for e in result.events if e.engine == "load"]
    assert len(loads) == 1 + place


def test_without_memory_the_load_behind_a_reduction_is_named():
    with pytest.raises(KernelError) as caught:
        timed(counted_by_a_reduction(), PLAIN)
    assert caught.value.where == "kernel.py:3"


def test_branches_inside_a_function_for_elements_need_no_memory():
    w = Writer(x="ptr<i32>", y="ptr<i32>")
    x, n = w.load("x", (64,)), w.load("x")

    def body(a):
        return w.if_(w.compare("slt", a, n), lambda: [w("add", a, n)], lambda: [a])

    (result,) = w.by_element("map", [x], body, to=[x.type], pack=1)
    w.store("y", result)
    assert timed(w.done(), PLAIN).vector_ops == 2 * 64

"""What is computed in one dimension is what was to be computed in many."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.compiler import find_tiles, flatten, simplify
from asterope.ir import Type, print_kernel, verify
from ir_builder import Writer, interpreted


def assert_same_results(kernel, *arrays):
    """Assert that a kernel leaves the same arrays after the pass; return the simplified one."""
    text = print_kernel(kernel)
    flat = flatten(kernel)
    verify(flat)
    assert print_kernel(kernel) == text
    flat = simplify(flat)
    for got, expected in zip(interpreted(flat, arrays), interpreted(kernel, arrays), strict=True):
        np.testing.assert_array_equal(got, expected)
    return flat


def taken_apart(w, size, shape):
    return w("reshape", w.load("x", (size,)), to=Type("i32", shape))


def numbers(count):
    return np.random.default_rng(count).integers(-50, 50, count, dtype=np.int32)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_an_index_along_any_dimension_is_found_in_the_place(axis):
    shape = (2, 4, 2, 8)
    w = Writer(x="ptr<i32>")
    h = taken_apart(w, 128, shape)
    index = w.along(w.iota(shape[axis], start=3), axis, shape)
    doubled = w("mul", index, w.const(index.type, 2))
    w.store("x", w("reshape", w("add", h, doubled), to="i32[128]"))
    flat = assert_same_results(w.done(), numbers(128))
    assert all(len(v.type.shape) < 4 for op in flat.walk() for v in op.results)


@pytest.mark.parametrize("combine", ["add", "xor", "maxs"])
@pytest.mark.parametrize("axis", [0, 2, 3])
def test_reductions_and_scans_of_inner_dimensions(axis, combine):
    w = Writer(x="ptr<i32>", y="ptr<i32>")
    h = taken_apart(w, 64, (2, 2, 4, 4))
    total = w.reduce(h, axis, combine)
    w.store("y", w("reshape", total, to=Type("i32", (total.type.num_elements,))))
    totals = w("scan", h, axis=axis, combine=combine, reverse=True)
    w.store("x", w("reshape", totals, to="i32[64]"))
    assert_same_results(w.done(), numbers(64), np.zeros(64, np.int32))


def exchanged(w, x, axis):
    """Exchange neighbours as Triton writes it."""
    rest = x.type.shape[:axis] + x.type.shape[axis + 1 :]
    both = w("reduce", x, to=x.type.with_shape(rest), axis=axis, combine="xor")
    kept = (*x.type.shape[:axis], 1, *x.type.shape[axis + 1 :])
    wide = w("expand", both, to=x.type.with_shape(kept), axis=axis)
    return w("xor", x, w.broadcast(wide, x.type.shape))


@pytest.mark.parametrize("shape", [(2, 2, 2, 2), (2, 8), (4, 2, 1, 2)])
def test_flips_are_exchanges(shape):
    w = Writer(x="ptr<i32>")
    h = taken_apart(w, 16, shape)
    for axis, size in enumerate(shape):
        if size == 2:
            h = exchanged(w, h, axis)
    w.store("x", w("reshape", h, to="i32[16]"))
    flat = assert_same_results(w.done(), numbers(16))
    names = [op.name for op in flat.walk()]
    assert names.count("exchange") == 1
    assert "reduce" not in names


def test_the_xor_along_a_longer_dimension_is_no_exchange():
    w = Writer(x="ptr<i32>")
    w.store("x", w("reshape", exchanged(w, taken_apart(w, 16, (4, 4)), 1), to="i32[16]"))
    flat = assert_same_results(w.done(), numbers(16))
    assert "exchange" not in [op.name for op in flat.walk()]


def test_accesses_through_pointers_that_were_taken_apart_are_tiles():
    w = Writer(x="ptr<i32>", y="ptr<i32>")
    shape = (2, 2, 2, 4)
    place = w("reshape", w.iota(32), to=Type("i32", shape))
    mask = w.compare("slt", place, w.const(place.type, 27))
    pointers = w("addptr", w.broadcast(w["x"], shape), place)
    value = w.load_at(pointers, mask=mask, other=w.const(place.type, 5))
    w.store_at(w("addptr", w.broadcast(w["y"], shape), place), value, mask=mask)
    flat = assert_same_results(w.done(), numbers(32), np.zeros(32, np.int32))
    names = [op.name for op in simplify(find_tiles(flat)).walk()]
    assert "load_tile" in names
    assert "store_tile" in names


def test_branches_and_loops_keep_their_blocks():
    w = Writer(x="ptr<i32>", n="i32")
    h = taken_apart(w, 16, (2, 2, 2, 2))

    def body(i, a):
        return w.if_(
            w.compare("slt", i, w.const("i32", 2)),
            lambda: [w("add", a, h)],
            lambda: [exchanged(w, w("sub", a, h), 3)],
        )

    (h,) = w.for_(0, w["n"], 1, [h], body)
    w.store("x", w("reshape", h, to="i32[16]"))
    kernel = w.done()
    for n in (0, 1, 5):
        assert_same_results(kernel, numbers(16), n)

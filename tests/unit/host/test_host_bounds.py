"""Masks that loops take as bounds give what the interpreter gives, wherever they begin and end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.host import HostKernel
from ir_builder import Writer, assert_same_bits

SIZE = 64
PREDICATES = ("slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
# Before, at and behind chunk boundaries and the ends of a block, and at the ends of 32 bits.
EDGES = (-(1 << 31), -20, -1, 0, 1, 15, 16, 17, 40, 63, 64, 65, 100, (1 << 31) - 1)


def tiled(kernel):
    return simplify(find_tiles(simplify(kernel)))


def copied(write_mask, **params):
    """Write a kernel that copies and doubles where a mask of 64 elements is on."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", total="ptr<fp32>", **params)
    mask = write_mask(w)
    row = w.load("x", (SIZE,), mask=mask, other=w.const(f"fp32[{SIZE}]", 3.0))
    w.store("total", w.reduce(row, 0, "fadd"))
    w.store("y", w("fadd", row, row), mask=mask)
    return tiled(w.done())


def arrays():
    x = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    return [x, np.full(SIZE, 7, np.float32), np.zeros(1, np.float32)]


def line(w, start, step=1):
    """Return start + step * i."""
    steps = w.iota(SIZE)
    if step != 1:
        steps = w("mul", steps, w.const(steps.type, step))
    return w("add", w.broadcast(start, (SIZE,)), steps)


@pytest.mark.parametrize("is_swapped", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pred", PREDICATES)
def test_a_compare_with_a_scalar_holds_as_far_as_it_says(pred, is_swapped):
    def mask(w):
        sides = [line(w, w["start"]), w.broadcast(w["n"], (SIZE,))]
        return w.compare(pred, *(reversed(sides) if is_swapped else sides))

    kernel = copied(mask, start="i32", n="i32")
    for start, n in itertools.product((0, 5, -3, (1 << 31) - 30), EDGES):
        assert_same_bits(kernel, [*arrays(), start, n])


@pytest.mark.parametrize("pred", PREDICATES)
@pytest.mark.parametrize("step", [-1, pytest.param(3, marks=pytest.mark.slow), 1 << 25])
def test_numbers_may_be_further_apart_fall_or_wrap(step, pred):
    def mask(w):
        return w.compare(pred, line(w, w["start"], step), w.broadcast(w["n"], (SIZE,)))

    kernel = copied(mask, start="i32", n="i32")
    for n in EDGES:
        assert_same_bits(kernel, [*arrays(), 0, n])


def test_a_widened_compare_wraps_where_its_narrow_sum_does():
    def mask(w):
        wide = w.convert(line(w, w["start"]), "i64", "sext")
        return w.compare("slt", wide, w.broadcast(w["n"], (SIZE,)))

    kernel = copied(mask, start="i32", n="i64")
    for start, n in itertools.product((0, (1 << 31) - 30), (-(1 << 63), -1, 0, 33, (1 << 63) - 1)):
        assert_same_bits(kernel, [*arrays(), start, n])


@pytest.mark.parametrize("pred", ["eq", "ne", "ugt"])
def test_masks_that_are_no_bounds_stay_masks(pred):
    def mask(w):
        bounded = w.compare("slt", w.iota(SIZE), w.broadcast(w["n"], (SIZE,)))
        other = w.compare(pred, w.iota(SIZE), w.const(f"i32[{SIZE}]", 20))
        return w("and", bounded, other)

    kernel = copied(mask, n="i32")
    for n in (0, 20, 21, 50, 64):
        assert_same_bits(kernel, [*arrays(), n])


def test_a_mask_that_is_also_data_keeps_its_value():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32", m="i32")
    at = w.iota(SIZE)
    near, far = (w.compare("slt", at, w.broadcast(w[p], (SIZE,))) for p in ("n", "m"))
    row = w.load("x", (SIZE,), mask=near)
    w.store("y", w("select", near, row, w.const(row.type, -1.0), to=row.type), mask=far)
    kernel = tiled(w.done())
    for n, m in itertools.product((0, 16, 40, 64), repeat=2):
        assert_same_bits(kernel, [*arrays()[:2], n, m])


@pytest.mark.parametrize("shape", [(16, 32), (32, 32), (4, 8)])
@pytest.mark.parametrize("strides", [(64, 1), (1, 64)])
def test_rows_and_columns_are_bounded_each_for_itself(shape, strides):
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", rows="i32", columns="i32")
    masks = []
    for d, name in enumerate(("rows", "columns")):
        at = w.iota(shape[d])
        mask = w.compare("slt", at, w.broadcast(w[name], at.type.shape))
        masks.append(w.along(mask, d, shape))
    both = w("and", *masks)
    block = w.load("x", shape, strides=list(strides), mask=both)
    w.store("y", w("fmul", block, block), strides=list(strides), mask=both)
    kernel = tiled(w.done())
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    for rows, columns in ((0, 3), (3, 0), (1, 1), (3, 17), (16, 32), (40, 40)):
        assert_same_bits(kernel, [x, np.zeros(4096, np.float32), rows, columns])


# -- what is kept in memory -----------------------------------------------------------------------
def scratch_bytes(kernel):
    return HostKernel(kernel).code().scratch_bytes


def test_a_chain_of_elementwise_ops_needs_no_memory_whatever_is_used_twice():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    value = w.load("x", (256,))
    for _ in range(6):
        value = w("fadd", w("exp", value), value)
    w.store("y", value)
    assert scratch_bytes(tiled(w.done())) == 0


def test_a_normalised_row_is_kept_once():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    row = w.load("x", (256,))
    below = w("fsub", row, w.broadcast(w.reduce(row, 0, "fmax"), (256,)))
    weight = w("fmul", below, below)
    w.store("y", w("fdiv", weight, w.broadcast(w.reduce(weight, 0, "fadd"), (256,))))
    kernel = tiled(w.done())
    assert 0 < scratch_bytes(kernel) < 2 * 256 * 4
    x = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    assert_same_bits(kernel, [x, np.zeros_like(x)], disjoint=False)


@pytest.mark.parametrize("disjoint", [True, False])
def test_two_outputs_of_two_inputs_may_be_written_over_them(disjoint):
    """A rotation: each output needs both inputs, also when it overwrites one."""
    for targets in (("y", "z"), ("a", "b"), ("b", "a")):
        w = Writer(a="ptr<fp32>", b="ptr<fp32>", c="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
        a, b, c = (w.load(p, (64,)) for p in "abc")
        w.store(targets[0], w("fsub", w("fmul", a, c), w("fmul", b, b)))
        w.store(targets[1], w("fadd", w("fmul", b, c), w("fmul", a, a)))
        kernel = tiled(w.done())
        if disjoint:
            assert (scratch_bytes(kernel) == 0) == (targets[0] == "y")
        random = np.random.default_rng(0)
        given = [random.standard_normal(64).astype(np.float32) for _ in range(5)]
        assert_same_bits(kernel, given, disjoint=disjoint)

"""Loops that sum into a block: the version for a single round gives the bits of the general one."""

from __future__ import annotations

import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.host.single_round import with_single_rounds
from asterope.ir import interpret, print_kernel, verify
from asterope.native import available_isas
from ir_builder import Writer, assert_same_bits

WIDTH = 128


def summing(start=0.0, *, counter="i32", shape=(WIDTH,), axis=0):
    """y = reduce(start + sum of x's blocks at lo, lo + step, ... below hi), and the rounds in z."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<i32>", lo=counter, hi=counter, step=counter)

    def body(i, acc, rounds):
        first = w("mul", w("remu", i, w.const(counter, 4)), w.const(counter, WIDTH))
        row = w("addptr", w["x"], first)
        on = w.compare("slt", w.iota(WIDTH), w.const(w.iota(WIDTH).type, 101))
        mask = w.along(on, len(shape) - 1, shape)
        x = w.load_at(w.pointers(row, shape, [0] * (len(shape) - 1) + [1]), mask=mask)
        x = w("select", mask, x, w.const(x.type, -0.0), to=x.type)
        return w("fadd", acc, w("fmul", x, x)), w("add", rounds, w.const("i32", 1))

    inits = [w.const(w.const("fp32", start).type.with_shape(shape), start), w.const("i32", 0)]
    acc, rounds = w.for_(w["lo"], w["hi"], w["step"], inits, body, counter)
    total = w.reduce(acc, axis, "fadd")
    w.store("y", total)
    w.store("z", rounds)
    return simplify(find_tiles(w.done()))


def arguments(kernel, lo, hi, step):
    x = np.random.default_rng(0).standard_normal(4 * WIDTH).astype(np.float32)
    return [x, np.zeros(WIDTH, np.float32), np.zeros(1, np.int32), lo, hi, step]


def choices(kernel):
    """Count the loops that have two versions."""
    return sum(op.name == "if" for op in with_single_rounds(kernel).walk())


MOST = {"i32": 2**31 - 1, "i64": 2**63 - 1}
# First number, end and step of loops that run never, once, twice and often.
ROUNDS = [(5, 5, 2), (7, 5, 2), (5, 6, 2), (5, 7, 2), (5, 8, 2), (-3, 30, 7)]


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("start", [0.0, -0.0, 1.5])
def test_any_number_of_rounds_gives_the_interpreters_bits(isa, start):
    kernel = summing(start)
    assert choices(kernel) == 1
    for lo, hi, step in ROUNDS:
        assert_same_bits(kernel, arguments(kernel, lo, hi, step), isa=isa)


@pytest.mark.parametrize("counter", ["i32", "i64"])
def test_rounds_are_counted_to_the_ends_of_the_counter(counter):
    most, kernel = MOST[counter], summing(counter=counter)
    least = -most - 1
    for lo, hi, step in [
        (least, most, most), (least, 0, most), (least, -1, most), (least, least + 1, 1),
        (most - 1, most, most), (0, most, most), (0, most, most // 2),
    ]:  # fmt: skip
        assert_same_bits(kernel, arguments(kernel, lo, hi, step))


@pytest.mark.parametrize(("shape", "axis"), [((4, WIDTH), 0), ((4, WIDTH), 1)])
def test_blocks_are_reduced_along_one_of_their_dimensions(shape, axis):
    kernel = summing(shape=shape, axis=axis)
    assert choices(kernel) == 1
    for lo, hi, step in ROUNDS:
        assert_same_bits(kernel, arguments(kernel, lo, hi, step))


def two_blocks(extra=None):
    """Reduce a mean and a count together, which a loop carries; `extra` uses what it yields."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32")
    shape = (WIDTH,)

    def body(i, mean, count):
        x = w.load_at(w.pointers(w("addptr", w["x"], i), shape))
        more = w("fadd", count, w.const(count.type, 1.0))
        return w("fadd", mean, w("fdiv", w("fsub", x, mean), more)), more

    def join(a, n, b, m):
        total = w("fadd", n, m)
        return w("fdiv", w("fadd", w("fmul", a, n), w("fmul", b, m)), total), total

    zero = w.const(w.const("fp32", 0.0).type.with_shape(shape), 0.0)
    mean, count = w.for_(0, w["n"], WIDTH, [zero, zero], body)
    results = w.by_element("reduce", [mean, count], join, to=["fp32", "fp32"], axis=0)
    for i, value in enumerate(results):
        w.store("y", value, start=i)
    if extra is not None:
        w.store("y", mean if extra == "mean" else w("fneg", mean), start=2)
    return simplify(find_tiles(w.done()))


def test_a_reduction_of_several_blocks_is_one():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(4 * WIDTH).astype(np.float32), np.zeros(2 + WIDTH, np.float32)
    kernel = two_blocks()
    assert choices(kernel) == 1
    for n in (1, WIDTH, WIDTH + 1, 3 * WIDTH):
        assert_same_bits(kernel, [x, y, n])


@pytest.mark.parametrize("extra", ["mean", "less"])
def test_a_block_that_is_needed_as_it_is_has_one_version(extra):
    x = np.random.default_rng(0).standard_normal(4 * WIDTH).astype(np.float32)
    kernel = two_blocks(extra)
    assert choices(kernel) == 0
    assert_same_bits(kernel, [x, np.zeros(2 + WIDTH, np.float32), WIDTH])


def test_a_body_with_effects_has_one_version():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32")

    def body(i, acc):
        x = w.load_at(w.pointers(w("addptr", w["x"], i), (WIDTH,)))
        w.store_at(w.pointers(w("addptr", w["x"], i), (WIDTH,)), w("fneg", x))
        return (w("fadd", acc, x),)

    (acc,) = w.for_(0, w["n"], WIDTH, [w.const(w.iota(WIDTH).type.with_elem("fp32"), 0.0)], body)
    w.store("y", w.reduce(acc, 0, "fadd"))
    kernel = simplify(find_tiles(w.done()))
    assert choices(kernel) == 0
    x = np.random.default_rng(0).standard_normal(4 * WIDTH).astype(np.float32)
    assert_same_bits(kernel, [x, np.zeros(1, np.float32), 2 * WIDTH])


def test_both_versions_are_tile_ir_that_means_the_same():
    kernel = summing()
    before = print_kernel(kernel)
    copy = with_single_rounds(kernel)
    verify(copy)
    assert print_kernel(kernel) == before
    for lo, hi, step in ROUNDS:
        found = []
        for program in (kernel, copy):
            args = arguments(program, lo, hi, step)
            interpret(program, (1, 1, 1), args)
            found.append([a.tobytes() for a in args[:3]])
        assert found[0] == found[1]

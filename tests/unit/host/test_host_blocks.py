"""Where blocks live in generated code: carried by loops, chosen by branches, reused, copied."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from asterope.errors import UnsupportedError
from asterope.ir import Type, dtype_of
from ir_builder import Writer, assert_same_bits, launched

TESTS = Path(__file__).parents[2]


def randoms(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def carry(body, *, shape=(16, 16), count=3, trips=3):
    """Load `count` blocks, carry them through a loop, store them back; compare both readers."""
    names = "abcd"[:count]
    w = Writer(**dict.fromkeys(names, "ptr<fp32>"), n="i32")
    inits = [w.load(name, shape) for name in names]
    one, zero = w.const("i32", 1), w.const("i32", 0)
    results = w.for_(zero, w["n"], one, inits, lambda i, *args: body(w, *args))
    for name, value in zip(names, results, strict=True):
        w.store(name, value)
    kernel = w.done()
    for n in range(trips + 1):
        assert_same_bits(kernel, [*randoms(*[shape] * count), n])


def turned(w, x):
    return w("transpose", x, to=x.type, order=(1, 0))


def test_a_loop_can_swap_its_blocks():
    carry(lambda w, a, b: [b, a], count=2)


def test_a_loop_can_rotate_three_blocks():
    carry(lambda w, a, b, c: [c, a, b])


def test_a_loop_can_carry_one_new_value_twice():
    def body(w, a, b):
        total = w("fadd", a, b)
        return [total, total]

    carry(body, count=2)


def test_a_loop_can_carry_one_old_value_twice():
    carry(lambda w, a, b: [b, b], count=2)


def test_a_block_can_be_replaced_by_its_transpose():
    carry(lambda w, a: [turned(w, a)], count=1)


def test_a_transpose_may_read_what_its_neighbour_overwrites():
    carry(lambda w, a, b: [w("fadd", turned(w, b), a), w("fadd", a, b)], count=2)


def test_a_row_may_be_stretched_over_the_block_it_comes_from():
    def body(w, a, b):
        row = w.reduce(a, 0, "fadd")
        return [w("fsub", a, w.along(row, 1, (16, 16))), w("fadd", b, a)]

    carry(body, count=2)


def test_a_broken_cycle_ends_the_translation():
    """One value is blocked by its neighbour, the neighbour by itself: copying the first is no help.

    In a process of its own, because without end the translation fills the memory.
    """
    code = textwrap.dedent(
        f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        sys.path[:0] = [{str(TESTS)!r}, {str(Path(__file__).parent)!r}]
        from test_host_blocks import carry, turned

        def body(w, a, b):
            fresh = w.const("fp32[16,16]", 1.0)
            return [w("fadd", fresh, fresh), w("fadd", turned(w, b), a)]

        carry(body, count=2)
        """
    )
    try:
        child = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=4.5, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.fail("the translation does not end")
    assert child.returncode == 0, child.stderr[-400:]


@pytest.mark.parametrize("elem", ["i1", "i8", "fp16", "e4m3", "fp64"])
def test_blocks_and_scalars_of_any_element_are_carried(elem):
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    block, scalar = w.load("x", (32,)), w.load("x", start=3)
    results = w.for_(0, 3, 1, [block, scalar], lambda i, b, s: [w.broadcast(s, (32,)), s])
    w.store("y", results[0])
    w.store("y", results[1], start=32)
    x = (np.arange(32) % 2).astype(bool)
    dtype = dtype_of(Type(elem))
    assert_same_bits(w.done(), [x.astype(dtype), np.zeros(33, dtype)])


# -- values from around a block -------------------------------------------------------------------
def dot(w, a, b, acc):
    return w("dot", a, b, acc, to=acc.type, order="pairs")


def use_both_sides(inside, after):
    """Use a cheap outer block first inside one branch or loop, then in the other and behind."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32", c="i1")
    x = w.load("x", (16, 16))
    cheap = w.const("fp32[16,16]", 2.0)
    zero, one = w.const("i32", 0), w.const("i32", 1)
    start = w.const("fp32[16,16]", 0.0)
    if inside == "branch":
        (r,) = w.if_(w["c"], lambda: [dot(w, cheap, x, start)], lambda: [dot(w, x, cheap, start)])
    elif inside == "loop":
        (r,) = w.for_(zero, w["n"], one, [x], lambda i, a: [dot(w, cheap, a, start)])
    else:
        _, r = w.while_(
            [zero, x],
            lambda i, a: (w.compare("slt", i, w["n"]), i, a),
            lambda i, a: [w("add", i, one), dot(w, cheap, a, start)],
        )
    if after:
        r = w("fadd", r, dot(w, cheap, x, start))
    w.store("y", r)
    return w.done()


@pytest.mark.parametrize("inside", ["branch", "loop", "while"])
@pytest.mark.parametrize("after", [False, True])
def test_what_is_put_into_a_buffer_inside_a_block_is_not_expected_outside(inside, after):
    kernel = use_both_sides(inside, after)
    for n in (0, 2):
        for c in (True, False):
            assert_same_bits(kernel, [*randoms((16, 16), (16, 16)), n, c])


def test_a_strided_view_turned_row_major_in_one_branch_stays_one_in_the_other():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", c="i1")
    half, _ = w.op("split", w.load("x", (16, 2)), to=["fp32[16]", "fp32[16]"]).results
    square = Type("fp32", (4, 4))
    (r,) = w.if_(
        w["c"],
        lambda: [w("reshape", half, to=square)],
        lambda: [w("fneg", w("reshape", half, to=square))],
    )
    w.store("y", w("fadd", r, w("reshape", half, to=square)))
    kernel = w.done()
    for c in (True, False):
        assert_same_bits(kernel, [*randoms((16, 2), (4, 4)), c])


def test_scratch_is_reused_only_when_its_value_is_dead():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    x = w.load("x", (16, 16))
    kept = [x]
    for _ in range(6):
        kept.append(dot(w, kept[-1], x, kept[0]))
    total = kept[0]
    for value in kept[1:]:
        total = w("fadd", total, value)
    w.store("y", total)
    assert_same_bits(w.done(), randoms((16, 16), (16, 16)))


def test_an_accumulator_that_is_needed_again_is_not_overwritten():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
    x = w.load("x", (16, 16))
    first = dot(w, x, x, x)
    second = dot(w, first, x, first)
    w.store("y", first)
    w.store("z", second)
    w.store("z", w("fadd", first, second))
    assert_same_bits(w.done(), randoms(*[(16, 16)] * 3))


def test_views_of_an_accumulator_keep_it_alive():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", z="ptr<fp32>")
    x = w.load("x", (16, 16))
    first = dot(w, x, x, x)
    view = w("reshape", first, to="fp32[256]")
    w.store("z", dot(w, x, x, first))
    w.store("y", view)
    assert_same_bits(w.done(), randoms((16, 16), (256,), (16, 16)))


def test_nested_loops_keep_the_outer_blocks():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    x = w.load("x", (8, 8))

    def outer(i, a, b):
        inner = w.for_(0, 2, 1, [a], lambda j, c: [w("fadd", turned(w, c), b)])
        return [b, inner[0]]

    a, b = w.for_(0, 3, 1, [x, w("fneg", x)], outer)
    w.store("x", a)
    w.store("y", b)
    assert_same_bits(w.done(), randoms((8, 8), (8, 8)))


# -- reductions and what cannot be done -----------------------------------------------------------
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("combine", ["and", "or", "xor"])
@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_masks_reduce_over_more_than_one_vector(axis, combine, density):
    w = Writer(x="ptr<i1>", y="ptr<i1>")
    w.store("y", w.reduce(w.load("x", (64, 32)), axis, combine))
    x = np.random.default_rng(1).random((64, 32)) < density
    assert_same_bits(w.done(), [x, np.zeros(x.shape[1 - axis], bool)])


def test_a_reduction_over_another_size_names_the_line_and_a_way_round():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    x = w.load("x", (12,))
    w.builder.loc = "user.py:5:8"
    w.store("y", w.reduce(x, 0, "fadd"))
    message = r"^user\.py:5:8: a reduction over 12 elements .*\nhint: .*power of two"
    with pytest.raises(UnsupportedError, match=message):
        launched(w.done(), randoms((12,), (1,)))


@pytest.mark.parametrize("elem", ["i1", "i32", "fp32", "bf16"])
def test_scalars_pass_through_every_shape_op(elem):
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    x = w.load("x")
    same = w("transpose", w("reshape", x, to=x.type), to=x.type, order=())
    one = w("reshape", w("expand", same, to=Type(elem, (1,)), axis=0), to=Type(elem, (1, 1)))
    pair = w("join", w("reshape", one, to=x.type), x, to=Type(elem, (2,)))
    left, right = w.op("split", pair, to=[x.type, x.type]).results
    condition = w.const("i1", True)
    w.store("y", w("select", condition, left, right, to=x.type))
    w.store("y", right, start=1)
    dtype = dtype_of(Type(elem))
    assert_same_bits(w.done(), [np.array([1]).astype(dtype), np.zeros(2, dtype)])

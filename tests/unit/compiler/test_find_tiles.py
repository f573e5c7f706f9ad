from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.ir import parse_kernel, print_kernel, verify
from ir_builder import Writer, interpreted


def assert_same_results(kernel, arguments):
    """Assert that the kernel and its tiled form leave the same arrays."""
    before = interpreted(kernel, arguments)
    tiled = simplify(find_tiles(parse_kernel(print_kernel(kernel))))
    verify(tiled)
    after = interpreted(tiled, arguments)
    for i, (x, y) in enumerate(zip(after, before, strict=True)):
        np.testing.assert_array_equal(x, y, err_msg=f"array {i}")
    return tiled


def names(kernel):
    return [op.name for op in kernel.walk()]


def test_the_kernel_given_is_left_alone():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    w.store("y", w.load("x", (4, 8)))
    kernel = w.done()
    before = print_kernel(kernel)
    tiled = find_tiles(kernel)
    assert print_kernel(kernel) == before
    assert not {id(op) for op in kernel.walk()} & {id(op) for op in tiled.walk()}


def test_places_and_names_are_kept():
    w = Writer(x="ptr<fp32>")
    w.builder.loc = "user.py:4:2"
    value = w.load("x", (8,))
    value.hint = "row"
    w.builder.loc = "user.py:5:2"
    w.store("x", value)
    kernel = w.done()
    kernel.attrs["num_stages"] = 3
    tiled = simplify(find_tiles(kernel))
    load, store = (op for op in tiled.walk() if op.name in ("load_tile", "store_tile"))
    assert (load.loc, store.loc, load.result.hint) == ("user.py:4:2", "user.py:5:2", "row")
    assert (tiled.name, tiled.params, tiled.attrs) == (kernel.name, kernel.params, kernel.attrs)


@pytest.mark.parametrize("elem", ["i8", "i16"])
def test_offsets_that_wrap_in_a_narrow_integer_still_do(elem):
    """Only sums in 32 bits are taken not to wrap."""
    bits = int(elem[1:])
    w = Writer(x="ptr<i32>", y="ptr<i32>", start=elem)
    small = w.convert(w.iota(32), elem, "trunc")
    total = w("add", small, w.broadcast(w["start"], (32,)))
    middle = w("addptr", w["x"], w.const("i32", 1 << (bits - 1)))
    where = w("addptr", w.broadcast(middle, (32,)), w.convert(total, "i32", "sext"))
    w.store("y", w.load_at(where))
    x = np.arange(1 << bits, dtype=np.int32)
    assert_same_results(w.done(), [x, np.zeros(32, np.int32), (1 << (bits - 1)) - 8])


def test_data_that_wraps_in_a_loop_still_does():
    w = Writer(y="ptr<i64>")
    start = w.convert(w("add", w.iota(16), w.const("i32[16]", 0)), "i64", "sext")
    by = w.const("i32[16]", 2**30 - 4)

    def body(i, x):
        return [w.convert(w("add", w.convert(x, "i32", "trunc"), by), "i64", "sext")]

    (result,) = w.for_(0, 2, 1, [start], body)
    w.store("y", result)
    assert_same_results(w.done(), [np.zeros(16, np.int64)])


def test_other_without_a_mask_is_no_obstacle():
    w = Writer(x="ptr<i32>", y="ptr<i32>")
    w.store("y", w.load("x", (16,), other=w.iota(16)))
    assert_same_results(w.done(), [np.arange(16, dtype=np.int32), np.zeros(16, np.int32)])


@pytest.mark.parametrize("rank", [1, 2])
def test_a_uniform_condition_of_all_elements_is_one_mask(rank):
    shape = (4, 8)[:rank]
    w = Writer(x="ptr<i32>", y="ptr<i32>", n="i32")
    on = w.compare("sgt", w["n"], w.const("i32", 0))
    mask = w.broadcast(on, shape)
    w.store("y", w.load("x", shape, mask=mask), mask=mask)
    x, y = np.arange(32, dtype=np.int32), np.full(32, -1, np.int32)
    kernel = w.done()
    for n in (0, 1):
        tiled = assert_same_results(kernel, [x, y, n])
        assert names(tiled).count("load_tile") == 1


@pytest.mark.parametrize("sizes", [(1, 8), (8, 1), (1, 1)])
def test_dimensions_of_size_one_stretch(sizes):
    w = Writer(x="ptr<i32>", y="ptr<i32>")
    w.store("y", w.broadcast(w.load("x", sizes, strides=[3, 2]), (8, 8)))
    assert_same_results(w.done(), [np.arange(64, dtype=np.int32), np.zeros(64, np.int32)])


def test_the_pointers_of_a_matrix_product_end_as_two_scalars():
    w = Writer(a="ptr<bf16>", b="ptr<bf16>", c="ptr<fp32>", k="i32")
    a, b = w.pointers("a", (16, 32), [64, 1]), w.pointers("b", (32, 16))
    acc = w.const("fp32[16,16]", 0.0)
    by = w.const("i32[16,32]", 32), w.const("i32[32,16]", 512)

    def body(i, p, q, total):
        total = w("dot", w.load_at(p), w.load_at(q), total, to=total.type, order="pairs")
        return w("addptr", p, by[0]), w("addptr", q, by[1]), total

    zero, one = w.const("i32", 0), w.const("i32", 1)
    *_, total = w.for_(zero, w["k"], one, [a, b, acc], body)
    w.store("c", total)
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal(1024).astype(ml_dtypes.bfloat16) for _ in range(2)]
    tiled = assert_same_results(w.done(), [*matrices, np.zeros(256, np.float32), 2])
    (loop,) = (op for op in tiled.walk() if op.name == "for")
    assert [str(v.type) for v in loop.operands[3:]] == ["ptr<bf16>", "ptr<bf16>", "fp32[16,16]"]
    assert [op.name for op in loop.blocks[0].ops] == [
        "load_tile", "load_tile", "dot", "addptr", "addptr", "yield",
    ]  # fmt: skip

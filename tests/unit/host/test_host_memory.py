from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asterope.compiler import find_tiles, simplify
from asterope.host import HostKernel
from asterope.ir import Type, dtype_of, parse_kernel, print_kernel
from asterope.native import available_isas, isa_named
from ir_builder import Writer, assert_same_bits, interpreted, launched
from isas import EACH_ISA

ISAS = available_isas()
SCRIPT = Path(__file__).with_name("guarded_memory.py")


def both_forms(kernel):
    """Return a kernel as written and as the passes leave it."""
    copy = parse_kernel(print_kernel(kernel))
    return [kernel, simplify(find_tiles(simplify(copy)))]


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("what", ["copies", "nothing"])
def test_masked_off_elements_are_never_touched(what, isa):
    command = [sys.executable, str(SCRIPT), what, isa]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    last = child.stdout.splitlines()[-1:]
    assert (child.returncode, last) == (0, ["done"]), f"{last} {child.stderr}"


# -- a store that overwrites what it still has to read -------------------------------------------
def permutation(seed=0, size=64):
    return np.random.default_rng(seed).permutation(size).astype(np.int32)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("columns", [0, 5, 8, 16, 24, 32])
def test_columns_masked_off_are_zero_in_rows_that_are_on_and_off(isa, columns):
    """The mask of the columns is known when compiling, that of the rows is not."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32")
    shape = (32, 32)
    third = w("divs", w.iota(32), w.const("i32[32]", 3))
    rows = w.compare("slt", third, w.broadcast(w["n"], (32,)))
    inside = w.compare("slt", w.iota(32), w.const("i32[32]", columns))
    mask = w("and", w.along(rows, 0, shape), w.along(inside, 1, shape))
    w.store("y", w.load("x", shape, mask=mask))
    x = np.arange(1, 1025, dtype=np.float32).reshape(shape)
    x[:, columns:] = np.nan
    x[27:] = np.nan
    expected = np.where(np.isnan(x), 0, x)
    for kernel in both_forms(w.done()):
        y = np.zeros_like(x)
        HostKernel(kernel, isa_named(isa)).launch((1, 1, 1), [x.ctypes.data, y.ctypes.data, 9])
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("disjoint", [True, False])
def test_indices_are_read_before_the_scatter_that_overwrites_them(disjoint):
    w = Writer(x="ptr<i32>")
    index = w.load("x", (64,))
    w.store_at(w("addptr", w.broadcast(w["x"], (64,)), index), w.const("i32[64]", 63))
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [permutation()], disjoint=disjoint)


@pytest.mark.parametrize("disjoint", [True, False])
def test_a_mask_is_read_before_the_store_that_overwrites_it(disjoint):
    w = Writer(x="ptr<i32>")
    reverse = w.load("x", (64,), strides=[-1], start=63)
    mask = w.compare("slt", reverse, w.const("i32[64]", 20))
    w.store("x", w.const("i32[64]", 7), mask=mask)
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [permutation()], disjoint=disjoint)


def test_the_index_array_may_be_the_target_under_another_name():
    w = Writer(index="ptr<i32>", x="ptr<i32>")
    where = w("addptr", w.broadcast(w["x"], (64,)), w.load("index", (64,)))
    w.store_at(where, w.iota(64))
    shared = permutation()
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [shared, shared])


@pytest.mark.parametrize("strides", [[-1], [1]])
@pytest.mark.parametrize("start", [0, 1, 16])
def test_an_array_can_be_shifted_and_reversed_in_place(strides, start):
    w = Writer(x="ptr<i32>")
    first = start + (63 if strides[0] < 0 else 0)
    w.store("x", w.load("x", (64,), strides=strides, start=first))
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [permutation(size=96)])


def test_a_matrix_can_be_transposed_in_place():
    w = Writer(x="ptr<fp32>")
    w.store("x", w.load("x", (32, 32)), strides=[1, 32])
    x = np.random.default_rng(1).standard_normal((32, 32)).astype(np.float32)
    for kernel in both_forms(w.done()):
        np.testing.assert_array_equal(launched(kernel, [x])[0], x.T)


@pytest.mark.parametrize("shift", [0, 8, 32, 63])
def test_overlapping_parameters_act_as_if_each_op_ran_alone(shift):
    """Two parameters into one array: extents overlap, so loads and stores keep their order."""
    w = Writer(x="ptr<i32>", y="ptr<i32>", z="ptr<i32>")
    a = w.load("x", (64,))
    doubled = w("add", a, a)
    w.store("y", doubled)
    w.store("z", w("add", a, doubled))
    for kernel in both_forms(w.done()):
        memory = np.arange(200, dtype=np.int32)
        expected = memory.copy()
        first = expected[:64].copy()
        expected[shift : shift + 64] = 2 * first
        expected[shift + 3 : shift + 67] = 3 * first
        address = memory.ctypes.data
        starts = [address, address + 4 * shift, address + 4 * (shift + 3)]
        extents = [(s, s + 256) for s in starts]
        HostKernel(kernel).launch((1, 1, 1), starts, extents)
        np.testing.assert_array_equal(memory, expected)


@pytest.mark.parametrize("trips", [1, 2, 3])
def test_a_loop_that_exchanges_pointers_may_read_what_it_overwrites(trips):
    w = Writer(x="ptr<i32>", y="ptr<i32>")

    def body(_, q, r):
        last = w("addptr", q, w.const("i32", 63))
        backwards = w("sub", w.const("i32[64]", 0), w.iota(64))
        w.store("y", w.load_at(w("addptr", w.broadcast(last, (64,)), backwards)))
        return [r, q]

    w.for_(0, trips, 1, [w["x"], w["y"]], body)
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [permutation(), permutation(seed=1)])


def test_a_value_loaded_before_a_store_is_not_loaded_again_after_it():
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    before = w.load("x", (64,))
    w.store("x", w.const("fp32[64]", 0.0))
    after = w.load("x", (64,))
    w.store("y", w("fsub", before, after))
    x = np.random.default_rng(2).standard_normal(64).astype(np.float32)
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [x, np.zeros(64, np.float32)])


@pytest.mark.parametrize("where", ["loop", "branch"])
def test_a_value_loaded_before_a_store_inside_a_block_is_kept(where):
    w = Writer(x="ptr<fp32>", y="ptr<fp32>", c="i1")
    before = w.load("x", (64,))

    def body(*_):
        w.store("x", w.const("fp32[64]", 1.0))
        return []

    if where == "loop":
        w.for_(0, 2, 1, [], body)
    else:
        w.if_(w["c"], body)
    w.store("y", before)
    x = np.random.default_rng(3).standard_normal(64).astype(np.float32)
    for kernel in both_forms(w.done()):
        for flag in (True, False):
            assert_same_bits(kernel, [x, np.zeros(64, np.float32), flag])


# -- order of stores ------------------------------------------------------------------------------
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("elem", ["i8", "fp16", "fp32", "i64"])
def test_of_stores_to_one_address_the_last_element_stays(isa, elem):
    w = Writer(at="ptr<i32>", x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    where = w("addptr", w.broadcast(w["y"], (64,)), w.load("at", (64,)))
    w.store_at(where, w.load("x", (64,)))
    dtype = dtype_of(Type(elem))
    at = np.random.default_rng(4).integers(0, 10, 64, dtype=np.int32)
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [at, np.arange(64).astype(dtype), np.zeros(10, dtype)], isa=isa)


@pytest.mark.parametrize("strides", [[1, 1], [2, 1], [1, 2], [0, 1], [1, 0]])
def test_of_tile_stores_to_one_address_one_stays_on_every_instruction_set_the_same(strides):
    """Which one is not defined, so that a tile may be walked along whichever dimension is fast."""
    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    w.store("y", w.load("x", (16, 16)), strides=strides)
    x = np.arange(256, dtype=np.float32)
    rows, columns = np.divmod(np.arange(256), 16)
    places = rows * strides[0] + columns * strides[1]
    for kernel in both_forms(w.done()):
        results = [launched(kernel, [x, np.zeros(64, np.float32)], isa=isa)[1] for isa in ISAS]
        for place in range(64):
            assert all(r[place] == results[0][place] for r in results)
            assert results[0][place] in (places == place).nonzero()[0] or place not in places


# -- elements -------------------------------------------------------------------------------------
def test_any_nonzero_byte_is_a_set_i1():
    w = Writer(x="ptr<i1>", y="ptr<i1>", z="ptr<i32>")
    value = w.load("x", (16,))
    w.store("y", value)
    w.store("z", w.convert(value, "i32", "zext"))
    bytes_ = np.array([0, 1, 2, 255] * 4, np.uint8)
    kernel = w.done()
    arguments = [bytes_.view(np.bool_), np.zeros(16, bool), np.zeros(16, np.int32)]
    for run in (interpreted, launched):
        _, y, z = run(kernel, arguments)
        assert y.view(np.uint8).tolist() == [0, 1, 1, 1] * 4, run.__name__
        assert z.tolist() == [0, 1, 1, 1] * 4, run.__name__


@pytest.mark.parametrize("elem", ["i1", "i8", "i16", "i32", "i64"])
def test_offsets_of_any_integer_element_are_signed(elem):
    w = Writer(at=f"ptr<{elem}>", x="ptr<i32>", y="ptr<i32>")
    middle = w("addptr", w["x"], w.const("i32", 8))
    where = w("addptr", w.broadcast(middle, (16,)), w.load("at", (16,)))
    w.store("y", w.load_at(where))
    at = np.random.default_rng(5).integers(-8, 8, 16)
    at = at > 0 if elem == "i1" else at.astype(dtype_of(Type(elem)))
    for kernel in both_forms(w.done()):
        assert_same_bits(kernel, [at, np.arange(17, dtype=np.int32), np.zeros(16, np.int32)])


@pytest.mark.parametrize("elem", ["fp16", "bf16", "e4m3", "e5m2", "e4m3fnuz"])
def test_every_code_of_a_narrow_format_survives_load_and_store(elem):
    dtype = dtype_of(Type(elem))
    count = 1 << (8 * dtype.itemsize)
    codes = np.arange(count, dtype=f"u{dtype.itemsize}").view(dtype)
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>")
    w.store("y", w.load("x", (min(count, 4096),)))
    kernel = w.done()
    for isa in ISAS:
        for start in range(0, count, 4096):
            part = codes[start : start + 4096]
            assert_same_bits(kernel, [part, np.zeros_like(part)], isa=isa)

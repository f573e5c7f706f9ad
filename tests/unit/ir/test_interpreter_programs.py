from __future__ import annotations

import re

import numpy as np
import pytest

from asterope.errors import KernelError
from asterope.ir import Type, interpret, parse_kernel, verify
from ir_builder import Writer, interpreted


def i32(*values):
    return np.array(values, np.int32)


# -- programs of a grid ---------------------------------------------------------------------------
def test_programs_run_with_x_fastest_and_know_the_grid():
    writer = Writer(y="ptr<i32>")
    axes = [writer("program_id", to="i32", axis=d) for d in range(3)]
    sizes = [writer("num_programs", to="i32", axis=d) for d in range(3)]
    count = writer.load("y")
    seen = writer("add", count, writer.const("i32", 1))
    writer.store("y", seen)
    index = seen
    for value in (*axes, *sizes):
        writer.store_at(writer("addptr", writer["y"], index), value)
        index = writer("add", index, writer.const("i32", 24))
    (got,) = interpreted(writer.done(), [np.zeros(200, np.int32)], (2, 3, 4))
    assert got[0] == 24
    columns = [got[1 + 24 * i : 25 + 24 * i].tolist() for i in range(6)]
    order = [(x, y, z) for z in range(4) for y in range(3) for x in range(2)]
    assert list(zip(*columns[:3], strict=True)) == order
    assert columns[3:] == [[2] * 24, [3] * 24, [4] * 24]


def test_scalars_wrap_to_their_type():
    writer = Writer(y="ptr<i64>", a="i8", b="i64")
    writer.store("y", writer.convert(writer["a"], "i64", "sext"))
    writer.store("y", writer["b"], start=1)
    (got,) = interpreted(writer.done(), [np.zeros(2, np.int64), np.int64(130), -5])
    assert got.tolist() == [-126, -5]


def test_the_number_of_arguments_is_checked():
    kernel = Writer(y="ptr<i64>", a="i8").done()
    with pytest.raises(KernelError, match=r"^k: takes 2 arguments, got 1"):
        interpret(kernel, (1, 1, 1), [np.zeros(2, np.int64)])


# -- memory ---------------------------------------------------------------------------------------
def test_a_masked_load_gives_other_or_zero():
    x, mask = i32(1, 2, 3, 4), np.array([True, False, True, False])
    for other, expected in ((None, [1, 0, 3, 0]), (9, [1, 9, 3, 9])):
        writer = Writer(x="ptr<i32>", m="ptr<i1>", y="ptr<i32>")
        filler = None if other is None else writer.const("i32[4]", other)
        value = writer.load("x", (4,), mask=writer.load("m", (4,)), other=filler)
        writer.store("y", value)
        assert interpreted(writer.done(), [x, mask, i32(0, 0, 0, 0)])[2].tolist() == expected


def test_a_masked_store_leaves_memory():
    writer = Writer(m="ptr<i1>", y="ptr<i32>")
    writer.store("y", writer.const("i32[4]", 7), mask=writer.load("m", (4,)))
    mask = np.array([False, True, True, False])
    assert interpreted(writer.done(), [mask, i32(1, 2, 3, 4)])[1].tolist() == [1, 7, 7, 4]


def test_of_stores_to_one_address_the_last_in_row_major_order_stays():
    writer = Writer(at="ptr<i32>", y="ptr<i32>")
    where = writer("addptr", writer.broadcast(writer["y"], (2, 4)), writer.load("at", (2, 4)))
    writer.store_at(where, writer.offsets((2, 4)))
    got = interpreted(writer.done(), [i32(0, 1, 1, 0, 2, 2, 0, 3), i32(9, 9, 9, 9, 9)])[1]
    assert got.tolist() == [6, 2, 5, 7, 9]


def test_tiles_address_by_base_and_one_offset_a_dimension():
    text = """kernel @k(%x: ptr<i32>, %y: ptr<i32>) {
      %r = iota() {start = 0} : i32[2]
      %w = const() {value = 10} : i32[2]
      %rows = mul(%r, %w) : i32[2]
      %cols = iota() {start = 1} : i32[4]
      %two = const() {value = 3} : i32[4]
      %m = cmp(%cols, %two) {pred = "ne"} : i1[4]
      %z = const() {value = -1} : i32
      %v = load_tile(%x, %rows, %cols, %m, %z) {mask_dims = [1], other = true} : i32[2,4]
      store_tile(%v, %y, %rows, %cols, %m) {mask_dims = [1]}
      %c = iota() {start = 20} : i32[4]
      store_tile(%v, %y, %r, %c) {mask_dims = []}
      return()
    }"""
    kernel = parse_kernel(text)
    verify(kernel)
    x = np.arange(30, dtype=np.int32)
    got = interpreted(kernel, [x, np.zeros(30, np.int32)])[1]
    tile = np.array([[1, 2, -1, 4], [11, 12, -1, 14]])
    expected = np.zeros(30, np.int32)
    for i in range(2):
        for j in (0, 1, 3):
            expected[10 * i + 1 + j] = tile[i, j]
    for i in range(2):
        for j in range(4):
            expected[20 + i + j] = tile[i, j]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("kind", ["load", "store"])
@pytest.mark.parametrize("start", [-1, 4, 1000])
def test_an_access_outside_an_array_names_it_and_the_line(kind, shape, start):
    writer = Writer(x="ptr<i32>", y="ptr<i32>")
    writer.builder.loc = "user.py:12:4"
    if kind == "load":
        writer.load("x", shape, start=start)
    else:
        writer.store("x", writer.const(Type("i32", shape), 1), start=start)
    arrays = np.zeros(64, np.int32)
    with pytest.raises(
        KernelError, match=r"^user\.py:12:4: access of 4 bytes at 0x[0-9a-f]+ lies outside of"
    ):
        interpret(writer.done(), (1, 1, 1), [arrays[32:36], arrays[60:61]])


def test_a_tile_outside_an_array_is_refused_too():
    text = """kernel @k(%x: ptr<i32>) {
      %r = iota() {start = 2} : i32[4]
      %v = load_tile(%x, %r) {mask_dims = []} : i32[4] loc "user.py:3:1"
      return()
    }"""
    with pytest.raises(KernelError, match=r"^user\.py:3:1: access .* outside of x"):
        interpret(parse_kernel(text), (1, 1, 1), [np.zeros(5, np.int32)])


def test_masked_off_elements_may_lie_anywhere():
    writer = Writer(x="ptr<i32>")
    mask = writer.compare("slt", writer.iota(8), writer.const("i32[8]", 3))
    value = writer.load("x", (8,), mask=mask, strides=[1000])
    writer.store("x", value, mask=writer.compare("slt", writer.iota(8), writer.const("i32[8]", 1)))
    (got,) = interpreted(writer.done(), [np.arange(2001, dtype=np.int32)])
    assert got[0] == 0


def test_an_array_inside_another_is_memory_of_both():
    writer = Writer(x="ptr<i32>", y="ptr<i32>")
    writer.store("y", writer.load("x", start=50))
    kernel = writer.done()
    for inner in (slice(10, 12), slice(0, 2), slice(98, 100)):
        memory = np.arange(100, dtype=np.int32)
        interpret(kernel, (1, 1, 1), [memory, memory[inner]])
        assert memory[inner][0] == 50


def test_an_array_with_gaps_is_refused_by_name():
    writer = Writer(y="ptr<i32>")
    writer.store("y", writer.const("i32[4]", 3))
    with pytest.raises(KernelError, match="y"):
        interpret(writer.done(), (1, 1, 1), [np.zeros((4, 2), np.int32)[:, 0]])


def test_pointers_compare_add_and_turn_into_integers():
    writer = Writer(x="ptr<fp16>", y="ptr<i64>")
    moved = writer("addptr", writer["x"], writer.const("i8", -3))
    writer.store("y", writer("ptr_to_int", moved, to="i64"))
    back = writer("int_to_ptr", writer("ptr_to_int", moved, to="i64"), to="ptr<fp16>")
    less = writer("cmp", back, writer["x"], to="i1", pred="ult")
    writer.store("y", writer.convert(less, "i64", "zext"), start=1)
    x = np.zeros(8, np.float16)
    got = interpreted(writer.done(), [x, np.zeros(2, np.int64)])[1]
    assert got[1] == 1
    assert (got[0] + 6) % 16 == 0 or (got[0] + 6) % 2 == 0


# -- control --------------------------------------------------------------------------------------
@pytest.mark.parametrize("counter", ["i8", "i32", "i64"])
@pytest.mark.parametrize(
    ("lo", "hi", "step", "visited"),
    [(0, 5, 1, [0, 1, 2, 3, 4]), (1, 8, 3, [1, 4, 7]), (3, 3, 1, []), (4, 2, 1, []),
     (-3, 1, 2, [-3, -1])],
)  # fmt: skip
def test_for_visits_from_lo_to_below_hi(counter, lo, hi, step, visited):
    writer = Writer(y="ptr<i32>")

    def body(i, at):
        number = i if counter == "i32" else writer.convert(i, "i32", how)
        writer.store_at(writer("addptr", writer["y"], at), number)
        return [writer("add", at, writer.const("i32", 1))]

    how = "trunc" if counter == "i64" else "sext"
    (count,) = writer.for_(lo, hi, step, [writer.const("i32", 1)], body, counter)
    writer.store("y", count)
    (got,) = interpreted(writer.done(), [np.zeros(10, np.int32)])
    assert got[1 : got[0]].tolist() == visited


def test_for_carries_values_and_swaps_them_at_once():
    writer = Writer(y="ptr<i32>")
    a, b = writer.const("i32", 1), writer.const("i32", 2)
    a, b = writer.for_(0, 3, 1, [a, b], lambda i, p, q: [q, writer("add", p, q)])
    writer.store("y", a)
    writer.store("y", b, start=1)
    assert interpreted(writer.done(), [i32(0, 0)])[0].tolist() == [5, 8]


@pytest.mark.parametrize(("start", "steps"), [(0, 0), (1, 0), (6, 8), (7, 16)])
def test_while_passes_values_from_the_condition_to_the_body(start, steps):
    writer = Writer(y="ptr<i32>", n="i32")
    one, three = writer.const("i32", 1), writer.const("i32", 3)

    def collatz(n, count):
        odd = writer.compare("ne", writer("and", n, one), writer.const("i32", 0))
        bigger = writer("add", writer("mul", n, three), one)
        return writer("select", odd, bigger, writer("shrs", n, one), to="i32"), writer(
            "add", count, one
        )

    n, count = writer.while_(
        [writer["n"], writer.const("i32", 0)],
        lambda n, count: (writer.compare("sgt", n, one), n, count),
        collatz,
    )
    writer.store("y", n)
    writer.store("y", count, start=1)
    got = interpreted(writer.done(), [i32(0, 0), start])[0]
    assert got.tolist() == [min(start, 1), steps]


def test_a_while_may_pass_on_other_types_than_it_carries():
    writer = Writer(y="ptr<fp32>")
    one = writer.const("i32", 1)
    (result,) = writer.while_(
        [writer.const("i32", 5)],
        lambda n: (
            writer.compare("slt", n, writer.const("i32", 8)),
            writer.convert(n, "fp32", "from_signed"),
        ),
        lambda x: [writer("add", writer.convert(x, "i32", "to_signed"), one)],
    )
    writer.store("y", result)
    assert interpreted(writer.done(), [np.zeros(1, np.float32)])[0][0] == 8


@pytest.mark.parametrize("flag", [True, False])
def test_if_runs_one_block_only(flag):
    writer = Writer(y="ptr<i32>", c="i1")

    def branch(number):
        writer.store("y", writer.const("i32", number), start=number)
        return [writer.const("i32", 10 * number)]

    (value,) = writer.if_(writer["c"], lambda: branch(1), lambda: branch(2))
    writer.store("y", value)
    got = interpreted(writer.done(), [i32(0, 0, 0), flag])[0]
    assert got.tolist() == ([10, 1, 0] if flag else [20, 0, 2])


def test_blocks_read_values_from_around_them():
    writer = Writer(x="ptr<i32>", y="ptr<i32>")
    x = writer.load("x", (4,))

    def outer(i, total):
        stretched = writer.broadcast(i, (4,))
        return writer.for_(
            0, 2, 1, [total], lambda j, t: [writer("add", t, writer("mul", x, stretched))]
        )

    (total,) = writer.for_(0, 4, 1, [x], outer)
    writer.store("y", total)
    got = interpreted(writer.done(), [i32(1, 2, 3, 4), i32(0, 0, 0, 0)])[1]
    assert got.tolist() == [13, 26, 39, 52]


def test_a_step_that_is_not_positive_never_counts_downwards():
    """`for` visits lo, lo + step, ... below hi: with lo above hi it visits nothing."""
    writer = Writer(y="ptr<i32>", step="i32")
    lo, hi = writer.const("i32", 5), writer.const("i32", 0)
    one = writer.const("i32", 1)
    (n,) = writer.for_(lo, hi, writer["step"], [one], lambda i, n: [writer("add", n, one)])
    writer.store("y", n)
    assert interpreted(writer.done(), [i32(0), -1])[0].tolist() == [1]


def test_errors_in_a_program_leave_no_numpy_warning():
    text = """kernel @k(%y: ptr<i32>) {
      %a = const() {value = -2147483648} : i32
      %b = const() {value = -1} : i32
      %q = divs(%a, %b) : i32
      store(%y, %q)
      return()
    }"""
    (got,) = interpreted(parse_kernel(re.sub(r"\n\s+", "\n", text)), [i32(0)])
    assert got[0] == -(2**31)

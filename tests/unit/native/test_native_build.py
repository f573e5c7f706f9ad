from __future__ import annotations

import operator
import re

import numpy as np
import pytest
from native_call import compiled, lanewise

from asterope.formats import fma32
from asterope.native import Module, isa_named, type_text
from isas import EACH_ISA

LANES = (0, 1, 16)
INTS = (np.int8, np.int16, np.int32, np.int64)


def integers(dtype, seed, count=64):
    """Random bits, and every pair of the values at the edges."""
    info = np.iinfo(dtype)
    edges = np.array([info.min, info.min + 1, -1, 0, 1, 2, info.max - 1, info.max], dtype)
    x = np.random.default_rng(seed).integers(info.min, info.max, count, dtype, endpoint=True)
    left, right = np.meshgrid(edges, edges)
    return np.concatenate([x, left.reshape(-1)]), np.concatenate([x[::-1], right.reshape(-1)])


def floats(seed, count=64):
    edges = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-45], np.float32)
    x = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    left, right = np.meshgrid(edges, edges)
    return np.concatenate([x, left.reshape(-1)]), np.concatenate([x[::-1], right.reshape(-1)])


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", INTS)
def test_integer_operators_wrap_like_twos_complement(isa, lanes, dtype):
    a, b = integers(dtype, 0)
    amount = (b & (8 * b.itemsize - 1)).astype(dtype)
    unsigned = a.view(f"u{a.itemsize}")
    by = amount.view(f"u{a.itemsize}")

    def emit(x, y, n):
        return x + y, x - y, x * y, x & y, x | y, x ^ y, -x, ~x, x << n, x >> n, x.sar(n)

    expected = (
        a + b, a - b, a * b, a & b, a | b, a ^ b, -a, ~a,
        (unsigned << by).view(dtype), (unsigned >> by).view(dtype), a >> amount,
    )  # fmt: skip
    np.testing.assert_array_equal(lanewise(isa, lanes, emit, a, b, amount), expected)


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [np.int8, np.int64])
def test_integer_comparisons_know_signed_from_unsigned(isa, lanes, dtype):
    a, b = integers(dtype, 1)
    ua, ub = a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}")
    names = ("lt", "le", "gt", "ge")

    def emit(x, y):
        signed = [getattr(x, n)(y) for n in (*names, "eq", "ne")]
        return (*signed, *(x.cmp(f"u{n}", y) for n in names))

    expected = [getattr(operator, n)(a, b) for n in (*names, "eq", "ne")]
    expected += [getattr(operator, n)(ua, ub) for n in names]
    np.testing.assert_array_equal(lanewise(isa, lanes, emit, a, b, dtype=bool), expected)


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
def test_float_comparisons_are_false_on_nan_except_not_equal(isa, lanes):
    a, b = floats(2)
    names = ("lt", "le", "gt", "ge", "eq", "ne")

    def emit(x, y):
        return (*(getattr(x, n)(y) for n in names), x.is_nan() & ~y.is_nan())

    expected = [getattr(operator, n)(a, b) for n in names] + [np.isnan(a) & ~np.isnan(b)]
    np.testing.assert_array_equal(lanewise(isa, lanes, emit, a, b, dtype=bool), expected)


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
def test_float_arithmetic_is_ieee_and_never_contracted(isa, lanes):
    a, b = floats(3)

    def emit(x, y):
        return x + y, x - y, x * y + x, x / y, -x, x.fma(y, 0.1)

    with np.errstate(all="ignore"):
        expected = [a + b, a - b, a * b + a, a / b, -a, fma32(a, b, np.float32(0.1))]
    np.testing.assert_array_equal(lanewise(isa, lanes, emit, a, b), expected)


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
def test_conversions_saturate_truncate_and_extend(isa, lanes):
    a, _ = integers(np.int16, 4)
    for emit, dtype, expected in (
        (lambda x: x.sext("i64"), np.int64, a.astype(np.int64)),
        (lambda x: x.zext("i64"), np.int64, a.view(np.uint16).astype(np.int64)),
        (lambda x: x.sext("i8"), np.int8, a.astype(np.int8)),
        (lambda x: x.to_float("f32"), np.float32, a.astype(np.float32)),
        (lambda x: x.to_float("f32", signed=False), np.float32, a.view("u2").astype("f4")),
    ):
        np.testing.assert_array_equal(lanewise(isa, lanes, emit, a, dtype=dtype), expected)
    if isa_named(isa).has_half:
        half = a.view(np.float16).astype(np.float64)
        got = lanewise(isa, lanes, lambda x: x.bits_as("f16").fext("f64"), a, dtype=np.float64)
        np.testing.assert_array_equal(got, half)
    x = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 2.9, -2.9, 3e9] * 2, np.float32)
    low, high = -(2**31), 2**31 - 1
    np.testing.assert_array_equal(
        lanewise(isa, lanes, lambda v: v.to_int("i32"), x, dtype=np.int32),
        [high, low, high, low, 0, 2, -2, high] * 2,
    )
    np.testing.assert_array_equal(
        lanewise(isa, lanes, lambda v: v.to_int("i32", signed=False), x, dtype=np.uint32),
        [2**32 - 1, 0, 2**32 - 1, 0, 0, 2, 0, 3_000_000_000] * 2,
    )


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
def test_where_types_plain_numbers_by_the_other_side_or_by_kind(isa, lanes):
    a, b = floats(5)
    got = lanewise(isa, lanes, lambda x, y: x.lt(y).where(x, 7), a, b)
    np.testing.assert_array_equal(got, np.where(a < b, a, np.float32(7)))
    got = lanewise(isa, lanes, lambda x, y: x.lt(y).where(1.5, -2.5, "f32"), a, b)
    np.testing.assert_array_equal(got, np.where(a < b, np.float32(1.5), np.float32(-2.5)))


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", LANES)
def test_intrinsics_of_two_operands(isa, lanes):
    a, b = integers(np.int32, 6)
    for name, expected in (("smin", np.minimum(a, b)), ("smax", np.maximum(a, b))):
        got = lanewise(isa, lanes, lambda x, y: x.minimum(name, y), a, b)
        np.testing.assert_array_equal(got, expected)
    x, y = floats(7)
    got = lanewise(isa, lanes, lambda p, q: p.minimum("copysign", q), x, y)
    np.testing.assert_array_equal(got.view(np.int32), np.copysign(x, y).view(np.int32))


@pytest.mark.parametrize("isa", EACH_ISA)
def test_lanes_are_picked_replaced_and_shuffled(isa):
    x = np.arange(100, 116, dtype=np.int32)
    order = [3, 16 + 2, 0, 31]

    def body(fn, source, target):
        v = fn.load(source, "i32", 16)
        picked = v.shuffle(order, v + 1000)
        fn.store(picked.with_lane(1, v.lane(fn.const("i64", 15))), target)

    out = np.zeros(4, np.int32)
    compiled(isa, ["ptr", "ptr"], body)(x, out)
    assert out.tolist() == [103, 115, 100, 1115]


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("lanes", [0, 1, 16])
def test_all_lanes_and_any_lane(isa, lanes):
    for x in (np.zeros(16, bool), np.ones(16, bool), np.arange(16) == 15):
        part = x[-max(lanes, 1) :]

        def body(fn, source, target):
            mask = fn.load(source, "i1", lanes)
            fn.store(mask.all_lanes(), target)
            fn.store(mask.any_lane(), target.offset(1))

        out = np.zeros(2, bool)
        compiled(isa, ["ptr", "ptr"], body)(part.copy(), out)
        assert out.tolist() == [part.all(), part.any()]


@pytest.mark.parametrize("isa", EACH_ISA)
def test_masks_of_any_number_of_lanes_survive_a_stack_slot(isa):
    x = np.array([1, 0, 1, 1] * 8, np.uint8)

    def body(fn, source, target):
        slot, other = fn.slot("i1", 32), fn.slot("i1", 32)
        fn.store(fn.load(source, "i1", 32), slot)
        fn.store(fn.const("i1", 0, 32), other)
        fn.store(fn.load(slot, "i1", 32) | fn.load(other, "i1", 32), target)

    out = np.zeros(32, np.uint8)
    compiled(isa, ["ptr", "ptr"], body)(x, out)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 10, 1), (3, 10, 4), (5, 5, 1), (7, 2, 3), (-4, 4, 3)]
)
def test_loop_visits_what_range_visits(isa, start, stop, step):
    def body(fn, first, last, by, seen, count):
        with fn.loop(first, last, by) as i:
            at = fn.load(count, "i64")
            fn.store(i, seen.offset(at * 8))
            fn.store(at + 1, count)

    seen, count = np.zeros(16, np.int64), np.zeros(1, np.int64)
    compiled(isa, ["i64", "i64", "i64", "ptr", "ptr"], body)(start, stop, step, seen, count)
    assert seen[: count[0]].tolist() == list(range(start, stop, step))


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize("n", [0, 1, 7, 27])
def test_while_if_and_if_else_follow_collatz(isa, n):
    def body(fn, start, out):
        value, steps = fn.slot("i64"), fn.slot("i64")
        fn.store(start, value)
        fn.store(fn.const("i64", 0), steps)
        with fn.while_(lambda: fn.load(value, "i64").gt(1)):
            v = fn.load(value, "i64")
            with fn.if_else((v & 1).ne(0)) as otherwise:
                fn.store(v * 3 + 1, value)
                otherwise()
                fn.store(v >> 1, value)
            with fn.if_(v.gt(0)):
                fn.store(fn.load(steps, "i64") + 1, steps)
        fn.store(fn.load(steps, "i64"), out)

    def collatz(v):
        steps = 0
        while v > 1:
            v, steps = (3 * v + 1 if v & 1 else v >> 1), steps + 1
        return steps

    out = np.zeros(1, np.int64)
    compiled(isa, ["i64", "ptr"], body)(n, out)
    assert out[0] == collatz(n)


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize(("kind", "dtype"), [("i8", np.int8), ("i16", np.int16), ("f32", "f4")])
def test_masked_load_keeps_other_and_masked_store_keeps_memory(isa, kind, dtype):
    x = np.arange(1, 17).astype(dtype)
    mask = np.random.default_rng(8).random(16) < 0.5
    out = np.full(16, 77, dtype)

    def body(fn, source, on, target):
        m = fn.load(on, "i1", 16)
        v = fn.masked_load(source, m, fn.const(kind, 99, 16))
        fn.store(v, target.offset(16 * out.itemsize))
        fn.masked_store(v, target, m)

    both = np.concatenate([out, np.zeros(16, dtype)])
    compiled(isa, ["ptr", "ptr", "ptr"], body)(x, mask, both)
    np.testing.assert_array_equal(both[16:], np.where(mask, x, 99))
    np.testing.assert_array_equal(both[:16], np.where(mask, x, 77))


@pytest.mark.parametrize("isa", EACH_ISA)
@pytest.mark.parametrize(("kind", "dtype"), [("i8", np.int8), ("i64", np.int64), ("f32", "f4")])
def test_gather_reads_each_address_and_scatter_writes_lowest_lane_first(isa, kind, dtype):
    rng = np.random.default_rng(9)
    x = np.arange(1, 33).astype(dtype)
    index = rng.integers(0, 32, 16)
    target = np.array([0, 3, 3, 3, 1, 0, 2, 2, 9, 9, 9, 9, 9, 9, 4, 4])
    mask = rng.random(16) < 0.7
    gathered, scattered = np.zeros(16, dtype), np.zeros(16, dtype)
    size = x.itemsize

    def body(fn, source, at, to, on, values, out):
        m = fn.load(on, "i1", 16)
        v = fn.gather(source.offset(fn.load(at, "i64", 16) * size), m, fn.const(kind, 55, 16))
        fn.store(v, values)
        fn.scatter(v, out.offset(fn.load(to, "i64", 16) * size), m)

    compiled(isa, ["ptr"] * 6, body)(x, index, target, mask, gathered, scattered)
    np.testing.assert_array_equal(gathered, np.where(mask, x[index], 55))
    expected = np.zeros(16, dtype)
    for lane in np.flatnonzero(mask):
        expected[target[lane]] = gathered[lane]
    np.testing.assert_array_equal(scattered, expected)


@pytest.mark.parametrize(
    ("kind", "value", "dtype"),
    [
        ("f32", 0.1, "f4"), ("f32", -0.0, "f4"), ("f32", float("inf"), "f4"),
        ("f64", 0.1, "f8"), ("f64", 5e-324, "f8"), ("i8", 255, "i1"), ("i8", -1, "i1"),
        ("i64", 2**63, "i8"), ("i64", -(2**63), "i8"), ("i32", 2**32 + 5, "i4"),
    ],
)  # fmt: skip
def test_constants_wrap_or_round_to_their_kind(kind, value, dtype):
    out = np.zeros(4, dtype)
    compiled("portable", ["ptr"], lambda fn, p: fn.store(fn.const(kind, value, 4), p))(out)
    if out.dtype.kind == "f":
        expected = np.full(4, value, dtype)
    else:
        expected = np.full(4, value % 2 ** (8 * out.itemsize), np.uint64).astype(dtype)
    assert out.tobytes() == expected.tobytes()


def test_tables_are_stored_once_and_readable():
    module = Module(isa_named("portable"))
    name = module.table("f32", [0.5, 0.1])
    assert module.table("f32", [0.5, 0.1]) == name
    assert module.table("i32", [1, 2]) != name
    assert module.text().count("constant [2 x float]") == 1


def test_functions_are_declared_once_and_not_when_defined():
    module = Module(isa_named("portable"))
    module.function("inner", [("i64", "x")]).finish()
    outer = module.function("outer", [("i64", "x")])
    for _ in range(2):
        outer.call("inner", outer.args)
        outer.call("sin", (outer.const("f64", 1.0),), "f64")
    outer.finish()
    assert re.findall(r"declare.*", module.text()) == ["declare double @sin(double)"]
    assert module.has("inner")
    assert not module.has("sin")


def test_types_are_written_as_llvm_writes_them():
    assert [type_text("f32", 16), type_text("i1"), type_text("ptr", 4), type_text("f16")] == [
        "<16 x float>", "i1", "<4 x ptr>", "half",
    ]  # fmt: skip

from __future__ import annotations

import itertools
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from exact_floats import rounded
from one_op import array_of, run_op

from asterope.formats import decode, fma32
from asterope.ir import COMBINERS, FLOATS, INTEGERS, Type, dtype_of
from ir_builder import Writer, interpreted


def made(op, to, **attrs):
    """Return what an op without operands gives."""
    writer = Writer()
    value = writer(op, to=writer.const(to, 0).type, **attrs)
    writer.param("y", f"ptr<{value.type.elem}>")
    writer.store("y", value)
    (out,) = interpreted(writer.done(), [np.zeros(value.type.num_elements, dtype_of(value.type))])
    return out.reshape(value.type.shape)


@pytest.mark.parametrize(
    ("elem", "number", "expected"),
    [("i8", 255, -1), ("i8", -1, -1), ("i32", 2**31, -(2**31)), ("i64", -(2**63), -(2**63)),
     ("i1", True, True), ("i1", 0, False), ("i16", True, 1), ("fp32", 3, 3.0), ("bf16", 1.5, 1.5)],
)  # fmt: skip
def test_constants_fill_a_block_and_wrap(elem, number, expected):
    got = made("const", f"{elem}[2,3]", value=number)
    assert got.tolist() == [[expected] * 3] * 2


def test_iota_counts_from_start():
    assert made("iota", "i32[5]", start=-2).tolist() == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize(
    ("shape", "to"),
    [((), (3,)), ((), (2, 3)), ((1,), (4,)), ((1, 3), (2, 3)), ((2, 1), (2, 3)), ((1, 1), (2, 3))],
)
def test_broadcast_repeats_along_dimensions_of_size_one(shape, to):
    x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    got = run_op("broadcast", ("i32", x), to=Type("i32", to))
    for index in np.ndindex(to):
        source = tuple(0 if n == 1 else i for i, n in zip(index, shape, strict=False))
        assert got[index] == x[source]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_expand_adds_a_dimension(axis):
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    shape = (*x.shape[:axis], 1, *x.shape[axis:])
    got = run_op("expand", ("i32", x), to=Type("i32", shape), axis=axis)
    for index in np.ndindex(shape):
        assert got[index] == x[index[:axis] + index[axis + 1 :]]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_transpose_puts_dimension_order_i_at_i(order):
    x = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    shape = tuple(x.shape[d] for d in order)
    got = run_op("transpose", ("i16", x), to=Type("i16", shape), order=order)
    for index in np.ndindex(shape):
        source = [0, 0, 0]
        for i, d in zip(index, order, strict=True):
            source[d] = i
        assert got[index] == x[tuple(source)]


@pytest.mark.parametrize("to", [(24,), (4, 6), (2, 3, 4), (1, 24)])
def test_reshape_keeps_row_major_order(to):
    x = np.arange(24, dtype=np.int8).reshape(3, 8)
    got = run_op("reshape", ("i8", x), to=Type("i8", to))
    assert got.reshape(-1).tolist() == list(range(24))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_join_interleaves_and_split_takes_apart(shape):
    count = int(np.prod(shape))
    a = np.arange(count, dtype=np.int32).reshape(shape)
    b = a + 100
    both = run_op("join", ("i32", a), ("i32", b), to=Type("i32", (*shape, 2)))
    flat = [v for pair in zip(a.reshape(-1), b.reshape(-1), strict=True) for v in pair]
    assert both.reshape(-1).tolist() == flat
    left, right = run_op("split", ("i32", both), to=Type("i32", shape), results=2)
    np.testing.assert_array_equal(left, a)
    np.testing.assert_array_equal(right, b)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 8)])
def test_popcount_counts_set_elements(shape):
    x = np.array(np.random.default_rng(0).random(shape) < 0.5)
    assert run_op("popcount", ("i1", x), to=Type("i32")) == sum(x.reshape(-1).tolist())


# -- reductions -----------------------------------------------------------------------------------
def in_stated_order(combine, values):
    """Combine as `reduce` says: 64 partials in ascending order, then halves."""
    partials = list(values[:64])
    for i, value in enumerate(values[64:]):
        partials[i % 64] = combine(partials[i % 64], value)
    while len(partials) > 1:
        half = len(partials) // 2
        partials = [combine(partials[i], partials[i + half]) for i in range(half)]
    return partials[0]


FLOAT_COMBINERS = {
    "fadd": lambda a, b: a + b,
    "fmul": lambda a, b: a * b,
    "fmin": lambda a, b: b if np.isnan(a) or b < a else a,
    "fmax": lambda a, b: b if np.isnan(a) or b > a else a,
    "fminimum": lambda a, b: a if np.isnan(a) else b if np.isnan(b) or b < a else a,
    "fmaximum": lambda a, b: a if np.isnan(a) else b if np.isnan(b) or b > a else a,
}


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("name", FLOAT_COMBINERS)
def test_float_reductions_follow_the_stated_order(name, size):
    x = np.random.default_rng(size).standard_normal((size, 3)).astype(np.float32)
    x[size // 2, 1] = np.nan
    got = run_op("reduce", ("fp32", x), to=Type("fp32", (3,)), axis=0, combine=name)
    expected = [in_stated_order(FLOAT_COMBINERS[name], list(x[:, j])) for j in range(3)]
    np.testing.assert_array_equal(got, np.array(expected, np.float32))


def test_another_order_would_give_other_bits():
    x = np.random.default_rng(1).standard_normal(128).astype(np.float32)
    stated = in_stated_order(FLOAT_COMBINERS["fadd"], list(x))
    assert stated != np.add.reduce(x) or stated != sum(x.tolist())
    assert run_op("reduce", ("fp32", x), to=Type("fp32"), axis=0, combine="fadd") == stated


@pytest.mark.parametrize("elem", [e for e in FLOATS if e not in ("fp32", "fp64")])
def test_partial_sums_are_rounded_to_the_element(elem):
    x = np.random.default_rng(2).standard_normal(64).astype(dtype_of(Type(elem)))

    def add(a, b):
        return rounded(Fraction(a) + Fraction(b), elem)

    expected = in_stated_order(add, x.astype(np.float64).tolist())
    got = run_op("reduce", (elem, x), to=Type(elem), axis=0, combine="fadd")
    assert float(got) == expected


@pytest.mark.parametrize("elem", INTEGERS)
@pytest.mark.parametrize("name", [n for n, elements in COMBINERS.items() if "i32" in elements])
def test_integer_reductions_apply_the_op_of_that_name(name, elem):
    rng = np.random.default_rng(3)
    x = rng.random((4, 32)) < 0.5
    if elem != "i1":
        x = array_of(elem, rng.integers(-(2**7), 2**7, (4, 32)))
    got = run_op("reduce", (elem, x), to=Type(elem, (4,)), axis=1, combine=name)
    for i in range(4):
        expected = in_stated_order(lambda a, b: run_op(name, (elem, a), (elem, b)), list(x[i]))
        assert got[i] == expected


@pytest.mark.parametrize("shape", [(3,), (5,), (7, 2), (24,), (40,)])
def test_any_size_can_be_reduced(shape):
    x = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    got = run_op("reduce", ("i64", x), to=Type("i64", shape[1:]), axis=0, combine="add")
    np.testing.assert_array_equal(got, x.sum(axis=0))


# -- matrices -------------------------------------------------------------------------------------
def matrices(seed, m=2, k=35, n=3, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (m, n))]


def test_sequential_dot_is_a_chain_of_fused_multiply_adds():
    a, b, acc = matrices(0)
    got = run_dot("fp32", a, b, acc, "sequential")
    for i, j in np.ndindex(acc.shape):
        total = acc[i, j]
        for k in range(a.shape[1]):
            total = fma32(a[i, k], b[k, j], total)
        assert got[i, j] == total


def test_pairs_dot_sums_even_and_odd_products_of_32_and_adds_them():
    a, b, acc = matrices(1)
    got = run_dot("bf16", a, b, acc, "pairs")
    a, b = (x.astype(ml_dtypes.bfloat16).astype(np.float32) for x in (a, b))
    for i, j in np.ndindex(acc.shape):
        total = acc[i, j]
        for start in (0, 32):
            chains = [np.float32(0), np.float32(0)]
            for k in range(start, min(start + 32, a.shape[1])):
                chains[k % 2] = fma32(a[i, k], b[k, j], chains[k % 2])
            total = total + (chains[0] + chains[1])
        assert got[i, j] == total


def run_dot(elem, a, b, acc, order):
    dtype, total = dtype_of(Type(elem)), {"i8": "i32", "fp64": "fp64"}.get(elem, "fp32")
    operands = (elem, a.astype(dtype)), (elem, b.astype(dtype)), (total, acc)
    return run_op("dot", *operands, to=Type(total, acc.shape), order=order)


def test_fp64_dot_is_fused_too():
    a, b, acc = matrices(2, dtype=np.float64)
    got = run_dot("fp64", a, b, acc, "sequential")
    for i, j in np.ndindex(acc.shape):
        total = acc[i, j].item()
        for k in range(a.shape[1]):
            total = float(Fraction(a[i, k].item()) * Fraction(b[k, j].item()) + Fraction(total))
        assert got[i, j] == total


def test_int8_dot_wraps_in_32_bits():
    a = np.full((1, 64), -128, np.int8)
    acc = np.array([[2**31 - 1]], np.int32)
    got = run_dot("i8", a, a.T, acc, "sequential")
    assert got[0, 0] == (64 * 128 * 128 + 2**31 - 1) - 2**32


def test_each_matrix_of_a_batch_is_multiplied():
    a, b, acc = matrices(3)
    batch = run_dot("fp32", np.stack([a, -a]), np.stack([b, b]), np.stack([acc, -acc]), "pairs")
    one = run_dot("fp32", a, b, acc, "pairs")
    np.testing.assert_array_equal(batch, [one, -one])


@pytest.mark.parametrize("block", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp4", "nvfp4"])
def test_dot_scaled_multiplies_what_the_codes_and_scales_stand_for(block):
    a, b, acc = np.rint(np.random.default_rng(4).standard_normal((3, 4, 64)) * 2)
    left, right = _scaled(block, a), _scaled(block, b)
    expected = left[3] @ right[3].T + acc[:4, :4].astype(np.float32)
    attrs = {"a_format": left[0], "b_format": right[0], "a_scale": True, "b_scale": True}
    scale = "e4m3" if block == "nvfp4" else "i8"
    elem = "i8" if left[0] == "e2m1" else left[0]
    got = run_op(
        "dot_scaled", (elem, left[1]), (elem, np.ascontiguousarray(right[1].T)),
        ("fp32", acc[:4, :4].astype(np.float32)), (scale, left[2]), (scale, right[2]),
        to=Type("fp32", (4, 4)), **attrs,
    )  # fmt: skip
    np.testing.assert_array_equal(got, expected)


def _scaled(block, x):
    """Give small integers codes and power-of-two scales: format, codes, scales, and the values."""
    fmt = {"mxfp8_e4m3": "e4m3", "mxfp8_e5m2": "e5m2"}.get(block, "e2m1")
    group = 16 if block == "nvfp4" else 32
    x = np.clip(x, -4, 4).astype(np.float32)
    x = np.where(np.isin(np.abs(x), [0, 1, 2, 3, 4]), x, 0).astype(np.float32)
    rng = np.random.default_rng(5)
    exponents = rng.integers(-2, 3, (x.shape[0], x.shape[1] // group))
    values = x * np.repeat(2.0**exponents, group, axis=1).astype(np.float32)
    if block == "nvfp4":
        scales = (2.0**exponents).astype(ml_dtypes.float8_e4m3fn)
    else:
        scales = (exponents + 127).astype(np.uint8).view(np.int8)
    if fmt == "e2m1":
        table = {float(v): c for c, v in enumerate(decode(np.arange(16), "e2m1").tolist())}
        codes = np.array([[table[float(v)] for v in row] for row in x], np.uint8)
        return fmt, (codes[:, 0::2] | codes[:, 1::2] << 4).view(np.int8), scales, values
    return fmt, x.astype(dtype_of(Type(fmt))), scales, values

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from one_op import array_of, run_op

from asterope.ir import INTEGERS, Type, dtype_of

BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64}


def wrap(value, bits):
    """Read the low bits of an integer as two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def towards_zero(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def meaning(name, a, b, bits):
    """Say what an op gives on two's complement integers, in Python's integers."""
    ua, ub = a % 2**bits, b % 2**bits
    return {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "and": lambda: a & b,
        "or": lambda: a | b,
        "xor": lambda: a ^ b,
        "divs": lambda: towards_zero(a, b) if b else 0,
        "rems": lambda: a - towards_zero(a, b) * b if b else a,
        "divu": lambda: ua // ub if ub else 0,
        "remu": lambda: ua % ub if ub else a,
        "shl": lambda: ua << ub if ub < bits else 0,
        "shrs": lambda: a >> min(ub, bits - 1),
        "shru": lambda: ua >> ub if ub < bits else 0,
        "mins": lambda: min(a, b),
        "maxs": lambda: max(a, b),
        "minu": lambda: min(ua, ub),
        "maxu": lambda: max(ua, ub),
        "mulhu": lambda: ua * ub >> bits,
    }[name]()


OPS = [
    "add", "sub", "mul", "and", "or", "xor", "divs", "rems", "divu", "remu", "shl", "shrs", "shru",
    "mins", "maxs", "minu", "maxu", "mulhu",
]  # fmt: skip


def pairs(bits):
    """All pairs of edge values, and random ones."""
    rng = random.Random(bits)
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    edges = {least, least + 1, -1, 0, 1, 2, bits - 1, bits, bits + 1, most - 1, most}
    edges = sorted({wrap(e, bits) for e in edges})
    random_ones = [(rng.randint(least, most), rng.randint(least, most)) for _ in range(60)]
    found = [*itertools.product(edges, edges), *random_ones]
    return [p[0] for p in found], [p[1] for p in found]


def values(elem, integers):
    """Make an array; a set bit is -1 as a signed integer."""
    return np.array([v != 0 for v in integers]) if elem == "i1" else array_of(elem, integers)


@pytest.mark.parametrize("elem", INTEGERS)
@pytest.mark.parametrize("name", OPS)
def test_integer_ops_are_twos_complement(name, elem):
    bits = BITS[elem]
    a, b = pairs(bits)
    expected = [wrap(meaning(name, x, y, bits), bits) for x, y in zip(a, b, strict=True)]
    got = run_op(name, (elem, values(elem, a)), (elem, values(elem, b)))
    np.testing.assert_array_equal(got, values(elem, expected))


@pytest.mark.parametrize("elem", INTEGERS)
@pytest.mark.parametrize("name", OPS)
def test_integer_ops_take_scalars(name, elem):
    for x, y in ((-1, 1), (1, -1), (0, 0)):
        a, b = wrap(x, BITS[elem]), wrap(y, BITS[elem])
        expected = wrap(meaning(name, a, b, BITS[elem]), BITS[elem])
        got = run_op(name, (elem, values(elem, [a])[0]), (elem, values(elem, [b])[0]))
        assert got == values(elem, [expected])[0]


@pytest.mark.parametrize("elem", INTEGERS)
def test_absolute_value_wraps_at_the_least_integer(elem):
    a, _ = pairs(BITS[elem])
    got = run_op("iabs", (elem, values(elem, a)))
    np.testing.assert_array_equal(got, values(elem, [wrap(abs(x), BITS[elem]) for x in a]))


PREDICATES = {
    "eq": lambda a, b, u, v: a == b, "ne": lambda a, b, u, v: a != b,
    "slt": lambda a, b, u, v: a < b, "sle": lambda a, b, u, v: a <= b,
    "sgt": lambda a, b, u, v: a > b, "sge": lambda a, b, u, v: a >= b,
    "ult": lambda a, b, u, v: u < v, "ule": lambda a, b, u, v: u <= v,
    "ugt": lambda a, b, u, v: u > v, "uge": lambda a, b, u, v: u >= v,
}  # fmt: skip


@pytest.mark.parametrize("elem", INTEGERS)
@pytest.mark.parametrize("pred", PREDICATES)
def test_comparisons_are_signed_or_unsigned_as_named(pred, elem):
    a, b = pairs(BITS[elem])
    size = 2 ** BITS[elem]
    expected = [PREDICATES[pred](x, y, x % size, y % size) for x, y in zip(a, b, strict=True)]
    got = run_op(
        "cmp", (elem, values(elem, a)), (elem, values(elem, b)), to=Type("i1", (len(a),)), pred=pred
    )
    np.testing.assert_array_equal(got, expected)


WIDENING = [(a, b) for a, b in itertools.product(INTEGERS, INTEGERS) if BITS[a] < BITS[b]]


@pytest.mark.parametrize(("narrow", "wide"), WIDENING)
def test_extension_keeps_the_sign_or_fills_with_zeros_and_truncation_takes_it_back(narrow, wide):
    a, _ = pairs(BITS[narrow])
    shape = (len(a),)
    x = values(narrow, a)
    signed = run_op("convert", (narrow, x), to=Type(wide, shape), how="sext")
    zeros = run_op("convert", (narrow, x), to=Type(wide, shape), how="zext")
    np.testing.assert_array_equal(signed, a)
    np.testing.assert_array_equal(zeros, [v % 2 ** BITS[narrow] for v in a])
    for back in (signed, zeros):
        got = run_op("convert", (wide, back), to=Type(narrow, shape), how="trunc")
        np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("elem", ["fp32", "fp64", "bf16", "fp16", "e4m3", "e5m2"])
@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("how", ["to_signed", "to_unsigned"])
def test_float_to_integer_goes_to_zero_and_saturates(how, target, elem):
    numbers = [0.0, -0.0, 0.75, -0.75, 1.0, 1.5, -1.0, -1.5, 96.0, -96.0, 448.0, -448.0]
    if elem in ("fp32", "fp64"):
        numbers += [2.0**31, -(2.0**31), 2.0**63, 2.0**64, 1e30, -1e30, 2.0**32 - 2.0**8, 127.9]
    if elem not in ("e4m3", "e5m2"):
        numbers += [math.inf, -math.inf]
    bits = BITS[target]
    low, high = (
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if how == "to_signed" else (0, 2**bits - 1)
    )
    x = array_of(elem, [*numbers, math.nan])
    expected = [
        0 if math.isnan(v) else high if v > high else low if v < low else int(v)
        for v in x.astype(np.float64).tolist()
    ]
    got = run_op("convert", (elem, x), to=Type(target, x.shape), how=how)
    np.testing.assert_array_equal(got, values(target, [wrap(v, bits) for v in expected]))


@pytest.mark.parametrize(
    ("elem", "target"),
    [("i16", "fp16"), ("fp32", "i32"), ("i64", "fp64"), ("bf16", "fp16"), ("e4m3", "i8"),
     ("i8", "e5m2fnuz")],
)  # fmt: skip
def test_bitcast_keeps_the_bits(elem, target):
    dtype = dtype_of(Type(elem))
    raw = np.random.default_rng(0).integers(0, 256, 64 * dtype.itemsize, dtype=np.uint8)
    got = run_op("bitcast", (elem, raw.view(dtype)), to=Type(target, (64,)))
    assert got.tobytes() == raw.tobytes()


def test_select_takes_a_where_the_condition_holds():
    a, b = np.arange(4, dtype=np.int32), np.arange(4, dtype=np.int32) + 10
    c = np.array([True, False, False, True])
    operands = [("i32", a), ("i32", b)]
    got = run_op("select", ("i1", c), *operands, to=Type("i32", (4,)))
    assert got.tolist() == [0, 11, 12, 3]
    for scalar, expected in ((True, a), (False, b)):
        got = run_op("select", ("i1", np.array(scalar)), *operands, to=Type("i32", (4,)))
        np.testing.assert_array_equal(got, expected)

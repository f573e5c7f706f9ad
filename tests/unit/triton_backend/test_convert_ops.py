from __future__ import annotations

import itertools
import math

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl
from run_triton import ELEMENTS, random_array, run
from triton.language.extra import libdevice

from ir_builder import assert_same_bits


# -- arithmetic -----------------------------------------------------------------------------------
@triton.jit
def integers(x, y, o, B: tl.constexpr):
    i = tl.arange(0, B)
    a, b = tl.load(x + i), tl.load(y + i)
    c = tl.where(b == 0, 1, b)
    tl.store(o + i, a + b)
    tl.store(o + B + i, a - b)
    tl.store(o + 2 * B + i, a * b)
    tl.store(o + 3 * B + i, a // c)
    tl.store(o + 4 * B + i, a % c)
    tl.store(o + 5 * B + i, a & b)
    tl.store(o + 6 * B + i, a | b)
    tl.store(o + 7 * B + i, a ^ b)
    tl.store(o + 8 * B + i, ~a)
    tl.store(o + 9 * B + i, a << (b & 7))
    tl.store(o + 10 * B + i, a >> (b & 7))
    tl.store(o + 11 * B + i, tl.minimum(a, b))
    tl.store(o + 12 * B + i, tl.maximum(a, b))
    tl.store(o + 13 * B + i, tl.where(a < b, a, b))
    tl.store(o + 14 * B + i, -a)


@pytest.mark.parametrize("elem", ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"])
def test_integer_arithmetic_is_that_of_c(elem):
    x, y = random_array(elem, 32), random_array(elem, 32, seed=1)
    x[:2] = 0
    (_, _, out), _, _ = run(
        integers, f"*{elem} *{elem} *{elem}", [x, y, np.zeros(15 * 32, x.dtype)], {"B": 32}
    )
    got = out.reshape(15, 32)
    c = np.where(y == 0, 1, y).astype(x.dtype)
    low = (y & 7).astype(x.dtype)
    with np.errstate(all="ignore"):
        quotient = [int(abs(int(p)) // abs(int(q))) * (1 if (p < 0) == (q < 0) else -1)
                    for p, q in zip(x, c, strict=True)]  # fmt: skip
        quotient = np.array([q % 2 ** (8 * x.itemsize) for q in quotient], object)
        quotient = quotient.astype(f"u{x.itemsize}").view(x.dtype)
        expected = [
            x + y, x - y, x * y, quotient, x - quotient * c, x & y, x | y, x ^ y, ~x, x << low,
            x >> low, np.minimum(x, y), np.maximum(x, y), np.where(x < y, x, y),
            (0 - x.astype(object)) % 2 ** (8 * x.itemsize),
        ]  # fmt: skip
    for k, e in enumerate(expected[:-1]):
        np.testing.assert_array_equal(got[k], e, err_msg=str(k))
    assert [int(v) % 2 ** (8 * x.itemsize) for v in got[14]] == expected[14].tolist()


@triton.jit
def high_products(x, y, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.umulhi(tl.load(x + i), tl.load(y + i)))
    tl.store(o + B, tl.umulhi(tl.load(x), tl.load(y)))


@pytest.mark.parametrize("elem", ["u32", "u64", "i32", "i64"])
def test_the_high_half_of_a_product_is_unsigned(elem):
    x, y = random_array(elem, 16), random_array(elem, 16, seed=1)
    signature = f"*{elem} *{elem} *{elem}"
    (_, _, out), kernel, views = run(
        high_products, signature, [x, y, np.zeros(17, x.dtype)], {"B": 16}
    )
    bits = 8 * x.itemsize
    pairs = zip([*x.tolist(), x[0].item()], [*y.tolist(), y[0].item()], strict=True)
    expected = [(a % 2**bits) * (b % 2**bits) >> bits for a, b in pairs]
    assert [v % 2**bits for v in out.tolist()] == expected
    assert_same_bits(kernel, views)


@triton.jit
def floats(x, y, o, B: tl.constexpr):
    i = tl.arange(0, B)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(o + i, a + b)
    tl.store(o + B + i, a - b)
    tl.store(o + 2 * B + i, a * b)
    tl.store(o + 3 * B + i, a / b)
    tl.store(o + 4 * B + i, -a)
    tl.store(o + 5 * B + i, tl.abs(a))
    tl.store(o + 6 * B + i, tl.minimum(a, b))
    tl.store(o + 7 * B + i, tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL))
    tl.store(o + 8 * B + i, tl.clamp(a, -1.0, 1.0))
    tl.store(o + 9 * B + i, tl.fma(a, b, a))
    tl.store(o + 10 * B + i, tl.where((a > b) | (b > 2.0), a, 2.0))


@pytest.mark.parametrize("elem", ["fp32", "fp64"])
def test_float_arithmetic_is_ieee(elem):
    x, y = random_array(elem, 32), random_array(elem, 32, seed=1)
    x[0], y[1], x[2], y[2] = np.nan, np.nan, np.inf, 0.0
    signature = f"*{elem} *{elem} *{elem}"
    (_, _, out), kernel, views = run(
        floats, signature, [x, y, np.zeros(11 * 32, x.dtype)], {"B": 32}
    )
    assert_same_bits(kernel, views)
    got = out.reshape(11, 32)
    with np.errstate(all="ignore"):
        fused = x * y + x
        expected = [
            x + y, x - y, x * y, x / y, -x, np.abs(x), np.fmin(x, y), np.maximum(x, y),
            np.clip(np.where(np.isnan(x), -1, x), -1, 1), None,
            np.where((x > y) | (y > 2), x, 2),
        ]  # fmt: skip
    for k, e in enumerate(expected):
        if e is not None:
            np.testing.assert_array_equal(got[k], e.astype(x.dtype), err_msg=str(k))
    np.testing.assert_allclose(got[9], fused, rtol=1e-4)


@triton.jit
def comparisons(x, y, o, B: tl.constexpr):
    i = tl.arange(0, B)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(o + i, a < b)
    tl.store(o + B + i, a <= b)
    tl.store(o + 2 * B + i, a > b)
    tl.store(o + 3 * B + i, a >= b)
    tl.store(o + 4 * B + i, a == b)
    tl.store(o + 5 * B + i, a != b)


@pytest.mark.parametrize(
    "elem", ["i8", "u8", "i32", "u32", "i64", "u64", "fp16", "bf16", "fp32", "fp8e5"]
)
def test_comparisons_know_sign_and_nan(elem):
    x, y = random_array(elem, 32), random_array(elem, 32, seed=1)
    x[:8] = y[:8]
    if elem.startswith(("fp", "bf")):
        x[:2] = np.nan
    signature = f"*{elem} *{elem} *i1"
    (_, _, out), kernel, views = run(comparisons, signature, [x, y, np.zeros(192, bool)], {"B": 32})
    with np.errstate(invalid="ignore"):
        expected = [x < y, x <= y, x > y, x >= y, x == y, x != y]
    np.testing.assert_array_equal(out.reshape(6, 32), expected)
    assert_same_bits(kernel, views)


# -- functions ------------------------------------------------------------------------------------
@triton.jit
def functions(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.store(o + i, tl.exp(v))
    tl.store(o + B + i, tl.exp2(v))
    tl.store(o + 2 * B + i, tl.log(v))
    tl.store(o + 3 * B + i, tl.log2(v))
    tl.store(o + 4 * B + i, tl.sin(v))
    tl.store(o + 5 * B + i, tl.cos(v))
    tl.store(o + 6 * B + i, tl.sqrt(v))
    tl.store(o + 7 * B + i, tl.rsqrt(v))
    tl.store(o + 8 * B + i, tl.math.erf(v))
    tl.store(o + 9 * B + i, tl.floor(v))
    tl.store(o + 10 * B + i, tl.ceil(v))
    tl.store(o + 11 * B + i, tl.sigmoid(v))
    tl.store(o + 12 * B + i, libdevice.tanh(v))
    tl.store(o + 13 * B + i, libdevice.log1p(v))
    tl.store(o + 14 * B + i, libdevice.expm1(v))
    tl.store(o + 15 * B + i, libdevice.rint(v))


@triton.jit
def rounded_functions(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.store(o + i, tl.math.sqrt_rn(v))
    tl.store(o + B + i, tl.math.div_rn(v, 3.0))


@pytest.mark.parametrize("elem", ["fp32", "fp64"])
def test_functions_mean_what_their_names_say(elem):
    x = np.abs(random_array(elem, 16)) + np.dtype(ELEMENTS[elem]).type(0.01)
    (_, out), _, _ = run(functions, f"*{elem} *{elem}", [x, np.zeros(16 * 16, x.dtype)], {"B": 16})
    d = x.astype(np.float64)
    erf = np.vectorize(math.erf)
    expected = [
        np.exp(d), np.exp2(d), np.log(d), np.log2(d), np.sin(d), np.cos(d), np.sqrt(d),
        1 / np.sqrt(d), erf(d), np.floor(d), np.ceil(d), 1 / (1 + np.exp(-d)), np.tanh(d),
        np.log1p(d), np.expm1(d), np.rint(d),
    ]  # fmt: skip
    np.testing.assert_allclose(
        out.reshape(16, 16), expected, rtol=4e-7 if elem == "fp32" else 1e-14
    )


def test_functions_that_promise_correct_rounding_keep_it():
    x = np.abs(random_array("fp32", 16))
    out = np.zeros(32, np.float32)
    (_, out), kernel, views = run(rounded_functions, "*fp32 *fp32", [x, out], {"B": 16})
    np.testing.assert_array_equal(out.reshape(2, 16), [np.sqrt(x), x / np.float32(3)])
    assert_same_bits(kernel, views)


# -- conversions ----------------------------------------------------------------------------------
@triton.jit
def casts(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i).to(o.dtype.element_ty))


FLOAT_NAMES = ["fp32", "fp16", "bf16", "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16"]


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(FLOAT_NAMES, 2)))
def test_float_casts_round_to_nearest_even_and_fp8_saturates(source, target):
    x = random_array(source, 64)
    x[:3] = np.array([0.0, 1000.0, -1000.0]).astype(x.dtype)
    out = np.zeros(64, ELEMENTS[target])
    (_, out), kernel, views = run(casts, f"*{source} *{target}", [x, out], {"B": 64})
    largest = float(ml_dtypes.finfo(out.dtype).max)
    wide = np.clip(x.astype(np.float32), -largest, largest)
    np.testing.assert_array_equal(out.astype(np.float32), wide.astype(out.dtype).astype(np.float32))
    assert_same_bits(kernel, views)


@pytest.mark.parametrize("elem", ["i8", "u8", "i32", "u32", "i64", "u64"])
def test_integers_turn_into_floats_and_back_by_their_sign(elem):
    x = random_array(elem, 32)
    (_, out), kernel, views = run(casts, f"*{elem} *fp32", [x, np.zeros(32, np.float32)], {"B": 32})
    np.testing.assert_array_equal(out, x.astype(np.float32))
    assert_same_bits(kernel, views)
    small = np.clip(random_array("fp32", 32) * 30, -120, 120)
    small = np.abs(small) if elem[0] == "u" else small
    (_, back), kernel, views = run(casts, f"*fp32 *{elem}", [small, np.zeros_like(x)], {"B": 32})
    np.testing.assert_array_equal(back, np.trunc(small).astype(x.dtype))
    assert_same_bits(kernel, views)


@triton.jit
def bit_patterns(x, o, p, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.store(o + i, v.to(tl.int32, bitcast=True) >> 3)
    tl.store(p + i, v.to(tl.bfloat16, fp_downcast_rounding="rtz"))


def test_bitcast_and_rounding_toward_zero():
    x = random_array("fp32", 32)
    out = [np.zeros(32, np.int32), np.zeros(32, ml_dtypes.bfloat16)]
    (_, shifted, cut), kernel, views = run(bit_patterns, "*fp32 *i32 *bf16", [x, *out], {"B": 32})
    np.testing.assert_array_equal(shifted, x.view(np.int32) >> 3)
    np.testing.assert_array_equal(cut.view(np.uint16), (x.view(np.uint32) >> 16).astype(np.uint16))
    assert_same_bits(kernel, views)

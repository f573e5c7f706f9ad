"""`tl.dot` and `tl.dot_scaled` in every form the front end has, against float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import asterope
from asterope.errors import UnsupportedError
from library_kernels import random


@triton.jit
def batched(
    a_ptr, b_ptr, c_ptr, acc_ptr, B: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    K: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    b, m, n, k = tl.arange(0, B), tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(a_ptr + b[:, None, None] * M * K + m[None, :, None] * K + k[None, None, :])
    y = tl.load(b_ptr + b[:, None, None] * K * N + k[None, :, None] * N + n[None, None, :])
    at = b[:, None, None] * M * N + m[None, :, None] * N + n[None, None, :]
    if ACC:
        z = tl.dot(x, y, tl.load(acc_ptr + at), input_precision=PRECISION, out_dtype=OUT)
    else:
        z = tl.dot(x, y, input_precision=PRECISION, out_dtype=OUT)
    tl.store(c_ptr + at, z)


OUT = {torch.float32: tl.float32, torch.float16: tl.float16, torch.int32: tl.int32,
       torch.float64: tl.float64}  # fmt: skip


def multiplied(a, b, *, out=torch.float32, precision=None, acc=None):
    (batch, m, k), n = a.shape, b.shape[-1]
    c = torch.zeros(batch, m, n, dtype=out)
    start = c if acc is None else acc
    batched[(1,)](
        a.contiguous(), b.contiguous(), c, start, batch, m, n, k,
        OUT[out], precision, acc is not None,
    )  # fmt: skip
    return c


def assert_product(c, a, b, relative, acc=0.0):
    expected = a.double() @ b.double() + acc
    scale = a.double().abs() @ b.double().abs() + abs(acc)
    assert bool(((c.double() - expected).abs() <= relative * scale).all())


FP8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
SHAPES = [(1, 1, 1, 1), (2, 16, 16, 16), (4, 1, 8, 2), (8, 2, 4, 64)]


@pytest.mark.parametrize(
    ("elem", "shape"),
    [*((torch.float32, shape) for shape in SHAPES), (torch.bfloat16, SHAPES[1]),
     (torch.float16, SHAPES[3]), *((elem, SHAPES[i]) for i, elem in enumerate(FP8))],
)  # fmt: skip
def test_each_matrix_of_a_batch_is_multiplied(elem, shape):
    batch, m, n, k = shape
    a, b = random(batch, m, k).to(elem), random(batch, k, n, seed=1).to(elem)
    assert_product(multiplied(a, b), a, b, k * 2**-23)


def test_a_batch_of_doubles_and_one_of_int8():
    a, b = random(2, 4, 8).double() / 3, random(2, 8, 4, seed=1).double() / 3
    c = multiplied(a, b, out=torch.float64, acc=a[:, :, :4].contiguous())
    assert_product(c, a, b, 1e-15, a[:, :, :4])
    x, y = (torch.randint(-128, 128, s, dtype=torch.int8) for s in ((2, 4, 64), (2, 64, 8)))
    start = torch.randint(-(2**31), 2**31, (2, 4, 8), dtype=torch.int32)
    expected = (x.long() @ y.long() + start).to(torch.int32)
    assert torch.equal(multiplied(x, y, out=torch.int32, acc=start), expected)


@pytest.mark.parametrize(
    ("left", "right"), [(FP8[0], FP8[1]), (FP8[2], FP8[3]), (FP8[1], FP8[2]), (FP8[3], FP8[0])]
)
def test_fp8_formats_mix(left, right):
    a, b = random(1, 16, 32).to(left), random(1, 32, 16, seed=1).to(right)
    assert_product(multiplied(a, b), a, b, 2**-20)


def test_a_half_accumulator_is_rounded_once():
    a, b = random(2, 8, 64).half(), random(2, 64, 8, seed=1).half()
    start = random(2, 8, 8, seed=2).half()
    wide = multiplied(a, b, acc=start.float())
    assert torch.equal(multiplied(a, b, out=torch.float16, acc=start), wide.half())


# -- input precision ------------------------------------------------------------------------------
def tf32(x):
    """Round to 10 bits of mantissa, to nearest even."""
    fraction, exponent = np.frexp(x.double().numpy())
    return torch.from_numpy(np.ldexp(np.rint(np.ldexp(fraction, 11)), exponent - 11)).float()


@pytest.mark.parametrize("precision", [None, "ieee", "tf32x3", "bf16x3", "bf16x6"])
def test_all_precisions_but_tf32_multiply_in_fp32(precision):
    a, b = random(1, 16, 32), random(1, 32, 16, seed=1)
    assert torch.equal(multiplied(a, b, precision=precision), multiplied(a, b))
    assert_product(multiplied(a, b), a, b, 2**-20)


def test_tf32_rounds_the_operands_to_nearest_even():
    a, b = random(1, 16, 32), random(1, 32, 16, seed=1)
    codes = a.view(torch.int32)
    codes[0, 0, :8] = (codes[0, 0, :8] & ~0x1FFF) | 0x1000  # half-way
    assert torch.equal(multiplied(a, b, precision="tf32"), multiplied(tf32(a), tf32(b)))
    assert not torch.equal(multiplied(a, b, precision="tf32"), multiplied(a, b))


def test_tf32_keeps_what_is_not_finite():
    given = [torch.inf, -torch.inf, torch.nan, -torch.nan, 0.0, 3.4028e38, 0.0, 0.0]
    a = torch.tensor(given).reshape(1, 8, 1)
    a.view(torch.int32)[0, 6:, 0] = torch.tensor([0x7F800001, 0x7FFFFFFF], dtype=torch.int32)
    got = multiplied(a, torch.ones(1, 1, 1), precision="tf32")[0, :, 0]
    expected = [torch.inf, -torch.inf, torch.nan, torch.nan, 0.0, torch.inf, torch.nan, torch.nan]
    np.testing.assert_array_equal(got, np.float32(expected))


@triton.jit
def sum_of_products(a_ptr, b_ptr, c_ptr, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    a, b = tl.load(a_ptr + at), tl.load(b_ptr + at)
    tl.store(c_ptr + at, tl.sum(a[:, :, None] * b[None, :, :], axis=1))


def test_a_sum_of_products_that_triton_makes_a_dot_is_not_tf32():
    a, b, c = random(16, 16), random(16, 16, seed=1), torch.empty(16, 16)
    sum_of_products[(1,)](a, b, c, N=16)
    assert_product(c[None], a[None], b[None], 2**-20)


@triton.jit
def allows_tf32(a_ptr, b_ptr, c_ptr, N: tl.constexpr, ALLOW: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    c = tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at), allow_tf32=ALLOW)
    tl.store(c_ptr + at, c)


@pytest.mark.parametrize("allow", [True, False])
def test_allow_tf32_asks_for_tf32(allow):
    a, b, c = random(16, 16), random(16, 16, seed=1), torch.zeros(16, 16)
    allows_tf32[(1,)](a, b, c, 16, allow)
    precision = "tf32" if allow else "ieee"
    assert torch.equal(c, multiplied(a[None], b[None], precision=precision)[0])


# -- block scales ---------------------------------------------------------------------------------
@triton.jit
def scaled(
    a_ptr, a_scale_ptr, b_ptr, b_scale_ptr, c_ptr, B: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, A_FORMAT: tl.constexpr,
    B_FORMAT: tl.constexpr, A_ROWS: tl.constexpr, A_COLUMNS: tl.constexpr, B_ROWS: tl.constexpr,
    B_COLUMNS: tl.constexpr, A_K_PACK: tl.constexpr, B_K_PACK: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """c = (a scaled)(b scaled); a is [B, M, K] and b [B, K, N], before packing."""
    batch = tl.arange(0, B)[:, None, None]
    m, n, s = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K // GROUP)
    ar, ac = tl.arange(0, A_ROWS)[None, :, None], tl.arange(0, A_COLUMNS)[None, None, :]
    br, bc = tl.arange(0, B_ROWS)[None, :, None], tl.arange(0, B_COLUMNS)[None, None, :]
    a = tl.load(a_ptr + batch * A_ROWS * A_COLUMNS + ar * A_COLUMNS + ac)
    b = tl.load(b_ptr + batch * B_ROWS * B_COLUMNS + br * B_COLUMNS + bc)
    a_scale = None
    b_scale = None
    if a_scale_ptr is not None:
        at = batch * M * (K // GROUP) + m[None, :, None] * (K // GROUP) + s[None, None, :]
        a_scale = tl.load(a_scale_ptr + at)
    if b_scale_ptr is not None:
        at = batch * N * (K // GROUP) + n[None, :, None] * (K // GROUP) + s[None, None, :]
        b_scale = tl.load(b_scale_ptr + at)
    if B == 1:  # matrices, not a batch of one
        a = tl.reshape(a, A_ROWS, A_COLUMNS)
        b = tl.reshape(b, B_ROWS, B_COLUMNS)
        if a_scale_ptr is not None:
            a_scale = tl.reshape(a_scale, M, K // GROUP)
        if b_scale_ptr is not None:
            b_scale = tl.reshape(b_scale, N, K // GROUP)
    c = tl.dot_scaled(
        a, a_scale, A_FORMAT, b, b_scale, B_FORMAT,
        fast_math=FAST, lhs_k_pack=A_K_PACK, rhs_k_pack=B_K_PACK,
    )  # fmt: skip
    c = tl.reshape(c, B, M, N)
    tl.store(c_ptr + batch * M * N + m[None, :, None] * N + n[None, None, :], c)


CODES = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2,
         "e2m1": ml_dtypes.float4_e2m1fn}  # fmt: skip


class Operand:
    """Random codes of a format with their values; shape [B, R, C], packed along `axis`."""

    def __init__(self, fmt, shape, axis, seed):
        rng = np.random.default_rng(seed)
        if fmt in ("bf16", "fp16"):
            dtype = torch.bfloat16 if fmt == "bf16" else torch.float16
            self.codes = random(*shape, seed=seed).to(dtype)
            self.values = self.codes.double().numpy()
            return
        codes = rng.integers(0, 16 if fmt == "e2m1" else 256, shape, dtype=np.uint8)
        codes = np.where(np.isfinite(codes.view(CODES[fmt]).astype(np.float32)), codes, 0)
        codes = codes.astype(np.uint8)
        self.values = codes.view(CODES[fmt]).astype(np.float64)
        self.codes = torch.from_numpy(codes)
        if fmt == "e2m1":
            low, high = (np.take(codes, np.arange(i, shape[axis], 2), axis) for i in (0, 1))
            self.codes = torch.from_numpy(low | high << 4)


def scales_of(kind, shape, seed):
    rng = np.random.default_rng(seed)
    if kind == "e8m0":
        codes = rng.integers(120, 135, shape, dtype=np.uint8)
        return torch.from_numpy(codes), np.exp2(codes.astype(np.float64) - 127)
    codes = torch.from_numpy(rng.uniform(0.25, 4, shape)).to(torch.float8_e4m3fn)
    return codes, codes.double().numpy()


def run_scaled(
    a_format, b_format, scales=("e8m0", "e8m0"), *, size=(1, 16, 32, 64), pack=("k", "k"),
    fast=False, nan=False,
):  # fmt: skip
    """Multiply random operands; return the result, the exact product and that of magnitudes."""
    batch, m, n, k = size
    group = 16 if "e4m3" in scales else 32
    a = Operand(a_format, (batch, m, k), 2 if pack[0] == "k" else 1, 1)
    b = Operand(b_format, (batch, k, n), 1 if pack[1] == "k" else 2, 2)
    pointers = []
    for operand, kind, rows, seed in ((a, scales[0], m, 3), (b, scales[1], n, 4)):
        if kind is None:
            pointers.append(None)
            continue
        codes, factors = scales_of(kind, (batch, rows, k // group), seed)
        if nan:
            codes[0, 1, 0], factors[0, 1, 0] = 255, np.nan
        wide = np.repeat(factors, group, axis=2)
        operand.values = operand.values * (wide if operand is a else wide.swapaxes(1, 2))
        pointers.append(codes)
    c = torch.full((batch, m, n), -1.0)
    scaled[(1,)](
        a.codes, pointers[0], b.codes, pointers[1], c, batch, m, n, k, group, a_format, b_format,
        *a.codes.shape[1:], *b.codes.shape[1:], pack[0] == "k", pack[1] == "k", fast,
    )  # fmt: skip
    return c.numpy(), a.values @ b.values, np.abs(a.values) @ np.abs(b.values)


def assert_near(got, exact, magnitude):
    assert (np.abs(got - exact) <= 2**-20 * magnitude).all()


FORMATS = ("e4m3", "e5m2", "e2m1", "bf16", "fp16")


@pytest.mark.parametrize("b_format", FORMATS)
@pytest.mark.parametrize("a_format", FORMATS)
def test_every_pair_of_formats_has_its_product(a_format, b_format):
    has = [None if f in ("bf16", "fp16") else "e8m0" for f in (a_format, b_format)]
    assert_near(*run_scaled(a_format, b_format, has))


@pytest.mark.parametrize("scales", [(None, None), ("e8m0", None), (None, "e8m0"), ("e4m3", "e4m3"),
                                    ("e4m3", None), (None, "e4m3")])  # fmt: skip
@pytest.mark.parametrize("fmt", ["e2m1", "e5m2"])
def test_either_scale_may_be_missing(scales, fmt):
    assert_near(*run_scaled(fmt, fmt, scales, fast=scales[0] is None))


@pytest.mark.parametrize("pack", [("k", "rows"), ("rows", "k"), ("rows", "rows")])
@pytest.mark.parametrize("batch", [1, 2])
def test_fp4_may_be_packed_along_the_other_dimension(pack, batch):
    assert_near(*run_scaled("e2m1", "e2m1", size=(batch, 16, 32, 64), pack=pack))


@pytest.mark.parametrize("formats", [("e4m3", "e2m1"), ("e2m1", "bf16")])
@pytest.mark.parametrize("size", [(4, 16, 16, 32), (2, 1, 2, 64), (2, 32, 1, 128)])
def test_batches_of_scaled_operands(formats, size):
    scales = [None if f == "bf16" else "e8m0" for f in formats]
    assert_near(*run_scaled(*formats, scales, size=size))


@pytest.mark.parametrize("fast", [False, True])
def test_a_nan_scale_makes_its_row_and_its_column_nan(fast):
    got, exact, _ = run_scaled("e4m3", "e2m1", nan=True, fast=fast)
    assert np.isnan(got[0, 1]).all()
    assert np.isnan(got[0, :, 1]).all()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))


@triton.jit
def scales_of_half(a_ptr, s_ptr, c_ptr):
    at = tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
    a = tl.load(a_ptr + at)
    s = tl.load(s_ptr + tl.arange(0, 32)[:, None])
    tl.store(c_ptr + at, tl.dot_scaled(a, s, "e5m2", a, None, "e5m2"))  # here


def test_a_scale_of_another_type_is_refused():
    a = torch.zeros(32, 32, dtype=torch.uint8)
    with pytest.raises(UnsupportedError, match="a scale of type fp16 is not supported"):
        scales_of_half[(1,)](a, torch.ones(32).half(), torch.zeros(32, 32))


# -- time -----------------------------------------------------------------------------------------
def test_a_batch_takes_the_tensor_engine_as_many_products():
    def operations(batch):
        a, b = (random(batch, 32, 32, seed=s).bfloat16() for s in (0, 1))
        with asterope.simulate(asterope.chips.maia200()) as timeline:
            multiplied(a, b)
        return timeline.launches[0].result.flop

    assert operations(1) == {"bf16": 2 * 32**3}
    assert operations(4) == {"bf16": 4 * 2 * 32**3}


@triton.jit
def reshaped(a, b, y, N: tl.constexpr):
    of_a = tl.make_tensor_descriptor(a, [1, N, N], [N * N, N, 1], [1, N, N])
    of_b = tl.make_tensor_descriptor(b, [1, N, N], [N * N, N, 1], [1, N, N])
    total = tl.zeros((N, N), tl.float32)
    for i in range(1):
        left = of_a.load([0, 0, i]).reshape(N, N)
        right = of_b.load([0, 0, i]).reshape(N, N)
        total = tl.dot(left, right.T, total)
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y + at, total)


def test_operands_that_other_ops_put_into_memory_are_multiplied():
    a, b = (torch.randint(-2, 3, (64, 64)).bfloat16() for _ in range(2))
    y = torch.empty(64, 64)
    reshaped[(1,)](a, b, y, N=64)
    assert torch.equal(y, a.float() @ b.float().T)

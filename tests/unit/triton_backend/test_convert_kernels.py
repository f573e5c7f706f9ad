from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton_to_tiles import tile_ir

from asterope.compiler import find_tiles, simplify
from asterope.formats import dequantize, pack, quantize
from asterope.ir import parse_kernel, print_kernel
from ir_builder import describe, differing, interpreted, launched

ELEMENTS = {
    "fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16,
    "fp8e4nv": ml_dtypes.float8_e4m3fn, "fp8e5": ml_dtypes.float8_e5m2,
}  # fmt: skip


def run(fn, signature, arguments, constants, grid=(1, 1, 1), *, exact=True):
    """Run a kernel by the interpreter and, optimised, natively; return the interpreter's arrays.

    `exact` asks for equal bits; kernels with functions of the CPU's own are compared loosely.
    """
    kernel = tile_ir(fn, signature, constants)
    optimised = simplify(find_tiles(parse_kernel(print_kernel(kernel))))
    expected = interpreted(kernel, arguments, grid)
    for got, wanted in zip(launched(optimised, arguments, grid), expected, strict=True):
        if exact:
            differ = differing(got, wanted)
            assert not differ.any(), describe(got, wanted, differ)
        else:
            np.testing.assert_allclose(
                got.astype(np.float64), wanted.astype(np.float64), rtol=2e-3, atol=1e-5
            )
    return expected, optimised


def normal(shape, elem="fp32", seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    return x.astype(np.float32).astype(ELEMENTS[elem])


@triton.jit
def vector_add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    total = tl.load(x + at, mask=inside) + tl.load(y + at, mask=inside)
    tl.store(out + at, total, mask=inside)


@pytest.mark.parametrize("elem", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("n", [1, 64, 100])
def test_vector_add(elem, n):
    x, y = normal(n, elem), normal(n, elem, 1)
    arguments = [x, y, np.zeros_like(x), n]
    signature = f"*{elem} *{elem} *{elem} i32"
    (_, _, out), kernel = run(vector_add, signature, arguments, {"BLOCK": 64}, (2, 1, 1))
    np.testing.assert_array_equal(out.astype(np.float32), (x + y).astype(np.float32))
    assert not {"load", "store"} & {op.name for op in kernel.walk()}


@triton.jit
def softmax(out, x, row_stride, num_rows, num_columns, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    inside = column < num_columns
    for row in tl.range(tl.program_id(0), num_rows, tl.num_programs(0)):
        value = tl.load(x + row * row_stride + column, mask=inside, other=-float("inf"))
        value = value - tl.max(value, axis=0)
        numerator = tl.exp(value)
        result = numerator / tl.sum(numerator, axis=0)
        tl.store(out + row * row_stride + column, result, mask=inside)


def test_softmax():
    x = normal((5, 50)) * 4
    arguments = [np.zeros_like(x), x, 50, 5, 50]
    (out, _), _ = run(
        softmax, "*fp32 *fp32 i32 i32 i32", arguments, {"BLOCK": 64}, (2, 1, 1), exact=False
    )
    wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    np.testing.assert_allclose(out, wide / wide.sum(1, keepdims=True), rtol=1e-5)


@triton.jit
def layer_norm(
    x, y, weight, bias, mean_out, rstd_out, stride, n, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    x += row * stride
    y += row * stride
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / n
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
        value = tl.where(at < n, value - mean, 0.0)
        squares += value * value
    rstd = 1 / tl.sqrt(tl.sum(squares, axis=0) / n + eps)
    tl.store(mean_out + row, mean)
    tl.store(rstd_out + row, rstd)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < n
        w, b = tl.load(weight + at, mask=inside), tl.load(bias + at, mask=inside)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + at, (value - mean) * rstd * w + b, mask=inside)


@pytest.mark.parametrize("elem", ["fp32", "fp16"])
def test_layer_norm(elem):
    x, weight, bias = normal((3, 100), elem), normal(100, elem, 1), normal(100, elem, 2)
    statistics = [np.zeros(3, np.float32), np.zeros(3, np.float32)]
    arguments = [x, np.zeros_like(x), weight, bias, *statistics, 100, 100, 1e-5]
    signature = f"*{elem} *{elem} *{elem} *{elem} *fp32 *fp32 i32 i32 fp32"
    (_, y, _, _, mean, rstd), _ = run(layer_norm, signature, arguments, {"BLOCK": 32}, (3, 1, 1))
    wide = x.astype(np.float64)
    expected_mean, variance = wide.mean(1), wide.var(1)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-5)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(variance + 1e-5), rtol=1e-5)
    normed = (wide - expected_mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
    tolerance = {"fp32": 1e-5, "fp16": 4e-3}[elem]
    np.testing.assert_allclose(y, normed * weight + bias, rtol=tolerance, atol=tolerance)


@triton.jit
def leaky(x):
    return tl.where(x >= 0, x, 0.01 * x)


@triton.jit
def matmul(
    a, b, c, M, N, K, a_m, a_k, b_k, b_n, c_m, c_n,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    num_n = tl.cdiv(N, BN)
    in_group = GROUP * num_n
    first_m = pid // in_group * GROUP
    size = min(tl.cdiv(M, BM) - first_m, GROUP)
    m, n = first_m + (pid % in_group) % size, (pid % in_group) // size
    rows = (m * BM + tl.arange(0, BM)) % M
    columns = (n * BN + tl.arange(0, BN)) % N
    depth = tl.arange(0, BK)
    ap = a + (rows[:, None] * a_m + depth[None, :] * a_k)
    bp = b + (depth[:, None] * b_k + columns[None, :] * b_n)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(tl.cdiv(K, BK)):
        av = tl.load(ap, mask=depth[None, :] < K - k * BK, other=0.0)
        bv = tl.load(bp, mask=depth[:, None] < K - k * BK, other=0.0)
        acc = tl.dot(av, bv, acc)
        ap += BK * a_k
        bp += BK * b_k
    acc = leaky(acc)
    out_m, out_n = m * BM + tl.arange(0, BM), n * BN + tl.arange(0, BN)
    inside = (out_m[:, None] < M) & (out_n[None, :] < N)
    cp = c + c_m * out_m[:, None] + c_n * out_n[None, :]
    tl.store(cp, acc.to(c.dtype.element_ty), mask=inside)


@pytest.mark.parametrize("elem", ["fp32", "fp16", "bf16", "fp8e4nv", "fp8e5"])
def test_matmul(elem):
    m, n, k = 20, 24, 40
    a, b = normal((m, k), elem), normal((k, n), elem, 1)
    c = np.zeros((m, n), np.float32 if elem.startswith("fp8") else ELEMENTS[elem])
    target = "fp32" if elem.startswith("fp8") else elem
    arguments = [a, b, c, m, n, k, k, 1, n, 1, n, 1]
    signature = f"*{elem} *{elem} *{target} " + "i32 " * 9
    constants = {"BM": 16, "BN": 16, "BK": 32, "GROUP": 2}
    (_, _, got), kernel = run(matmul, signature, arguments, constants, (4, 1, 1))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    exact = np.where(exact >= 0, exact, 0.01 * exact)
    tolerance = {"fp32": 2e-6, "fp16": 1e-3, "bf16": 1e-2}.get(elem, 1e-5)
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=tolerance, atol=tolerance * 10)
    (loop,) = (op for op in kernel.walk() if op.name == "for")
    assert [op.name for op in loop.blocks[0].ops if "load" in op.name] == ["load_tile"] * 2


@triton.jit
def matmul_scaled(
    a, a_scale, b, b_scale, c, K, FA: tl.constexpr, FB: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    per_a: tl.constexpr = 2 if FA == "e2m1" else 1
    per_b: tl.constexpr = 2 if FB == "e2m1" else 1
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    ap = a + m[:, None] * (K // per_a) + tl.arange(0, BK // per_a)[None, :]
    bp = b + tl.arange(0, BK // per_b)[:, None] + n[None, :] * (K // per_b)
    groups = tl.arange(0, BK // GROUP)
    asp = a_scale + m[:, None] * (K // GROUP) + groups[None, :]
    bsp = b_scale + n[:, None] * (K // GROUP) + groups[None, :]
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, K, BK):
        acc = tl.dot_scaled(tl.load(ap), tl.load(asp), FA, tl.load(bp), tl.load(bsp), FB, acc)
        ap += BK // per_a
        bp += BK // per_b
        asp += BK // GROUP
        bsp += BK // GROUP
    tl.store(c + m[:, None] * BN + n[None, :], acc)


BLOCK_FORMATS = {
    "mxfp8 e4m3": ("mxfp8", "e4m3"),
    "mxfp8 e5m2": ("mxfp8_e5m2", "e5m2"),
    "mxfp4": ("mxfp4", "e2m1"),
}


@pytest.mark.parametrize("formats", [("mxfp8 e4m3", "mxfp8 e5m2"), ("mxfp4", "mxfp4"),
                                     ("mxfp8 e4m3", "mxfp4")])  # fmt: skip
def test_scaled_matmul_is_the_product_of_what_was_quantized(formats):
    size, depth = 16, 128
    operands, values, elements = [], [], []
    for seed, name in enumerate(formats):
        block, element = BLOCK_FORMATS[name]
        quantized = quantize(normal((size, depth), seed=seed), block)
        codes = quantized.codes
        operands += [pack(codes, "e2m1") if element == "e2m1" else codes, quantized.scales]
        values.append(dequantize(quantized).astype(np.float64))
        elements.append(element)
    out = np.zeros((size, size), np.float32)
    constants = {"FA": elements[0], "FB": elements[1], "BM": 16, "BN": 16, "BK": 64, "GROUP": 32}
    arguments = [*(x.view(np.int8) for x in operands), out, depth]
    (*_, got), _ = run(matmul_scaled, "*u8 *u8 *u8 *u8 *fp32 i32", arguments, constants)
    np.testing.assert_allclose(got, values[0] @ values[1].T, rtol=1e-5, atol=1e-4)


@triton.jit
def attention(
    q, k, v, out, scale, num_keys,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0) * BM
    rows, d = start + tl.arange(0, BM), tl.arange(0, D)
    query = tl.load(q + rows[:, None] * D + d[None, :])
    largest = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    end = start + BM if CAUSAL else num_keys
    for first in range(0, end, BN):
        keys = first + tl.arange(0, BN)
        key = tl.load(k + keys[:, None] * D + d[None, :])
        score = tl.dot(query, tl.trans(key)) * scale
        if CAUSAL:
            score = tl.where(rows[:, None] >= keys[None, :], score, -1e6)
        new = tl.maximum(largest, tl.max(score, 1))
        p = tl.exp2(score - new[:, None])
        alpha = tl.exp2(largest - new)
        total = total * alpha + tl.sum(p, 1)
        value = tl.load(v + keys[:, None] * D + d[None, :])
        acc = tl.dot(p.to(value.dtype), value, acc * alpha[:, None])
        largest = new
    acc = acc / total[:, None]
    tl.store(out + rows[:, None] * D + d[None, :], acc.to(out.dtype.element_ty))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("elem", ["fp32", "fp16"])
def test_flash_attention(elem, causal):
    length, d = 64, 16
    q, k, v = (normal((length, d), elem, seed) for seed in range(3))
    scale = 1.4426950408889634 / d**0.5
    arguments = [q, k, v, np.zeros_like(q), scale, length]
    constants = {"D": d, "BM": 32, "BN": 16, "CAUSAL": causal}
    signature = f"*{elem} *{elem} *{elem} *{elem} fp32 i32"
    (*_, got), _ = run(attention, signature, arguments, constants, (2, 1, 1), exact=False)
    score = q.astype(np.float64) @ k.astype(np.float64).T / d**0.5
    if causal:
        score = np.where(np.tri(length, dtype=bool), score, -np.inf)
    p = np.exp(score - score.max(1, keepdims=True))
    exact = p / p.sum(1, keepdims=True) @ v.astype(np.float64)
    tolerance = {"fp32": 1e-5, "fp16": 3e-3}[elem]
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=tolerance, atol=tolerance)

"""Unmodified Triton kernels, launched with CPU tensors, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton

from asterope.formats import block, dequantize, pack, quantize
from library_kernels import random
from triton_kernels import (
    add_kernel,
    attention_kernel,
    layer_norm_kernel,
    matmul_kernel,
    scaled_matmul_kernel,
    softmax_kernel,
)

# Half the distance of neighbours, relative.
EPS = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def assert_near(got, expected, scale, relative, absolute=0.0):
    """Assert |got - expected| <= relative * scale + absolute, element by element."""
    error = (got.double() - expected).abs()
    limit = relative * scale + absolute
    assert bool((error <= limit).all()), f"worst {float((error / limit).max()):.3g} of the limit"


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 1000, 4096, 98_432])
def test_vector_add_is_exact(n):
    x, y = random(n), random(n, seed=1)
    out = torch.full_like(x, torch.nan)
    add_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, y, out, n, BLOCK=1024)
    assert torch.equal(out, x + y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32,
                                   torch.int64, torch.int8, torch.uint8])  # fmt: skip
def test_vector_add_in_every_type_is_torchs(dtype):
    x, y = (random(777, seed=s, scale=50.0).to(dtype) for s in (0, 1))
    out = torch.zeros_like(x)
    add_kernel[(4,)](x, y, out, 777, BLOCK=256)
    assert torch.equal(out, x + y)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 100), (33, 781), (200, 1024)])
def test_softmax_rows(rows, columns):
    x = random(rows, columns, scale=5.0)
    out = torch.empty_like(x)
    block_size = triton.next_power_of_2(columns)
    softmax_kernel[(min(rows, 13),)](
        out, x, x.stride(0), out.stride(0), rows, columns, block_size, num_stages=4
    )
    expected = x.double().softmax(-1)
    assert_near(out, expected, expected, 5e-6, 1e-30)


def test_softmax_of_the_extremes():
    x = random(8, 96)
    x[0] = -torch.inf
    x[0, 3] = 2.0
    x[1, 5] = torch.inf
    x[2, 7] = torch.nan
    x[3] = 3e38
    x[4, ::2] = -torch.inf
    out = torch.empty_like(x)
    softmax_kernel[(8,)](out, x, 96, 96, 8, 96, 128, num_stages=1)
    expected = x.double().softmax(-1).float()
    assert torch.equal(out.isnan(), expected.isnan())
    real = ~expected.isnan()
    assert torch.allclose(out[real], expected[real], rtol=5e-6, atol=1e-30)


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (6, 512), (9, 1151)])
@pytest.mark.parametrize("dtype", EPS)
def test_layer_norm(rows, columns, dtype):
    x = (random(rows, columns) * 2.3 - 0.5).to(dtype)
    w, b = random(columns, seed=1).to(dtype), random(columns, seed=2).to(dtype)
    y, mean, rstd = torch.empty_like(x), torch.empty(rows), torch.empty(rows)
    layer_norm_kernel[(rows,)](x, y, w, b, mean, rstd, x.stride(0), columns, 1e-5, BLOCK=256)
    wide = x.double()
    assert_near(mean, wide.mean(1), wide.abs().mean(1), 1e-6)
    expected_rstd = 1 / (wide.var(1, correction=0) + 1e-5).sqrt()
    assert_near(rstd, expected_rstd, expected_rstd, 1e-5)
    expected = torch.nn.functional.layer_norm(wide, (columns,), w.double(), b.double(), 1e-5)
    scale = expected.abs() + b.double().abs() + 1
    assert_near(y, expected, scale, 2 * EPS[dtype] + 1e-6)


def matmul(a, b, c, activation="", blocks=(32, 32, 32)):
    (m, k), n = a.shape, b.shape[1]
    block_m, block_n, block_k = blocks
    grid = (triton.cdiv(m, block_m) * triton.cdiv(n, block_n),)
    matmul_kernel[grid](
        a, b, c, m, n, k, *a.stride(), *b.stride(), *c.stride(),
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k, GROUP_M=8, ACTIVATION=activation,
    )  # fmt: skip
    return c


def assert_product(c, a, b, activation=""):
    expected = a.double() @ b.double()
    scale = a.double().abs() @ b.double().abs()
    if activation:
        expected = torch.nn.functional.leaky_relu(expected, 0.01)
    relative = a.shape[1] * 2**-24 + (EPS[c.dtype] if c.dtype != torch.float32 else 0)
    subnormal = 2**-25 if c.dtype == torch.float16 else 0.0
    assert_near(c, expected, scale, relative, subnormal)


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 64, 64), (137, 75, 130)])
@pytest.mark.parametrize("dtype", EPS)
def test_matmul_with_grouped_order(shape, dtype):
    m, n, k = shape
    a, b = random(m, k).to(dtype), random(k, n, seed=1).to(dtype)
    assert_product(matmul(a, b, torch.empty(m, n, dtype=dtype)), a, b)


@pytest.mark.parametrize("activation", ["", "leaky_relu"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_matmul_of_fp8(dtype, activation):
    a, b = random(50, 96).to(dtype), random(70, 96, seed=1).to(dtype).T
    c = matmul(a, b, torch.empty(50, 70, dtype=torch.float16), activation, (64, 64, 32))
    assert_product(c, a, b, activation)


@pytest.mark.parametrize("blocks", [(16, 16, 16), (16, 128, 64)])
def test_block_sizes_do_not_change_what_is_computed(blocks):
    a, b = random(100, 90), random(90, 110, seed=1)
    assert_product(matmul(a, b, torch.empty(100, 110), blocks=blocks), a, b)


@pytest.mark.parametrize("layout", ["a.T", "b.T", "c.T", "sliced"])
def test_matmul_of_tensors_that_are_not_contiguous(layout):
    a, b, c = random(48, 64), random(64, 40, seed=1), torch.zeros(48, 40)
    if layout == "a.T":
        a = random(64, 48).T
    elif layout == "b.T":
        b = random(40, 64, seed=1).T
    elif layout == "c.T":
        c = torch.zeros(40, 48).T
    else:
        a, b = random(96, 128)[::2, ::2], random(200, 80, seed=1)[7:71, 3:43]
    assert_product(matmul(a, b, c), a, b)


# -- block scales ---------------------------------------------------------------------------------
def operand(rows, k, fmt, seed):
    """Quantize random rows: codes as a kernel takes them, scales, and what both stand for."""
    q = quantize(random(rows, k, seed=seed, scale=2.0).numpy(), fmt)
    codes = torch.from_numpy(np.asarray(q.codes))
    if block(fmt).element.name == "e2m1":
        codes = torch.from_numpy(np.asarray(pack(q.codes, "e2m1")))
    elif block(fmt).element.name == "e4m3":
        codes = codes.view(torch.float8_e4m3fn)
    scales = torch.from_numpy(np.asarray(q.scales))
    if fmt == "nvfp4":
        scales = scales.view(torch.float8_e4m3fn)
    values = torch.from_numpy(np.asarray(dequantize(q), np.float64))
    return codes, scales, values / float(q.global_scale or 1.0)


@pytest.mark.parametrize(
    ("a_format", "b_format", "group"),
    [
        ("mxfp8", "mxfp8", 32),
        ("mxfp4", "mxfp4", 32),
        ("mxfp8", "mxfp4", 32),
        ("nvfp4", "nvfp4", 16),
    ],
)
@pytest.mark.parametrize(("m", "n", "k"), [(19, 70, 128)])
def test_dot_scaled(a_format, b_format, group, m, n, k):
    a, a_scale, a_values = operand(m, k, a_format, 1)
    b, b_scale, b_values = operand(n, k, b_format, 2)
    names = {"mxfp8": ("e4m3", 1), "mxfp4": ("e2m1", 2), "nvfp4": ("e2m1", 2)}
    (a_name, a_pack), (b_name, b_pack) = names[a_format], names[b_format]
    c = torch.full((m, n), torch.nan)
    scaled_matmul_kernel[(triton.cdiv(m, 32), triton.cdiv(n, 32))](
        a, a_scale, b, b_scale, c, m, n, K=k, A_FORMAT=a_name, B_FORMAT=b_name, GROUP=group,
        A_PACK=a_pack, B_PACK=b_pack, BLOCK_M=32, BLOCK_N=32,
    )  # fmt: skip
    scale = a_values.abs() @ b_values.abs().T
    assert_near(c, a_values @ b_values.T, scale, k * 2**-24)


# -- attention -------------------------------------------------------------------------------------
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", EPS)
def test_flash_attention(causal, dtype):
    heads, tokens, dim = 3, 77, 32
    q, k, v = (random(heads, tokens, dim, seed=s).to(dtype) for s in range(3))
    out = torch.full_like(q, torch.nan)
    attention_kernel[(triton.cdiv(tokens, 32), heads)](
        q, k, v, out, dim**-0.5, tokens, q.stride(0), q.stride(1),
        CAUSAL=causal, BLOCK_M=32, BLOCK_N=32, D=dim,
    )  # fmt: skip
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), is_causal=causal
    )
    largest = v.double().abs().amax(1, keepdim=True)
    assert_near(out, expected, largest, 2e-6 + 3 * (EPS[dtype] if dtype != torch.float32 else 0))

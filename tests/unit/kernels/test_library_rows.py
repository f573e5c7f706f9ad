"""Norm, gate, rotary embedding and attention against float64, over odd shapes and types."""

from __future__ import annotations

import pytest
import torch

from asterope.errors import ShapeError
from asterope.kernels import (
    attention,
    attention_reference,
    clamped_swiglu,
    clamped_swiglu_reference,
    rms_norm,
    rms_norm_reference,
    rotate_and_cache,
    silu_mul,
    silu_mul_reference,
)
from library_kernels import random

EPS = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def assert_near(got, expected, scale, relative):
    error = (got.double() - expected).abs()
    tiny = 2**-24 if got.dtype == torch.float16 else 1e-38
    limit = relative * scale + tiny
    assert bool((error <= limit).all()), f"worst {float((error / limit).max()):.3g} of the limit"


# -- norm ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 1), (130, 100), (2, 4096)])
@pytest.mark.parametrize("dtype", EPS)
def test_rms_norm(shape, dtype):
    x, weight = random(*shape, scale=3.0).to(dtype), random(shape[1], seed=1).to(dtype)
    expected = rms_norm_reference(x, weight, 1e-5)
    assert_near(rms_norm(x, weight, 1e-5), expected, expected.abs(), 3 * EPS[dtype] + 1e-6)


@pytest.mark.parametrize("dtype", EPS)
def test_rms_norm_adds_to_the_residual_first_and_keeps_the_sum(dtype):
    x, residual = (random(9, 200, seed=s).to(dtype) for s in (0, 1))
    weight = random(200, seed=2).to(dtype)
    total = x + residual
    y = rms_norm(x, weight, 1e-6, residual)
    assert torch.equal(residual, total)
    expected = rms_norm_reference(total, weight, 1e-6)
    assert_near(y, expected, expected.abs(), 3 * EPS[dtype] + 1e-6)


def placed(values, stride):
    """Put rows so far apart, with room behind them for whoever takes them to be farther."""
    rows, k = values.shape
    buffer = torch.zeros(8 * rows * stride)
    view = buffer.as_strided((rows, k), (stride, 1))
    view.copy_(values)
    return view, buffer


@pytest.mark.parametrize(("x_stride", "residual_stride"), [(150, 150), (64, 150), (150, 64)])
def test_rms_norm_of_rows_in_wider_matrices(x_stride, residual_stride):
    total = random(8, 64) + random(8, 64, seed=1)
    x, _ = placed(random(8, 64), x_stride)
    residual, buffer = placed(random(8, 64, seed=1), residual_stride)
    weight = random(64, seed=2)
    y = rms_norm(x, weight, 1e-6, residual)
    expected = rms_norm_reference(total, weight, 1e-6)
    assert_near(y, expected, expected.abs(), 2e-6)
    assert torch.equal(residual, total)
    assert int(buffer.count_nonzero()) == total.numel()  # nothing else was written


def test_rms_norm_in_place_is_that_of_a_copy():
    wide, weight = random(5, 90), random(40, seed=1)
    part = wide[:, 30:70]
    kept, expected = wide.clone(), rms_norm(part, weight, 1e-5)
    assert rms_norm(part, weight, 1e-5, out=part) is part
    assert torch.equal(part, expected)
    assert torch.equal(wide[:, :30], kept[:, :30])
    assert torch.equal(wide[:, 70:], kept[:, 70:])


def test_rms_norm_of_zeros_and_of_nothing():
    assert not rms_norm(torch.zeros(3, 50), torch.ones(50), 1e-6).any()
    assert rms_norm(torch.zeros(0, 50), torch.ones(50), 1e-6).shape == (0, 50)


# -- gate ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(5, 3), (40, 1000), (2, 5000)])
@pytest.mark.parametrize("dtype", EPS)
def test_silu_mul(shape, dtype):
    rows, width = shape
    gate_up = random(rows, 2 * width, scale=4.0).to(dtype)
    got, expected = silu_mul(gate_up), silu_mul_reference(gate_up)
    assert (got.shape, got.dtype) == ((rows, width), dtype)
    # The gate is rounded before it multiplies, to a subnormal where it is small.
    smallest = float(torch.finfo(dtype).smallest_normal) * gate_up.double().abs()[:, width:]
    assert_near(got, expected, expected.abs() + smallest, 3 * EPS[dtype] + 1e-6)


def test_silu_mul_of_rows_in_a_wider_matrix_and_of_the_extremes():
    wide = random(6, 300)
    expected = silu_mul_reference(wide[:, 50:150])
    assert_near(silu_mul(wide[:, 50:150]), expected, expected.abs(), 2e-6)
    gate_up = torch.tensor([[-1e4, 1e4, -torch.inf, torch.inf, 0.0, 1.0, 1.0, 1.0, 1.0, 5.0]])
    got = silu_mul(gate_up)[0]
    assert got[:2].tolist() == [0.0, 1e4]
    assert got[3:].tolist() == [torch.inf, 0.0]
    assert silu_mul(torch.zeros(0, 8)).shape == (0, 4)


def test_clamped_swiglu():
    gate_up = random(40, 2 * 300, scale=8.0)
    how = {"alpha": 1.702, "limit": 7.0}
    got, expected = clamped_swiglu(gate_up, **how), clamped_swiglu_reference(gate_up, **how)
    assert bool((gate_up.abs() > 7).any())
    assert_near(got, expected, expected.abs() + 1e-6, 1e-5)
    extremes = torch.tensor([[1e4, -1e4, 0.0, 7.0, 1e4, 1e4, -1e4, -1.0]])
    assert clamped_swiglu(extremes, **how).tolist() == [[pytest.approx(56, abs=1e-3), 0, 0, 0]]


# -- rotary embedding ------------------------------------------------------------------------------
def rotated(x_HD, cos_D2, sin_D2, gain_D, eps, dtype):
    """Normalise and rotate heads in float64; only the norm is rounded on the way."""
    x = x_HD.double()
    if gain_D is not None:
        x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain_D.double()
        x = x.to(dtype).double()
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos_D2 - high * sin_D2, high * cos_D2 + low * sin_D2], -1)


@pytest.mark.parametrize(
    ("q_heads", "kv_heads", "dim", "past", "norms", "dtype"),
    [
        (4, 4, 16, 0, False, torch.float32),
        (6, 2, 10, 3, True, torch.float32),
        (1, 1, 2, 11, True, torch.float32),
        (5, 1, 80, 1, False, torch.bfloat16),
        (6, 3, 32, 2, True, torch.bfloat16),
        (6, 3, 32, 2, True, torch.float16),
    ],
)
def test_rotate_and_cache(q_heads, kv_heads, dim, past, norms, dtype):
    batch, tokens, capacity = 2, 4, 16
    qkv = random(batch * tokens, (q_heads + 2 * kv_heads) * dim).to(dtype)
    caches = [torch.full((batch, kv_heads, capacity, dim), 7.0, dtype=dtype) for _ in "kv"]
    angles = torch.arange(capacity)[:, None] * random(dim // 2, seed=1).abs()[None, :]
    cos, sin = angles.cos(), angles.sin()
    gains = [random(dim, seed=s).to(dtype) if norms else None for s in (2, 3)]
    q = rotate_and_cache(
        qkv, *caches, cos, sin, q_heads=q_heads, past=past, q_norm=gains[0], k_norm=gains[1],
        eps=1e-5,
    )  # fmt: skip
    heads = qkv.view(batch, tokens, q_heads + 2 * kv_heads, dim)
    places = slice(past, past + tokens)
    cos_T, sin_T = (t[places].double()[None, :, None, :] for t in (cos, sin))
    parts = heads.split([q_heads, kv_heads, kv_heads], 2)
    scale = heads.double().abs().amax() * 4 + 4
    relative = 2 * EPS[dtype] + 1e-6
    wanted_q = rotated(parts[0], cos_T, sin_T, gains[0], 1e-5, dtype)
    assert_near(q.view(wanted_q.shape), wanted_q, scale, relative)
    wanted_k = rotated(parts[1], cos_T, sin_T, gains[1], 1e-5, dtype).transpose(1, 2)
    assert_near(caches[0][:, :, places], wanted_k, scale, relative)
    assert torch.equal(caches[1][:, :, places], parts[2].transpose(1, 2))
    for cache in caches:  # nothing else is touched
        assert bool((cache[:, :, :past] == 7).all())
        assert bool((cache[:, :, past + tokens :] == 7).all())


# -- attention -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("batch", "tokens", "q_heads", "kv_heads", "dim", "past"),
    [
        (1, 1, 1, 1, 2, 0),
        (3, 1, 8, 2, 64, 130),  # decode
        (2, 70, 6, 2, 24, 0),  # prefill
        (1, 200, 2, 1, 80, 5),  # chunked prefill, more rows than a block
    ],
)
@pytest.mark.parametrize("window", [None, 17])
def test_attention(batch, tokens, q_heads, kv_heads, dim, past, window):
    capacity = past + tokens + 3
    q = random(batch * tokens, q_heads, dim, scale=2.0)
    k, v = (random(batch, kv_heads, capacity, dim, seed=s) for s in (1, 2))
    k[:, :, past + tokens :] = v[:, :, past + tokens :] = torch.nan  # not there yet
    got = attention(q, k, v, past=past, scale=dim**-0.5, window=window)
    expected = attention_reference(q, k, v, past=past, scale=dim**-0.5, window=window)
    assert got.shape == (batch * tokens, q_heads * dim)
    largest = v[:, :, : past + tokens].double().abs().amax()
    assert_near(got, expected, largest, 1e-5)


@pytest.mark.parametrize("window", [None, 9])
def test_sinks_take_their_share_of_the_softmax(window):
    q, k, v = random(2 * 33, 6, 16, scale=2.0), *(random(2, 2, 64, 16, seed=s) for s in (1, 2))
    sinks = random(6, seed=3, scale=3.0)
    sinks[0], sinks[1] = -torch.inf, 1e4
    how = {"past": 20, "scale": 0.25, "window": window}
    got = attention(q, k, v, sinks=sinks, **how)
    expected = attention_reference(q, k, v, sinks=sinks, **how)
    assert_near(got, expected, v.double().abs().amax(), 1e-5)
    without = attention(q, k, v, **how)
    assert torch.equal(got[:, :16], without[:, :16])
    assert not bool(got[:, 16:32].any())
    assert not torch.equal(got[:, 32:], without[:, 32:])
    with pytest.raises(ShapeError, match=r"sinks has shape \[5\]"):
        attention(q, k, v, sinks=sinks[:5], **how)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision(dtype):
    q = random(2 * 33, 4, 32).to(dtype)
    k, v = (random(2, 2, 64, 32, seed=s).to(dtype) for s in (1, 2))
    got = attention(q, k, v, past=20, scale=0.2)
    assert got.dtype == dtype
    expected = attention_reference(q, k, v, past=20, scale=0.2)
    assert_near(got, expected, v.double().abs().amax(), 2 * EPS[dtype])


def test_attention_of_one_key_is_its_value():
    q, v = random(1, 2, 8), random(1, 2, 4, 8, seed=2)
    got = attention(q, random(1, 2, 4, 8, seed=1), v, past=0, scale=1.0)
    assert torch.equal(got.view(2, 8), v[0, :, 0])


def test_attention_with_a_window_of_one_is_the_own_value():
    q, v = random(6, 2, 8), random(1, 2, 9, 8, seed=2)
    got = attention(q, random(1, 2, 9, 8, seed=1), v, past=3, scale=1.0, window=1)
    assert torch.equal(got.view(6, 2, 8), v[0, :, 3:].transpose(0, 1))


def test_attention_of_large_scores_does_not_overflow():
    q, k = torch.full((4, 1, 16), 1e4), torch.full((1, 1, 8, 16), 1e4)
    v = random(1, 1, 8, 16)
    got = attention(q, k, v, past=4, scale=1.0)
    assert_near(got, attention_reference(q, k, v, past=4, scale=1.0), v.double().abs().amax(), 1e-5)


def test_attention_of_nothing_is_nothing():
    k = torch.zeros(2, 1, 8, 16)
    assert attention(torch.zeros(0, 4, 16), k, k, past=0, scale=1.0).shape == (0, 64)

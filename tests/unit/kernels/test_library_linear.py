"""`linear` and `scaled_linear` against float64, over shapes, formats, scales and biases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asterope.errors import ShapeError
from asterope.formats import decode, unpack
from asterope.kernels import (
    ScaledOperand,
    linear,
    linear_reference,
    quantize_rows,
    scaled_linear,
)
from library_kernels import random

# Half the distance of neighbours, relative.
EPS = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SHAPES = [(1, 1, 1), (1, 100, 64), (50, 17, 129), (130, 260, 96)]


def assert_near(got, expected, scale, relative):
    error = (got.double() - expected).abs()
    tiny = 2**-25 if got.dtype == torch.float16 else 0.0
    limit = relative * scale + tiny + 1e-300
    assert bool((error <= limit).all()), f"worst {float((error / limit).max()):.3g} of the limit"


def check(x, w, got, **scales):
    expected = linear_reference(x, w, **scales)
    magnitude = {k: v.abs() for k, v in scales.items()}
    scale = linear_reference(x.double().abs(), w.double().abs(), **magnitude)
    assert_near(got, expected, scale, (x.shape[1] + 4) * 2**-24 + EPS.get(got.dtype, 0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", EPS)
def test_linear_is_the_product(shape, dtype):
    m, n, k = shape
    x, w = random(m, k).to(dtype), random(n, k, seed=1).to(dtype)
    got = linear(x, w)
    assert (got.shape, got.dtype) == ((m, n), dtype)
    check(x, w, got)


def test_linear_of_bias_and_scales():
    x, w = random(30, 90), random(40, 90, seed=1)
    extras = {
        "bias": random(40, seed=2),
        "addend": random(30, 40, seed=5),
        "x_scale": random(30, seed=3).abs(),
        "weight_scale": random(40, seed=4).abs(),
    }
    for names in ((), ("bias",), ("addend",), ("weight_scale", "bias"), tuple(extras)):
        chosen = {name: extras[name] for name in names}
        check(x, w, linear(x, w, **chosen), **chosen)


@pytest.mark.parametrize("weight", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, None])
def test_a_narrow_weight_is_widened(weight, dtype):
    x, w = random(19, 160), random(48, 160, seed=1).to(weight)
    x = x.to(dtype or torch.float8_e4m3fn)
    out = torch.float32 if dtype is None else dtype
    check(x, w, linear(x, w, out_dtype=out))


def test_linear_takes_rows_out_of_a_wider_matrix():
    x, w = random(20, 300)[:, 40:140], random(90, 250, seed=1)[10:70:2, 3:103]
    check(x, w, linear(x, w))


@pytest.mark.parametrize("shape", [(0, 5, 8), (5, 0, 8), (0, 0, 8)])
def test_linear_of_nothing_is_nothing(shape):
    m, n, k = shape
    assert linear(random(m, k), random(n, k)).shape == (m, n)


def test_linear_over_no_inputs_is_the_bias():
    bias = random(7)
    got = linear(torch.empty(3, 0), torch.empty(7, 0), bias=bias)
    assert torch.equal(got, bias.expand(3, 7))


def test_special_values_stay_in_their_row_and_column():
    x, w = random(40, 64), random(40, 64, seed=1)
    x[3, 5], w[7, 9] = torch.nan, torch.inf
    got = linear(x, w)
    expected = x @ w.T
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.isinf(), expected.isinf())


@pytest.mark.parametrize(
    ("x", "w", "says"),
    [
        ((4, 8), (5, 9), "x [4, 8] does not fit weight [5, 9] of 9 inputs"),
        ((4,), (5, 4), "x [4] does not fit"),
        ((4, 8), (8,), "does not fit weight [8]"),
        ((2, 4, 8), (5, 8), "x [2, 4, 8]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(x, w, says):
    with pytest.raises(ShapeError) as caught:
        linear(torch.zeros(x), torch.zeros(w))
    assert says in str(caught.value)
    assert caught.value.where == "linear"
    assert "[out, in]" in caught.value.hint


def test_rows_that_are_not_contiguous_are_refused():
    with pytest.raises(ShapeError, match="not contiguous") as caught:
        linear(torch.zeros(8, 4).T, torch.zeros(5, 8))
    assert "contiguous()" in caught.value.hint


@pytest.mark.parametrize("wrong", ["bias", "x_scale", "weight_scale"])
def test_a_bias_or_scale_of_another_length_is_refused(wrong):
    """Reading past its end would give whatever lies there."""
    with pytest.raises(ShapeError) as caught:
        linear(torch.zeros(4, 8), torch.zeros(5, 8), **{wrong: torch.zeros(3)})
    assert wrong.split("_")[0] in str(caught.value)


# -- block scales ----------------------------------------------------------------------------------
def values(operand):
    """Return in float64 what codes and scales stand for."""
    raw = operand.codes
    if operand.format in ("bf16", "fp16"):
        return raw.double()
    codes = raw.view(torch.uint8).numpy()
    if operand.format == "e2m1":
        codes = unpack(codes, "e2m1", operand.shape[1])
    made = torch.from_numpy(np.asarray(decode(codes, operand.format), np.float64))
    if operand.scales is not None:
        scales = operand.scales
        fmt = "e4m3" if scales.dtype == torch.float8_e4m3fn else "e8m0"
        decoded = np.asarray(decode(scales.view(torch.uint8).numpy(), fmt), np.float64)
        made *= torch.from_numpy(decoded).repeat_interleave(operand.group, 1)
    return made if operand.row_scale is None else made * operand.row_scale.double()[:, None]


PAIRS = [
    ("mxfp8", "mxfp8"), ("mxfp4", "mxfp4"), ("mxfp6", "mxfp6"), ("mxfp4_e1m2", "mxfp8"),
    ("nvfp4", "nvfp4"), ("mxfp8", "mxfp4"), ("mxfp4", "bf16"), ("nvfp4", "bf16"),
    ("mxfp4", "fp8"),
]  # fmt: skip


@pytest.mark.parametrize(("weights", "activations"), PAIRS)
def test_scaled_linear_is_the_product_of_what_codes_stand_for(weights, activations):
    m, n, k = 21, 70, 192
    x = random(m, k, dtype=torch.bfloat16)
    operand = ScaledOperand(codes=x, format="bf16")
    if activations != "bf16":
        operand = quantize_rows(x, activations)
    weight = quantize_rows(random(n, k, seed=1, dtype=torch.bfloat16), weights)
    got = scaled_linear(operand, weight, out_dtype=torch.float32)
    a, b = values(operand), values(weight)
    assert_near(got, a @ b.T, a.abs() @ b.abs().T, (k + 8) * 2**-24)


@pytest.mark.parametrize("shape", [(1, 1, 32), (1, 64, 1024), (70, 33, 160)])
def test_scaled_linear_over_odd_shapes(shape):
    m, n, k = shape
    x, weight = quantize_rows(random(m, k), "mxfp8"), quantize_rows(random(n, k, seed=1), "mxfp4")
    got = scaled_linear(x, weight, out_dtype=torch.float32)
    a, b = values(x), values(weight)
    assert_near(got, a @ b.T, a.abs() @ b.abs().T, (k + 8) * 2**-24)


def test_scaled_linear_adds_a_bias_and_rounds_once():
    x, weight = (
        quantize_rows(random(9, 64), "nvfp4"),
        quantize_rows(random(20, 64, seed=1), "nvfp4"),
    )
    bias = random(20, seed=2)
    expected = values(x) @ values(weight).T + bias.double()
    scale = values(x).abs() @ values(weight).abs().T + bias.double().abs()
    assert_near(scaled_linear(x, weight, bias=bias), expected, scale, 2**-8 + 2**-18)


def test_scaled_linear_refuses_what_does_not_fit():
    x = quantize_rows(random(4, 64), "mxfp4")
    for weight, says in [
        (quantize_rows(random(8, 96), "mxfp4"), "[4, 64] does not fit"),
        (quantize_rows(random(8, 64), "nvfp4"), "32 elements, the weight of 16"),
        (ScaledOperand(codes=torch.zeros(8, 64), format="bf16"), "does not fit"),
    ]:
        with pytest.raises(ShapeError) as caught:
            scaled_linear(x, weight)
        assert says in str(caught.value)
        assert caught.value.where == "linear"


def test_an_operand_knows_its_shape_and_group():
    for fmt, group in (("mxfp4", 32), ("mxfp8", 32), ("nvfp4", 16), ("fp8", 160)):
        operand = quantize_rows(random(3, 160), fmt)
        assert (operand.shape, operand.group) == ((3, 160), group)

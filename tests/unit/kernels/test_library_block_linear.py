"""`block_linear` against float64, over shapes, activations and biases."""

from __future__ import annotations

import pytest
import torch

from asterope.errors import ShapeError
from asterope.formats import quantize
from asterope.kernels import ScaledOperand, block_linear, block_linear_reference, quantize_groups
from library_kernels import random

SHAPES = [(1, 1, 128), (1, 200, 384), (50, 17, 200), (130, 260, 640)]


def weight_of(n, k):
    return quantize_groups(random(n, k, seed=1) * torch.logspace(-3, 3, n)[:, None])


def given(kind, m, k):
    x = random(m, k, dtype=torch.bfloat16)
    if kind == "bf16":
        return ScaledOperand(codes=x, format="bf16")
    made = quantize_groups(x)
    if kind == "groups":
        return made
    return ScaledOperand(codes=made.codes, format="e4m3", row_scale=random(m, seed=3).abs())


def check(x, weight, got, bias=None):
    expected = block_linear_reference(x, weight, bias=bias)
    magnitudes = [
        ScaledOperand(codes=o.codes.float().abs(), format="fp32", scales=o.scales,
                      row_scale=o.row_scale)
        for o in (x, weight)
    ]  # fmt: skip
    scale = block_linear_reference(*magnitudes, bias=None if bias is None else bias.abs())
    limit = (x.shape[1] + 8) * 2**-24 * scale + 1e-300
    assert bool(((got.double() - expected).abs() <= limit).all())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["groups", "bf16", pytest.param("rows", marks=pytest.mark.slow)])
def test_it_is_the_product_of_what_codes_stand_for(shape, kind):
    m, n, k = shape
    x, weight = given(kind, m, k), weight_of(n, k)
    bias = random(n, seed=5)
    got = block_linear(x, weight, bias=bias, out_dtype=torch.float32)
    check(x, weight, got, bias)


def test_groups_are_quantized_as_rows_of_their_own():
    x = random(7, 512, dtype=torch.bfloat16) * torch.logspace(-2, 2, 7)[:, None].bfloat16()
    found = quantize_groups(x)
    q = quantize(x.float().numpy().reshape(-1, 128), "fp8_row")
    assert found.codes.view(torch.uint8).numpy().tobytes() == q.codes.tobytes()
    assert found.scales.numpy().tobytes() == q.scales.tobytes()
    assert found.shape == (7, 512)


def test_operands_that_do_not_fit_are_refused():
    x, weight = given("groups", 4, 256), weight_of(5, 256)
    short = ScaledOperand(codes=weight.codes, format="e4m3", scales=weight.scales[:, :1])
    with pytest.raises(ShapeError, match="weight_scales are"):
        block_linear(x, short)
    with pytest.raises(ShapeError, match="does not fit"):
        block_linear(x, weight_of(5, 384))

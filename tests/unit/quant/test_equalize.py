"""Equalizing scales: exact, never worse on the sample, and found where one input is an outlier."""

from __future__ import annotations

import pytest
import torch

from asterope.quant import InputSums, equalizing_scale, quantize_weight, scheme

N, K = 96, 128


def made_by(plan):
    return lambda weight, _scale: quantize_weight(weight, scheme(plan), name="w").apply


def sums_of(x):
    found = InputSums(K, name="layer")
    found.add(x)
    return found


@pytest.fixture(scope="module")
def weight():
    return 0.05 * torch.randn(N, K, generator=torch.Generator().manual_seed(1))


def lost(plan, weight, x, scale):
    found = made_by(plan)(weight * scale, scale)(x / scale)
    return float((found - x @ weight.T).square().sum())


@pytest.mark.parametrize("plan", ["mxfp4", "mxfp4/same", "nvfp4/same", "fp8"])
def test_outliers_are_divided_by_powers_of_two_and_never_lose_more(plan, weight):
    x = torch.randn(300, K, generator=torch.Generator().manual_seed(2))
    x[:, 5::32] *= 30
    scale = equalizing_scale(weight, sums_of(x), made_by(plan))
    assert torch.equal(scale.log2(), scale.log2().round())
    nothing, found = lost(plan, weight, x, torch.ones(K)), lost(plan, weight, x, scale)
    assert found <= nothing
    if plan == "mxfp4/same":  # a block's scale is its outlier's: all others round to little
        assert found < 0.7 * nothing
        assert scale[5::32].min() > scale[:5].max()


def test_inputs_that_are_alike_stay_nearly_as_they_are(weight):
    x = torch.randn(300, K, generator=torch.Generator().manual_seed(3))
    scale = equalizing_scale(weight, sums_of(x), made_by("mxfp8/same"))
    assert scale.log2().abs().max() <= 1


def test_sums_of_divided_inputs_are_those_that_adding_them_gives():
    x = torch.randn(700, K, generator=torch.Generator().manual_seed(4))
    scale = torch.exp2(torch.arange(K) % 5 - 2.0)
    divided, expected = sums_of(x).divided(scale), sums_of(x / scale)
    torch.testing.assert_close(divided.products, expected.products)
    assert torch.equal(divided.sample, expected.sample)
    assert divided.num_tokens == expected.num_tokens == 700


def test_inputs_that_are_zero_are_left_alone(weight):
    x = torch.randn(100, K, generator=torch.Generator().manual_seed(5))
    x[:, 40:50] = 0
    scale = equalizing_scale(weight, sums_of(x), made_by("nvfp4/same"))
    assert torch.isfinite(scale).all()

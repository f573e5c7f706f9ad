"""Biases that make up for the mean error of a weight."""

from __future__ import annotations

import pytest
import torch

from asterope.quant import (
    InputSums,
    quantize_weight,
    scheme,
    with_corrected_bias,
)

N, K = 48, 96


@pytest.fixture
def inputs():
    sums = InputSums(K, name="x")
    sums.add(1 + torch.randn(256, K, generator=torch.Generator().manual_seed(0)))
    return sums


def made(fmt, bias=None):
    weight = torch.randn(N, K, generator=torch.Generator().manual_seed(1))
    return weight, quantize_weight(weight, scheme(fmt), name="w", bias=bias)


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4+h16"])
def test_outputs_have_the_mean_that_they_had(fmt, inputs):
    weight, layer = made(fmt, torch.linspace(-1, 1, N))
    expected = inputs.sample @ weight.T + layer.bias
    means = [
        (each.apply(inputs.sample) - expected).mean(0).abs().max()
        for each in (layer, with_corrected_bias(layer, weight, inputs))
    ]
    assert means[1] < 0.05 * means[0]


def test_a_layer_without_a_bias_or_with_rounded_inputs_stays_as_it_is(inputs):
    for fmt, bias in (("mxfp4", None), ("mxfp4/fp8", torch.zeros(N))):
        weight, layer = made(fmt, bias)
        assert with_corrected_bias(layer, weight, inputs) is layer
    weight, layer = made("mxfp4", torch.zeros(N))
    assert with_corrected_bias(layer, weight, InputSums(K, name="none")) is layer

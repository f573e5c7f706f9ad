"""GPTQ and scale search against plain NumPy and PyTorch, on inputs whose columns depend."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asterope.errors import CheckpointError, ConfigError, ShapeError
from asterope.formats import decode, encode
from asterope.quant import (
    WEIGHT_FORMATS,
    Calibrated,
    InputSums,
    algorithm,
    quantize_calibrated,
    quantize_weight,
    scheme,
)
from asterope.quant.gptq import DAMPING, Feedback, gptq_codes
from asterope.quant.scales import least_error_scales, rule_scales

N, K, TOKENS = 96, 192, 512


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(TOKENS, K, generator=generator) @ torch.randn(K, K, generator=generator)
    x = mixed / K**0.5 + 0.1 * torch.randn(TOKENS, K, generator=generator)
    x[:, 7] *= 20
    return x


@pytest.fixture(scope="module")
def weight():
    generator = torch.Generator().manual_seed(1)
    return 0.05 * torch.randn(N, K, generator=generator)


@pytest.fixture(scope="module")
def sums(inputs):
    found = InputSums(K, name="layer")
    for part in inputs.split(100):
        found.add(part)
    return found


def output_error(layer, weight, x):
    return float((x @ (layer.dequantize() - weight).T).norm() / (x @ weight.T).norm())


def test_sums_are_those_of_all_inputs(inputs, sums):
    x = inputs.double()
    torch.testing.assert_close(sums.products, x.T @ x, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(sums.importance, (x * x).mean(0).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fmt", WEIGHT_FORMATS)
def test_each_algorithm_loses_less_of_the_output_than_the_one_before(fmt, inputs, weight, sums):
    plan = scheme(fmt)
    errors = {
        name: output_error(
            quantize_calibrated(weight, plan, Calibrated(algorithm(name), sums, plan), name="w"),
            weight, inputs,
        )
        for name in ("rtn", "mse", "gptq")
    }  # fmt: skip
    assert errors["mse"] <= 1.001 * errors["rtn"]
    assert errors["gptq"] < 0.8 * errors["rtn"]
    assert errors["gptq"] < errors["mse"]


@pytest.mark.parametrize("fmt", WEIGHT_FORMATS)
def test_round_to_nearest_is_what_it_is_without_calibration(fmt, weight, sums):
    plan = scheme(fmt)
    known = quantize_calibrated(weight, plan, Calibrated(algorithm("rtn"), sums, plan), name="w")
    plain = quantize_weight(weight, plan, name="w")
    for name, tensor in plain.tensors.items():
        assert torch.equal(known.tensors[name].view(torch.uint8), tensor.view(torch.uint8))


def reference_gptq(weight, scales, products, damping):
    """GPTQ as its paper has it, column by column on the inverse itself, in float64."""
    curvature = products.clone()
    curvature.diagonal().add_(damping * float(curvature.diagonal().mean()))
    left, element = weight.double().clone(), scales.format.element
    per_column = torch.from_numpy(scales.per_column(weight.shape[1])).double().expand_as(weight)
    codes = np.zeros(tuple(weight.shape), np.uint8)
    remaining = torch.argsort(products.diagonal(), descending=True, stable=True).tolist()
    while remaining:
        inverse = torch.linalg.inv(curvature[remaining][:, remaining])
        k = remaining[0]
        wanted = (left[:, k] / per_column[:, k]).float().numpy()
        codes[:, k] = encode(wanted, element)
        rounded = torch.from_numpy(decode(codes[:, k], element)).double() * per_column[:, k]
        error = (left[:, k] - rounded) / inverse[0, 0]
        left[:, remaining] -= torch.outer(error, inverse[0])
        remaining.pop(0)
    return codes


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "fp8_row"])
def test_codes_are_those_of_the_paper(fmt, inputs):
    x = inputs[:, :32].contiguous()
    sums = InputSums(32, name="layer")
    sums.add(x)
    weight = 0.05 * torch.randn(64, 32, generator=torch.Generator().manual_seed(2))
    scales = rule_scales(weight.numpy(), scheme(fmt), amax=float(weight.abs().max()))
    found = gptq_codes(weight, scales, Feedback(sums))
    expected = reference_gptq(weight, scales, sums.products, DAMPING)
    # A sum of float32 may fall on the other side of a tie.
    assert np.mean(found != expected) < 0.01


@pytest.mark.parametrize("fmt", WEIGHT_FORMATS)
def test_searched_scales_never_lose_more_in_any_block(fmt, weight):
    values, plan = weight.numpy(), scheme(fmt)
    importance = np.linspace(0.1, 3, K, dtype=np.float32)
    amax = float(weight.abs().max())

    def loss(scales):
        wide = scales.per_column(K)
        found = decode(encode(values / wide, scales.format.element), scales.format.element) * wide
        error = importance * (found - values) ** 2
        return error.reshape(*scales.stored.shape, -1).sum(-1)

    rule, best = (
        rule_scales(values, plan, amax=amax),
        least_error_scales(values, plan, amax=amax, importance=importance),
    )
    assert np.all(loss(best) <= loss(rule) * (1 + 1e-6))
    if fmt not in ("fp8_tensor", "fp8_block128", "mxfp8", "mxfp6"):
        assert loss(best).sum() < 0.99 * loss(rule).sum()


def test_inputs_that_are_always_zero_are_rounded_to_nearest(weight, inputs):
    x = inputs.clone()
    x[:, 32:64] = 0
    sums = InputSums(K, name="layer")
    sums.add(x)
    plan = scheme("mxfp4")
    scales = rule_scales(weight.numpy(), plan, amax=float(weight.abs().max()))
    codes = gptq_codes(weight, scales, Feedback(sums))
    nearest = encode(weight.numpy() / scales.per_column(K), plan.format.element)
    assert np.array_equal(codes[:, 32:64], nearest[:, 32:64])


def test_what_cannot_be_calibrated_names_the_layer(weight):
    nothing = InputSums(K, name="model.layers.3.mlp.down_proj")
    with pytest.raises(CheckpointError, match="down_proj"):
        nothing.add(torch.full((2, K), torch.nan))
    with pytest.raises(CheckpointError, match="all its inputs are zero"):
        Calibrated(algorithm("gptq"), nothing, scheme("mxfp4"))
    with pytest.raises(ConfigError, match="did you mean gptq"):
        algorithm("gtpq")


def test_weights_that_cannot_be_quantized_are_named(sums):
    known = Calibrated(algorithm("gptq"), sums, scheme("mxfp4"))
    broken = torch.zeros(4, K)
    broken[1, 2] = torch.inf
    with pytest.raises(CheckpointError, match=r"\[1, 2\] is inf"):
        quantize_calibrated(broken, scheme("mxfp4"), known, name="w")
    with pytest.raises(ShapeError, match="do not divide"):
        quantize_calibrated(torch.zeros(4, 33), scheme("mxfp4"), known, name="w")

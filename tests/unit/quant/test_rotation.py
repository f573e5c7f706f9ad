"""Rotations: exact but for rounding; in layers, sums and checkpoints as compressed-tensors does."""

from __future__ import annotations

import dataclasses

import pytest
import scipy.linalg
import torch

from asterope import chips
from asterope.errors import CheckpointError, FormatError, ShapeError, UnsupportedError
from asterope.quant import (
    Calibrated,
    InputSums,
    QuantizedLinear,
    algorithm,
    common_amax,
    parse_quantization_config,
    quantization_config,
    quantize_calibrated,
    quantize_weight,
    scheme,
)
from asterope.quant.rotation import rotate_inputs, rotate_products, rotate_rows
from asterope.runtime import simulate

N, K, TOKENS = 48, 128, 200


def matrix(size):
    return torch.from_numpy(scipy.linalg.hadamard(size)).double() / size**0.5


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [2, 16, 32, 128])
def test_blocks_are_multiplied_by_a_hadamard_matrix(size):
    x, expected = random(5, K).bfloat16(), torch.block_diag(*[matrix(size)] * (K // size))
    turned = x.double() @ expected
    torch.testing.assert_close(rotate_inputs(x, size).double(), turned, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotate_rows(x, size).double(), turned, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rotate_rows(rotate_rows(x, size), size), x.float())
    products = x.double().T @ x.double()
    torch.testing.assert_close(rotate_products(products, size), expected.T @ products @ expected)


@pytest.mark.parametrize(
    "plan", ["mxfp4+h", "mxfp4/same+h", "nvfp4/fp8+h", "fp8+h64", "mxfp6/same+h16"]
)
def test_a_layer_is_that_of_the_rotated_weight_on_rotated_inputs(plan):
    found = scheme(plan)
    weight, x = random(N, K), random(TOKENS, K, seed=1).bfloat16()
    layer = quantize_weight(weight, found, name="w")
    plain = dataclasses.replace(found, rotation=None)
    inside = quantize_weight(rotate_rows(weight, found.rotation), plain, name="w")
    assert torch.equal(layer.codes.view(torch.uint8), inside.codes.view(torch.uint8))
    turned = rotate_inputs(x, found.rotation)
    assert torch.equal(layer.apply(x), inside.apply(turned, out_dtype=torch.bfloat16))
    torch.testing.assert_close(layer.dequantize(), rotate_rows(inside.dequantize(), found.rotation))


def test_outliers_lose_less_once_they_are_spread():
    weight, x = random(N, K), random(TOKENS, K, seed=1)
    x[:, 3::32] *= 20
    expected = x @ weight.T

    def lost(plan):
        return float((quantize_weight(weight, scheme(plan), name="w").apply(x) - expected).norm())

    assert lost("mxfp4/same+h") < 0.8 * lost("mxfp4/same")


@pytest.mark.parametrize("plan", ["mxfp4+h", "nvfp4+h", "fp8+h64"])
def test_gptq_sees_rotated_inputs(plan):
    found = scheme(plan)
    weight, x = random(N, K), random(TOKENS, K, seed=1) @ random(K, K, seed=2)
    sums = InputSums(K, name="layer")
    sums.add(x)

    def lost(name):
        made = quantize_calibrated(
            weight, found, Calibrated(algorithm(name), sums, found), name="w"
        )
        return float((x @ (made.dequantize() - weight).T).norm())

    assert lost("gptq") < 0.8 * lost("rtn")


def test_fused_projections_share_the_scale_of_what_is_stored():
    parts = [random(N, K, seed=seed) * seed for seed in (1, 2)]
    turned = max(float(rotate_rows(part, 16).abs().max()) for part in parts)
    assert common_amax(parts, scheme("nvfp4+h")) == turned
    assert common_amax(parts, scheme("nvfp4")) == max(float(part.abs().max()) for part in parts)
    assert common_amax(parts, scheme("mxfp4+h")) is None


def test_names_say_how_blocks_are_rotated():
    assert scheme("mxfp4/same+h").rotation == 32
    assert scheme("NVFP4+H").rotation == 16
    assert scheme("fp8+h").rotation == 32
    assert scheme("fp8+h").name == "fp8_row+h32"
    assert scheme("mxfp4/fp8+h128").name == "mxfp4/fp8+h128"
    assert "rotated in blocks of 128" in scheme("mxfp4/fp8+h128").describe()
    for wrong in ("mxfp4+", "mxfp4+x", "mxfp4+h24", "mxfp4+h1", "mxfp4+h1024", "bf16+h"):
        with pytest.raises(FormatError):
            scheme(wrong)
    with pytest.raises(ShapeError, match="rotated blocks of 64 do not divide K = 96"):
        quantize_weight(random(4, 96), scheme("mxfp4+h64"), name="w")


def test_compressed_tensors_reads_the_rotation_and_rotates_alike():
    transform = pytest.importorskip("compressed_tensors.transform")
    plan = scheme("mxfp4/same+h")
    stored = quantization_config(plan, ["lm_head"])
    assert parse_quantization_config(stored) == (plan, ("lm_head",))
    config = transform.TransformConfig(**stored["transform_config"])
    weight, x = random(N, K), random(TOKENS, K, seed=1)
    linear = torch.nn.Linear(K, N, bias=False)
    linear.weight.data.copy_(weight)
    model = torch.nn.ModuleDict({"layer": linear, "lm_head": torch.nn.Linear(K, 4, bias=False)})
    transform.apply_transform_config(model, config)
    assert torch.equal(model["lm_head"](x), x @ model["lm_head"].weight.T)
    torch.testing.assert_close(model["layer"].weight.data, rotate_rows(weight, 32))
    torch.testing.assert_close(model["layer"](x), x @ weight.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda group: group.update(type="random-hadamard"), UnsupportedError, "type"),
        (lambda group: group.update(randomize=True), UnsupportedError, "randomize"),
        (lambda group: group.update(head_dim=None), UnsupportedError, "head_dim"),
        (lambda group: group.update(head_dim=24), CheckpointError, "transform_config"),
        (lambda group: group["apply"].pop(), UnsupportedError, "apply"),
        (lambda group: group["apply"][0].update(ignore=[]), UnsupportedError, "apply"),
    ],
)
def test_other_transforms_are_refused_by_field(change, error, words):
    stored = quantization_config(scheme("mxfp4+h"), ["lm_head"])
    change(stored["transform_config"]["config_groups"]["rotation"])
    with pytest.raises(error, match=words):
        parse_quantization_config(stored)


def test_a_rotation_costs_time_on_the_chip():
    x = torch.empty(64, 4096, dtype=torch.bfloat16, device="meta")
    times = []
    for plan in ("mxfp4/same", "mxfp4/same+h"):
        layer = QuantizedLinear.empty(4096, 4096, scheme(plan))
        with simulate(chips.get("maia200"), values=False, fidelity="roofline") as timeline:
            layer.apply(x)
        times.append((timeline.time_s, len(timeline.launches)))
    assert times[1][0] > times[0][0]
    assert times[1][1] == times[0][1] + 1

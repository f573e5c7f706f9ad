"""Layers on the kernels against float64 products of the dequantized operands."""

import numpy as np
import pytest
import torch

from asterope.chips import maia200
from asterope.errors import ShapeError
from asterope.formats import dequantize, reference_quantize
from asterope.quant import (
    ACTIVATIONS,
    WEIGHT_FORMATS,
    QuantizedLinear,
    Scheme,
    concatenate,
    quantize_weight,
    scheme,
    split,
)
from asterope.runtime import simulate

N, K, TOKENS = 40, 96, 5
SCHEMES = list(
    dict.fromkeys(
        Scheme(weights=weights, activations=activations)
        for weights in WEIGHT_FORMATS
        for activations in ACTIVATIONS
    )
)
ALL = pytest.mark.parametrize("plan", SCHEMES, ids=lambda plan: plan.name)
WEIGHTS = pytest.mark.parametrize("weights", ["none", *WEIGHT_FORMATS])


def operands(seed=0, n=N):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, K, generator=generator) * (1 + seed)
    x = torch.randn(TOKENS, K, generator=generator)
    return weight, x, torch.randn(n, generator=generator)


def layer_of(plan, seed=0, *, n=N, bias=True):
    weight, _, b = operands(seed, n)
    return quantize_weight(weight, plan, name="w", bias=b if bias else None)


def rounded(x, plan) -> torch.Tensor:
    """The activations as the scheme defines them, by the definition of the formats."""
    fmt = plan.activation_format
    if fmt is None:
        return x.bfloat16().double()
    fmt, rule = ("fp8_row", None) if fmt == "fp8" else (fmt, plan.rule)
    values = [dequantize(reference_quantize(row[None], fmt, rule=rule)) for row in x.numpy()]
    return torch.from_numpy(np.concatenate(values)).double()


def check_product(y, x, weight, bias):
    """Compare with x W^T + bias, to the error that K float32 additions can make."""
    expected = x @ weight.T + bias.double()
    bound = (x.abs() @ weight.abs().T + bias.abs().double()) * (K + 4) * 2.0**-23
    assert ((y.double() - expected).abs() <= bound).all()


@ALL
def test_product_is_that_of_the_dequantized_operands(plan):
    _, x, bias = operands()
    layer = layer_of(plan)
    check_product(layer.apply(x), rounded(x, plan), layer.dequantize().double(), bias)


@pytest.mark.parametrize("rule", ["amax", "two_level"])
def test_rule_of_the_scheme_is_that_of_activations_in_the_same_format(rule):
    plan = Scheme(weights="nvfp4", activations="same", rule=rule)
    _, x, bias = operands()
    layer = layer_of(plan)
    check_product(layer.apply(x), rounded(x, plan), layer.dequantize().double(), bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_result_has_the_type_of_the_input_unless_told(dtype):
    _, x, _ = operands()
    for plan in (Scheme(weights="none"), Scheme(weights="fp8_row"), Scheme(weights="mxfp4")):
        layer = layer_of(plan)
        assert layer.apply(x.to(dtype)).dtype == dtype
        assert layer.apply(x.to(dtype), out_dtype=torch.float32).dtype == torch.float32


def test_unquantized_layer_keeps_the_wider_of_two_types():
    weight, x, bias = operands()
    narrow = quantize_weight(weight.bfloat16(), Scheme(weights="none"), name="w", bias=bias)
    check_product(narrow.apply(x), x.double(), weight.bfloat16().double(), bias)
    wide = quantize_weight(weight, Scheme(weights="none"), name="w", bias=bias)
    y = wide.apply(x.bfloat16(), out_dtype=torch.float32)
    check_product(y, x.bfloat16().double(), weight.double(), bias)


@pytest.mark.parametrize("weights", ["none", "fp8_tensor", "fp8_row", "mxfp6", "nvfp4"])
def test_concatenated_layers_give_the_outputs_of_each(weights):
    plan = Scheme(weights=weights)
    _, x, _ = operands()
    parts = [layer_of(plan, seed, n=n) for seed, n in enumerate((16, 8, 8))]
    whole = concatenate(parts)
    assert (whole.out_features, whole.in_features) == (32, K)
    assert whole.num_bytes == sum(part.num_bytes for part in parts)
    apart = torch.cat([part.apply(x) for part in parts], dim=1)
    torch.testing.assert_close(whole.apply(x), apart, rtol=0, atol=1e-4)
    assert torch.equal(whole.dequantize(), torch.cat([part.dequantize() for part in parts]))


@WEIGHTS
def test_split_undoes_concatenation_without_a_copy(weights):
    parts = [layer_of(Scheme(weights=weights), seed, n=n) for seed, n in enumerate((16, 8))]
    whole = concatenate(parts)
    for again, part in zip(split(whole, (16, 8)), parts, strict=True):
        assert again.tensors.keys() == part.tensors.keys()
        for name, tensor in part.tensors.items():
            assert torch.equal(again.tensors[name].view(torch.uint8), tensor.view(torch.uint8))
            assert again.tensors[name].untyped_storage().data_ptr() == (
                whole.tensors[name].untyped_storage().data_ptr()
            )


@WEIGHTS
@pytest.mark.parametrize("bias", [True, False])
def test_empty_layer_has_the_shapes_and_types_of_a_real_one(weights, bias):
    plan = Scheme(weights=weights)
    real = layer_of(plan, bias=bias)
    meta = QuantizedLinear.empty(N, K, plan, bias=bias, dtype=torch.float32)
    assert (meta.out_features, meta.in_features, meta.num_bytes) == (N, K, real.num_bytes)
    assert meta.tensors.keys() == real.tensors.keys()
    for name, tensor in real.tensors.items():
        empty = meta.tensors[name]
        assert empty.device.type == "meta"
        assert (empty.shape, empty.dtype) == (tensor.shape, tensor.dtype)


@pytest.mark.parametrize(
    ("weights", "num_bytes"),
    [
        ("none", 64 * 64 * 2),
        ("fp8_tensor", 64 * 64 + 64 * 4),
        ("mxfp8", 64 * (64 + 2)),
        ("mxfp6", 64 * (64 + 2)),
        ("mxfp4", 64 * (32 + 2)),
        ("nvfp4", 64 * (32 + 4) + 64 * 4),
    ],
)
def test_num_bytes_counts_codes_as_they_are_held_and_scales(weights, num_bytes):
    assert QuantizedLinear.empty(64, 64, Scheme(weights=weights)).num_bytes == num_bytes


@pytest.mark.parametrize("text", ["none", "fp8/fp8", "mxfp4/same", "nvfp4/fp8"])
def test_layer_without_memory_is_timed(text):
    layer = QuantizedLinear.empty(128, 128, scheme(text))
    x = torch.empty(4, 128, dtype=torch.bfloat16, device="meta")
    with simulate(maia200("bench"), values=False) as timeline:
        y = layer.apply(x)
    assert (y.shape, y.device.type) == ((4, 128), "meta")
    assert timeline.time_s > 0


def test_input_of_another_width_is_refused():
    for plan in (Scheme(weights="mxfp4"), Scheme(weights="fp8_row"), scheme("mxfp4/same")):
        with pytest.raises(ShapeError, match="does not fit") as caught:
            layer_of(plan).apply(torch.ones(2, 2 * K))
        assert caught.value.where == "linear"


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (QuantizedLinear.empty(8, 64, Scheme(weights="mxfp4")), "in_features is 64"),
        (QuantizedLinear.empty(8, K, Scheme(weights="mxfp8")), "scheme is Scheme"),
        (QuantizedLinear.empty(8, K, Scheme(weights="mxfp4"), bias=True), "bias is True"),
    ],
)
def test_layers_that_differ_are_not_concatenated(other, what):
    first = QuantizedLinear.empty(8, K, Scheme(weights="mxfp4"))
    with pytest.raises(ShapeError, match=what) as caught:
        concatenate([first, other])
    assert caught.value.where == "parts[1]"


def test_nothing_is_not_concatenated():
    with pytest.raises(ShapeError, match="no layer"):
        concatenate([])


@pytest.mark.parametrize("sizes", [(N - 1,), (N, 1), (N, 0), ()])
def test_sizes_that_do_not_add_up_are_refused(sizes):
    with pytest.raises(ShapeError, match=f"do not add up to {N} outputs") as caught:
        split(QuantizedLinear.empty(N, K, Scheme(weights="mxfp4")), sizes)
    assert caught.value.where == "sizes"


def test_empty_layer_whose_blocks_do_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"blocks of 32 \(mxfp4\) do not divide K = 40"):
        QuantizedLinear.empty(8, 40, Scheme(weights="mxfp4"))

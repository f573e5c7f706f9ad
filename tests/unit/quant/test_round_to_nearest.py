"""Round to nearest against the definition of the formats; what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asterope.errors import CheckpointError, FormatError, ShapeError
from asterope.formats import BLOCKS, MIN_GLOBAL_SCALE, dequantize, reference_quantize
from asterope.quant import WEIGHT_FORMATS, Scheme, from_quantized, quantize_weight
from asterope.quant.linear import reciprocal, storable

NAME = "model.layers.7.self_attn.q_proj.weight"
CASES = [(weights, rule) for weights in WEIGHT_FORMATS for rule in BLOCKS[weights].rules]


def weight(n=24, k=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=generator) * torch.logspace(-3, 3, n)[:, None]


@pytest.mark.parametrize(("weights", "rule"), CASES)
def test_values_are_those_of_the_definition(weights, rule):
    w = weight()
    layer = quantize_weight(w, Scheme(weights=weights, rule=rule), name=NAME)
    expected = dequantize(reference_quantize(w.numpy(), weights, rule=rule))
    if rule == "two_level":  # the global scale survives two reciprocals, one place off
        np.testing.assert_allclose(layer.dequantize().numpy(), expected, rtol=2**-22)
    else:
        assert np.array_equal(layer.dequantize().numpy(), expected)


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_read_exactly(weights, dtype):
    w = weight().to(dtype)
    plan = Scheme(weights=weights)
    narrow = quantize_weight(w, plan, name=NAME)
    wide = quantize_weight(w.float(), plan, name=NAME)
    assert torch.equal(narrow.dequantize(), wide.dequantize())


def test_unquantized_weight_is_kept():
    w, bias = weight().bfloat16(), torch.ones(24)
    layer = quantize_weight(w, Scheme(weights="none"), name=NAME, bias=bias)
    assert layer.codes.data_ptr() == w.data_ptr()
    assert layer.bias is bias
    assert torch.equal(layer.dequantize(), w.float())


def test_weight_with_a_gradient_or_transposed_is_taken():
    plan = Scheme(weights="mxfp4")
    plain = quantize_weight(weight(), plan, name=NAME).dequantize()
    turned = torch.nn.Parameter(weight().T.contiguous()).T
    assert torch.equal(quantize_weight(turned, plan, name=NAME).dequantize(), plain)


@pytest.mark.parametrize("weights", ["mxfp6", "mxfp4", "mxfp4_e1m2"])
def test_packed_and_plain_codes_make_the_same_layer(weights):
    plan = Scheme(weights=weights)
    layers = [
        from_quantized(reference_quantize(weight().numpy(), weights, packed=packed), plan)
        for packed in (False, True)
    ]
    assert torch.equal(layers[0].codes.view(torch.uint8), layers[1].codes.view(torch.uint8))


def test_layers_given_one_amax_share_their_global_scale():
    parts = [torch.sin(torch.arange(24.0 * 64).reshape(24, 64) + i) * 2**i for i in range(3)]
    amax = max(float(part.abs().max()) for part in parts)
    plan = Scheme(weights="nvfp4")
    layers = [quantize_weight(part, plan, name=NAME, amax=amax) for part in parts]
    assert len({float(layer.row_scale[0]) for layer in layers}) == 1
    for part, layer in zip(parts, layers, strict=True):
        error = (layer.dequantize() - part).abs().amax(dim=1)
        assert (error <= part.abs().amax(dim=1) / 4).all()


@given(st.floats(MIN_GLOBAL_SCALE, 2.0**116, width=32))
def test_storable_scale_survives_any_number_of_reciprocals(global_scale):
    kept = storable(global_scale)
    assert abs(float(kept) / global_scale - 1) <= 2**-22
    assert storable(kept) == kept
    assert reciprocal(reciprocal(reciprocal(kept))) == reciprocal(kept)


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize("weights", ["none", *WEIGHT_FORMATS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_that_is_not_finite_is_refused_with_its_place(weights, bad, word, dtype):
    w = weight().to(dtype)
    w[5, 17], w[9, 2] = bad, bad
    with pytest.raises(CheckpointError) as caught:
        quantize_weight(w, Scheme(weights=weights), name=NAME)
    assert caught.value.where == NAME
    assert caught.value.what == f"element [5, 17] is {word}, the first of 2"


def test_block_that_does_not_divide_names_the_tensor():
    with pytest.raises(ShapeError, match="do not divide K = 100") as caught:
        quantize_weight(weight(k=100), Scheme(weights="mxfp4"), name=NAME)
    assert caught.value.where == NAME


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn, torch.int8])
def test_weight_of_another_type_names_the_tensor(dtype):
    with pytest.raises(FormatError, match=f"weights are {dtype}") as caught:
        quantize_weight(weight().clamp(-9, 9).to(dtype), Scheme(weights="mxfp4"), name=NAME)
    assert caught.value.where == NAME

"""Checkpoints of torchao, as torchao itself writes them."""

import copy
import json

import numpy as np
import pytest
import torch

from asterope.errors import CheckpointError, UnsupportedError
from asterope.quant import Scheme, read_layout
from foreign_checkpoints import TORCHAO
from foreign_weights import mx, nvfp4, swizzled

NAME = "model.layers.0.mlp.up_proj"
N, K = 160, 320
"""Neither a multiple of 128 rows nor of 4 scales."""


@pytest.fixture(scope="module")
def torchao():
    """The modules used; importing them takes seconds."""
    import torchao.prototype.safetensors.safetensors_support as support
    from torchao import quantization
    from torchao.core.config import config_to_dict
    from torchao.prototype import mx_formats

    return quantization, mx_formats, support.flatten_tensor_state_dict, config_to_dict


def config_of(torchao, made):
    quant_type = {"default": torchao[3](made)}
    config = {"quant_method": "torchao", "quant_type": quant_type, "modules_to_not_convert": None}
    return json.loads(json.dumps(config))


def weight():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(N, K, generator=generator) * torch.logspace(-2, 1, N)[:, None]
    return values.bfloat16()


def written(torchao, tensor):
    """The tensors and metadata of a checkpoint with one weight."""
    tensors, metadata = torchao[2]({f"{NAME}.weight": tensor})
    return tensors, metadata


def quantized(torchao, config):
    layer = torch.nn.Linear(K, N, bias=False, dtype=torch.bfloat16)
    layer.weight.data = weight()
    torchao[0].quantize_(layer, config)
    return layer.weight


def mx_config(torchao, dtype=torch.float8_e4m3fn, mode="RCEIL"):
    from torchao.prototype.mx_formats.config import ScaleCalculationMode

    return torchao[1].MXDynamicActivationMXWeightConfig(
        activation_dtype=dtype, weight_dtype=dtype, scaling_mode=ScaleCalculationMode[mode]
    )


@pytest.mark.parametrize("mode", ["RCEIL", "FLOOR", "EVEN"])
@pytest.mark.parametrize(
    ("dtype", "weights"), [("float8_e4m3fn", "mxfp8"), ("float4_e2m1fn_x2", "mxfp4")]
)
def test_mx_is_read_out_of_swizzled_scales(dtype, weights, mode, torchao):
    config = mx_config(torchao, getattr(torch, dtype), mode)
    theirs = quantized(torchao, config)
    layout = read_layout(config_of(torchao, config))
    assert layout.plan(1) == Scheme(weights=weights, activations="same", rule=mode.lower())
    layer = layout.layer(NAME, *written(torchao, theirs))
    assert torch.equal(layer.dequantize(), theirs.dequantize(torch.float32))


@pytest.mark.parametrize("per_tensor", [True, False])
def test_nvfp4_is_read_with_and_without_a_scale_of_the_tensor(per_tensor, torchao):
    config = torchao[1].NVFP4WeightOnlyConfig(use_dynamic_per_tensor_scale=per_tensor)
    theirs = quantized(torchao, config)
    layout = read_layout(config_of(torchao, config))
    assert layout.plan(1) == Scheme(weights="nvfp4")
    layer = layout.layer(NAME, *written(torchao, theirs))
    wanted = theirs.dequantize(torch.float32)  # which multiplies the two scales first
    torch.testing.assert_close(layer.dequantize(), wanted, rtol=2**-22, atol=0)
    if per_tensor:
        assert torch.equal(layer.row_scale, theirs.per_tensor_scale.expand(N))


@pytest.mark.parametrize("kind", ["PerRow", "PerTensor"])
@pytest.mark.parametrize("dynamic", [True, False])
def test_float8_is_read(kind, dynamic, torchao):
    quantization = torchao[0]
    granularity = getattr(quantization, kind)()
    if dynamic:
        config = quantization.Float8DynamicActivationFloat8WeightConfig(granularity=granularity)
    else:
        config = quantization.Float8WeightOnlyConfig(granularity=granularity)
    theirs = quantization.Float8Tensor.from_hp(weight(), granularity=granularity)
    layout = read_layout(config_of(torchao, config))
    weights = {"PerRow": "fp8_row", "PerTensor": "fp8_tensor"}[kind]
    assert layout.plan(1) == Scheme(weights=weights, activations="fp8" if dynamic else "bf16")
    layer = layout.layer(NAME, *written(torchao, theirs))
    assert torch.equal(layer.dequantize(), theirs.dequantize(torch.float32))


def test_nvfp4_with_static_inputs_has_a_scale_of_them(torchao):
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

    config = torchao[1].NVFP4DynamicActivationNVFP4WeightConfig(step="convert")
    layout = read_layout(config_of(torchao, config))
    assert layout.plan(1) == Scheme(weights="nvfp4", activations="same")
    theirs = NVFP4Tensor.to_nvfp4(weight(), act_per_tensor_scale=torch.tensor(0.003))
    layer = layout.layer(NAME, *written(torchao, theirs))
    assert layer.input_scale == float(torch.tensor(0.003))


def test_a_layer_is_left_out_where_its_weight_is_stored_whole(torchao):
    layout = read_layout(config_of(torchao, mx_config(torchao)))
    assert layout.is_kept(NAME, (f"{NAME}.weight",))
    assert not layout.is_kept(NAME, (f"{NAME}._weight_qdata", f"{NAME}._weight_scale"))


def test_transformers_saves_what_is_loaded(torchao, tmp_path):
    """A whole model: from transformers' own files to the same weights."""
    transformers = pytest.importorskip("transformers")
    from asterope.llm import load_model
    from llm_checkpoints import write_checkpoint
    from tokenized_checkpoint import SMALL

    plain = write_checkpoint(tmp_path / "plain", SMALL)
    asked = transformers.TorchAoConfig(mx_config(torchao, torch.float4_e2m1fn_x2))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=asked, dtype=torch.bfloat16
    )
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs").layers[0]
    layer = theirs.model.layers[0]
    wanted = [getattr(layer.self_attn, f"{p}_proj").weight.dequantize() for p in "qkv"]
    assert torch.equal(ours.qkv.dequantize(), torch.cat(wanted).float())
    assert torch.equal(ours.down.dequantize(), layer.mlp.down_proj.weight.dequantize().float())


# -- by the layout's rule alone --------------------------------------------------------------------
MX = TORCHAO["quant_type"]["default"]


def described(kind="MXTensor", **data):
    data = {"block_size": 32, "elem_dtype": MX["_data"]["weight_dtype"]} | data
    return {f"{NAME}.weight": json.dumps({"_type": kind, "_data": data})}


@pytest.mark.parametrize("is_swizzled", [True, False])
@pytest.mark.parametrize(("n", "k"), [(160, 320), (128, 128), (3, 32), (300, 1056)])
def test_scales_are_where_the_layout_says(n, k, is_swizzled):
    codes, scales, wanted = mx(np.random.default_rng(0), n, k, element="e2m1")
    held = torch.from_numpy(swizzled(scales.numpy())) if is_swizzled else scales
    stored = {f"{NAME}._weight_qdata": codes, f"{NAME}._weight_scale": held}
    layout = read_layout(TORCHAO)
    layer = layout.layer(NAME, stored, described(is_swizzled_scales=is_swizzled))
    assert torch.equal(layer.dequantize(), wanted)


def test_scale_of_the_tensor_is_not_taken_for_its_reciprocal():
    codes, scales, wanted = nvfp4(np.random.default_rng(0), 32, 64, upper=2.0**-7)
    stored = {
        f"{NAME}._weight_qdata": codes, f"{NAME}._weight_scale": scales,
        f"{NAME}._weight_per_tensor_scale": torch.tensor(2.0**-7),
    }  # fmt: skip
    kind = {"_type": "NVFP4WeightOnlyConfig", "_version": 1, "_data": {}}
    layout = read_layout({"quant_method": "torchao", "quant_type": {"default": kind}})
    text = json.dumps({"_type": "NVFP4Tensor", "_data": {"block_size": 16}})
    layer = layout.layer(NAME, stored, {f"{NAME}.weight": text})
    assert torch.equal(layer.dequantize(), wanted)


@pytest.mark.parametrize(
    ("change", "metadata", "where", "what"),
    [
        ({"_weight_scale": None}, described(), "_weight_scale", "is missing"),
        ({"_weight_qdata": None}, described(is_swizzled_scales=True), "_weight_qdata", "missing"),
        (
            {},
            described(is_swizzled_scales=True),
            "_weight_scale",
            "[32, 3] scales swizzled are [32",
        ),
        ({}, {}, "weight", "not described in the metadata"),
        ({}, {f"{NAME}.weight": "{"}, "weight", "cannot be read"),
        ({}, described("NVFP4Tensor"), "weight", "_type is 'NVFP4Tensor', and 'MXTensor' by"),
        ({}, described(block_size=16), "weight", "block_size is 16, and 32"),
        ({}, described(elem_dtype={"_data": "float8_e4m3fn"}), "weight", "elem_dtype is 'float8"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(change, metadata, where, what):
    codes, scales, _ = mx(np.random.default_rng(0), 32, 96, element="e2m1")
    short = {"_weight_qdata": codes, "_weight_scale": scales} | change
    stored = {f"{NAME}.{key}": tensor for key, tensor in short.items() if tensor is not None}
    with pytest.raises(CheckpointError) as caught:
        read_layout(TORCHAO).layer(NAME, stored, metadata)
    assert caught.value.where == f"{NAME}.{where}"
    assert what in caught.value.what


def test_what_the_files_say_and_is_not_understood_is_refused():
    codes, scales, _ = mx(np.random.default_rng(0), 32, 64, element="e2m1")
    stored = {f"{NAME}._weight_qdata": codes, f"{NAME}._weight_scale": scales}
    with pytest.raises(UnsupportedError, match="not understood"):
        read_layout(TORCHAO).layer(NAME, stored, described(transposed=True))
    with pytest.raises(UnsupportedError, match="not understood"):
        read_layout(TORCHAO).layer(NAME, stored | {f"{NAME}._weight_zero": codes}, described())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("quant_type.model", MX),
        ("quant_type.default._type", "Int4WeightOnlyConfig"),
        ("quant_type.default._type", "FqnToConfig"),
        ("quant_type.default._data.block_size", 16),
        ("quant_type.default._data.weight_dtype", {"_data": "float6_e2m3"}),
        ("quant_type.default._data.activation_dtype", {"_data": "float8_e4m3fn"}),
        ("quant_type.default._data.scaling_mode", {"_data": "CEIL"}),
        ("quant_type.default._data.later", 1),
        ("include_input_output_embeddings", True),
        ("later", 1),
    ],
)
def test_configuration_that_cannot_be_read_names_the_field(path, value):
    found = copy.deepcopy(TORCHAO)
    *folders, last = path.split(".")
    place = found
    for folder in folders:
        place = place[folder]
    place[last] = value
    with pytest.raises(UnsupportedError) as caught:
        read_layout(found)
    assert f"quantization_config.{path}".startswith(caught.value.where)

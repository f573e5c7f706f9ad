"""FP8 checkpoints of DeepSeek and transformers, and Quark's: blocks, names, configurations."""

import copy

import numpy as np
import pytest
import torch

from asterope.errors import CheckpointError, UnsupportedError
from asterope.quant import Scheme, concatenate, read_layout, split, to_tensors
from foreign_checkpoints import FOREIGN, QUARK_MX, quark, quark_spec
from foreign_weights import fp8

NAME = "model.layers.0.mlp.up_proj"
BLOCKS = FOREIGN["fp8-blocks"].config
N, K = 200, 384


def block_tensors(n=N, k=K, seed=0):
    """Scales of any size, none a power of two; the last blocks of rows are smaller."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(1e-4, 3e-3, (-(-n // 128), -(-k // 128))).astype(np.float32)
    wide = np.repeat(np.repeat(scales, 128, 0), 128, 1)[:n, :k]
    codes, weight = fp8(rng, n, k, scales=wide)
    return {f"{NAME}.weight": codes, f"{NAME}.weight_scale_inv": torch.from_numpy(scales)}, weight


def read(stored, config):
    return read_layout(config).layer(NAME, stored, {})


@pytest.mark.parametrize(("n", "k"), [(256, 256), (200, 384), (128, 130), (5, 7)])
def test_scales_of_blocks_multiply_whatever_their_name(n, k):
    stored, weight = block_tensors(n, k)
    layer = read(stored, BLOCKS)
    assert layer.scheme == Scheme(weights="fp8_block128", activations="same")
    assert torch.equal(layer.dequantize(), weight)


def test_the_weight_is_the_one_that_transformers_reads():
    from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

    stored, _ = block_tensors(256, 384)
    theirs = _dequantize_fp8_weight(*stored.values(), [128, 128], torch.float32)
    assert torch.equal(read(stored, BLOCKS).dequantize(), theirs)


def test_layers_that_end_inside_a_block_are_concatenated_and_stored_one_by_one():
    made = [block_tensors(n, seed=n) for n in (72, 200, 128)]
    parts = [read(stored, BLOCKS) for stored, _ in made]
    whole = concatenate(parts)
    assert torch.equal(whole.dequantize(), torch.cat([weight for _, weight in made]))
    for part, (stored, _) in zip(split(whole, (72, 200, 128)), made, strict=True):
        again = to_tensors(NAME, part)
        assert torch.equal(again[f"{NAME}.weight_scale"], stored[f"{NAME}.weight_scale_inv"])


@pytest.mark.parametrize("key", ["weight_scale_inv", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_scale_has_either_name(key, shape):
    codes, weight = fp8(np.random.default_rng(0), 12, 64, scales=np.float32(0.013))
    stored = {f"{NAME}.weight": codes, f"{NAME}.{key}": torch.full(shape, 0.013)}
    layer = read(stored, {"quant_method": "fp8", "weight_block_size": None})
    assert torch.equal(layer.dequantize(), weight)


@pytest.mark.parametrize(
    ("key", "change", "what"),
    [
        ("weight_scale_inv", lambda t: None, "is missing"),
        ("weight_scale_inv", lambda t: t[:, :2], "has shape [2, 2], not [2, 3]"),
        ("weight_scale_inv", lambda t: t.int(), "is torch.int32, not torch.float32 or"),
        ("weight_scale_inv", lambda t: t.fill_(torch.inf), "scale [0, 0] is inf"),
        ("weight", lambda t: t.float(), "is torch.float32, not torch.float8_e4m3fn"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(key, change, what):
    stored, _ = block_tensors()
    changed = change(stored.pop(f"{NAME}.{key}"))
    if changed is not None:
        stored[f"{NAME}.{key}"] = changed
    with pytest.raises(CheckpointError) as caught:
        read(stored, BLOCKS)
    assert caught.value.where == f"{NAME}.{key}"
    assert what in caught.value.what


def test_layers_are_left_out_by_name_beginning_or_end():
    kept = ["lm_head", "model.layers.1", "gate_proj"]
    layout = read_layout(BLOCKS | {"modules_to_not_convert": kept})
    assert layout.is_kept("model.layers.1.mlp.up_proj", ())
    assert layout.is_kept("model.layers.0.mlp.gate_proj", ())
    assert not layout.is_kept("model.layers.11.mlp.up_proj", ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight_block_size", [128, 64]),
        ("weight_block_size", [1, 128]),
        ("activation_scheme", "block"),
        ("activation_scheme", "static"),
        ("fmt", "e5m2"),
        ("scale_fmt", "ue8m0"),
        ("expert_dtype", "fp4"),
        ("dequantize", True),
        ("modules_to_convert", ["model.embed_tokens"]),
        ("modules_to_not_convert", ["model.layers.[01]"]),
        ("later", 1),
    ],
)
def test_fp8_that_cannot_be_read_names_the_field(field, value):
    with pytest.raises(UnsupportedError) as caught:
        read_layout(BLOCKS | {field: value})
    assert caught.value.where == f"quantization_config.{field}"


@pytest.mark.parametrize("key", ["activation_scale", "input_scale"])
def test_static_inputs_have_a_scale_of_either_name(key):
    codes, _ = fp8(np.random.default_rng(0), 12, 64, scales=np.float32(0.013))
    stored = {f"{NAME}.weight": codes, f"{NAME}.weight_scale_inv": torch.tensor(0.013)}
    config = {"quant_method": "fp8", "activation_scheme": "static"}
    assert read(stored | {f"{NAME}.{key}": torch.tensor(0.5)}, config).input_scale == 0.5
    with pytest.raises(CheckpointError, match="is missing") as caught:
        read(stored, config)
    assert caught.value.where == f"{NAME}.activation_scale"


def test_fbgemm_says_that_its_bound_is_not_used():
    assert "bound" in read_layout(FOREIGN["fbgemm"].config).notes[0]


# -- Quark -----------------------------------------------------------------------------------------
FP4 = quark_spec("fp4", "per_group", **QUARK_MX)


@pytest.mark.parametrize(
    ("mode", "rule"), [("even", "even"), ("floor", "floor"), ("ceil", "rceil")]
)
def test_quark_s_scale_rule_is_recorded(mode, rule):
    assert read_layout(quark(FP4 | {"scale_calculation_mode": mode})).plan(1).rule == rule


@pytest.mark.parametrize(
    ("weight", "inputs", "scheme"),
    [
        (FP4, None, Scheme(weights="mxfp4")),
        (FP4, FP4 | {"is_dynamic": True}, Scheme(weights="mxfp4", activations="same")),
        (FP4, quark_spec("fp8_e4m3", "per_tensor"), Scheme(weights="mxfp4", activations="fp8")),
        (
            quark_spec("fp8_e4m3", "per_channel", ch_axis=0),
            quark_spec("fp8_e4m3", "per_channel", ch_axis=1, is_dynamic=True),
            Scheme(weights="fp8_row", activations="fp8"),
        ),
    ],
)
def test_quark_s_formats(weight, inputs, scheme):
    assert read_layout(quark(weight, inputs)).plan(1) == scheme


def with_field(path, value):
    found = copy.deepcopy(quark(FP4, FP4))
    *folders, last = path.split(".")
    place = found
    for folder in folders:
        place = place[folder]
    place[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("global_quant_config.weight", quark_spec("mx", "per_group", mx_element_dtype="fp4")),
        ("global_quant_config.weight", FP4 | {"group_size": 16}),
        ("global_quant_config.weight", FP4 | {"scale_format": "float32"}),
        ("global_quant_config.weight", [FP4, FP4]),
        ("global_quant_config.weight", quark_spec("fp6_e2m3", "per_group", **QUARK_MX)),
        ("global_quant_config.weight.symmetric", False),
        ("global_quant_config.weight.round_method", "dither"),
        ("global_quant_config.weight.scale_calculation_mode", "up"),
        ("global_quant_config.weight.later", 1),
        ("global_quant_config.input_tensors", quark_spec("int8", "per_tensor")),
        ("global_quant_config.output_tensors", FP4),
        ("global_quant_config.input_tensors", FP4),
        ("layer_quant_config.*", {"weight": quark_spec("fp8_e4m3", "per_tensor")}),
        ("layer_type_quant_config", {"Linear": {}}),
        ("algo_config", [{"name": "rotation"}]),
        ("export.weight_format", "fake_quantized"),
        ("export.later", 1),
        ("softmax_quant_spec", FP4),
        ("later", 1),
    ],
)
def test_quark_s_configuration_that_cannot_be_read_names_the_field(path, value):
    with pytest.raises(UnsupportedError) as caught:
        read_layout(with_field(path, value))
    assert caught.value.where.startswith(f"quantization_config.{path}")


def test_quark_s_scales_of_keys_and_values_are_said_not_to_be_used():
    config = quark(FP4)
    outputs = {"output_tensors": quark_spec("fp8_e4m3", "per_tensor")}
    config["layer_quant_config"]["*k_proj"] = config["global_quant_config"] | outputs
    assert "KV cache" in read_layout(config).notes[0]

"""Layers to tensors and configuration and back; damaged checkpoints."""

import copy
import dataclasses
import json

import pytest
import torch

from asterope.errors import CheckpointError, FormatError, ShapeError, UnsupportedError
from asterope.formats import BLOCKS
from asterope.quant import (
    ACTIVATIONS,
    WEIGHT_FORMATS,
    Scheme,
    concatenate,
    from_tensors,
    parse_quantization_config,
    quantization_config,
    quantize_weight,
    read_layout,
    split,
    to_tensors,
)

NAME = "model.layers.0.mlp.up_proj"
N, K = 12, 64
WEIGHTS = pytest.mark.parametrize("weights", ["none", *WEIGHT_FORMATS])
SCHEMES = [
    Scheme(weights=weights, activations=activations, rule=rule)
    for weights in WEIGHT_FORMATS
    for activations in ACTIVATIONS
    for rule in BLOCKS[weights].rules
]


def layer_of(weights, seed=0, *, bias=True, rule=None):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(N, K, generator=generator) * torch.rand(N, 1, generator=generator)
    b = torch.randn(N, generator=generator).bfloat16() if bias else None
    plan = Scheme(weights=weights, rule=rule)
    return quantize_weight(weight.bfloat16(), plan, name=f"{NAME}.weight", bias=b)


def same_bytes(a, b) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@WEIGHTS
@pytest.mark.parametrize("bias", [True, False])
def test_layer_is_loaded_back_byte_for_byte(weights, bias):
    layer = layer_of(weights, bias=bias)
    stored = to_tensors(NAME, layer)
    again = from_tensors(NAME, stored, layer.scheme)
    assert again.scheme == layer.scheme
    assert again.tensors.keys() == layer.tensors.keys()
    assert all(same_bytes(again.tensors[name], t) for name, t in layer.tensors.items())
    assert torch.equal(again.dequantize(), layer.dequantize())
    twice = to_tensors(NAME, again)
    assert twice.keys() == stored.keys()
    assert all(same_bytes(twice[name], t) for name, t in stored.items())


@pytest.mark.parametrize("seed", range(20))
def test_global_scale_is_loaded_back_whatever_it_is(seed):
    layer = layer_of("nvfp4", seed)
    again = from_tensors(NAME, to_tensors(NAME, layer), layer.scheme)
    assert torch.equal(again.row_scale, layer.row_scale)


def test_nvfp4_without_upper_level_is_loaded_back():
    layer = layer_of("nvfp4", rule="amax")
    stored = to_tensors(NAME, layer)
    assert stored[f"{NAME}.weight_global_scale"].tolist() == [1.0]
    assert torch.equal(from_tensors(NAME, stored, layer.scheme).dequantize(), layer.dequantize())


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("none", {"weight": ("bfloat16", [N, K])}),
        (
            "fp8_tensor",
            {"weight": ("float8_e4m3fn", [N, K]), "weight_scale": ("float32", [1])},
        ),
        ("fp8_row", {"weight": ("float8_e4m3fn", [N, K]), "weight_scale": ("float32", [N, 1])}),
        ("mxfp8", {"weight": ("float8_e4m3fn", [N, K]), "weight_scale": ("uint8", [N, 2])}),
        ("mxfp6", {"weight_packed": ("uint8", [N, 48]), "weight_scale": ("uint8", [N, 2])}),
        ("mxfp4", {"weight_packed": ("uint8", [N, 32]), "weight_scale": ("uint8", [N, 2])}),
        ("mxfp4_e1m2", {"weight_packed": ("uint8", [N, 32]), "weight_scale": ("uint8", [N, 2])}),
        (
            "fp8_block128",
            {"weight": ("float8_e4m3fn", [N, K]), "weight_scale": ("float32", [1, 1])},
        ),
        (
            "nvfp4",
            {
                "weight_packed": ("uint8", [N, 32]),
                "weight_scale": ("float8_e4m3fn", [N, 4]),
                "weight_global_scale": ("float32", [1]),
            },
        ),
    ],
)
def test_stored_tensors_have_the_names_types_and_shapes_of_the_layout(weights, expected):
    stored = to_tensors(NAME, layer_of(weights, bias=False))
    found = {
        name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in stored.items()
    }
    assert found == {f"{NAME}.{key}": value for key, value in expected.items()}
    assert all(t.is_contiguous() for t in stored.values())


def test_stored_global_scale_divides():
    layer = layer_of("nvfp4")
    stored = to_tensors(NAME, layer)
    assert float(stored[f"{NAME}.weight_global_scale"] * layer.row_scale[0]) == pytest.approx(1)


@pytest.mark.parametrize("weights", ["fp8_tensor", "nvfp4"])
def test_concatenated_layers_with_different_scales_are_stored_one_by_one(weights):
    parts = [layer_of(weights, seed) for seed in (1, 2)]
    whole = concatenate(parts)
    with pytest.raises(FormatError, match=f"{weights} has one for the tensor") as caught:
        to_tensors(NAME, whole)
    assert caught.value.where == NAME
    assert "split" in caught.value.hint
    for again, part in zip(split(whole, (N, N)), parts, strict=True):
        stored = to_tensors(NAME, part)
        assert all(same_bytes(stored[name], t) for name, t in to_tensors(NAME, again).items())


@pytest.mark.parametrize("shape", [(N, 1), (N,)])
def test_scales_of_other_writers_are_taken(shape):
    layer = layer_of("fp8_row", bias=False)
    stored = to_tensors(NAME, layer)
    key = f"{NAME}.weight_scale"
    stored[key] = stored[key].bfloat16().reshape(shape)
    assert torch.equal(
        from_tensors(NAME, stored, layer.scheme).row_scale, layer.row_scale.bfloat16().float()
    )


def damaged(weights, key, change):
    """Stored tensors with one changed, or left out where `change` gives None."""
    stored = to_tensors(NAME, layer_of(weights))
    changed = change(stored.pop(f"{NAME}.{key}").clone())
    return stored if changed is None else stored | {f"{NAME}.{key}": changed}


def with_code(code, place):
    def change(tensor):
        tensor.view(torch.uint8)[place] = code
        return tensor

    return change


@pytest.mark.parametrize(
    ("weights", "key", "change", "what"),
    [
        ("none", "weight", lambda t: None, "is missing"),
        ("mxfp4", "weight_packed", lambda t: None, "is missing"),
        ("mxfp4", "weight_scale", lambda t: None, "is missing"),
        ("nvfp4", "weight_global_scale", lambda t: None, "is missing"),
        ("none", "weight", lambda t: t.long(), "is torch.int64, not torch.float32 or"),
        ("mxfp4", "weight_packed", lambda t: t.int(), "is torch.int32, not torch.uint8"),
        ("mxfp8", "weight", lambda t: t.float(), "is torch.float32, not torch.float8_e4m3fn"),
        ("mxfp6", "weight_scale", lambda t: t.float(), "is torch.float32, not torch.uint8"),
        ("mxfp4", "weight_scale", lambda t: t[:, :1], "has shape [12, 1], not [12, 2]"),
        ("nvfp4", "weight_scale", lambda t: t[1:], "has shape [11, 4], not [12, 4]"),
        ("fp8_row", "weight_scale", lambda t: t[1:], "has shape [11, 1], not [12, 1] or [12]"),
        ("fp8_tensor", "weight_scale", lambda t: t.repeat(2), "has shape [2], not [1] or []"),
        ("mxfp4", "bias", lambda t: t[1:], "has shape [11], not [12]"),
        ("mxfp4", "bias", lambda t: t.int(), "is torch.int32, not torch.float32 or"),
        ("fp8_row", "weight", with_code(0x7F, (3, 5)), "the code at [3, 5] is NaN"),
        ("mxfp8", "weight", with_code(0xFF, (3, 5)), "the code at [3, 5] is NaN"),
        ("mxfp4", "weight_scale", with_code(0xFF, (2, 1)), "the code at [2, 1] is NaN"),
        ("nvfp4", "weight_scale", with_code(0x81, (2, 1)), "the code at [2, 1] is NaN, or neg"),
        ("fp8_row", "weight_scale", lambda t: t.fill_(torch.nan), "scale 0 is nan"),
        ("fp8_tensor", "weight_scale", lambda t: -t, "scale 0 is -"),
        ("fp8_block128", "weight_scale", lambda t: -t, "scale 0 is -"),
        ("fp8_block128", "weight_scale", lambda t: t[0], "has shape [1], not [1, 1]"),
        ("nvfp4", "weight_global_scale", lambda t: t * 0, "0.0 is outside"),
        ("nvfp4", "weight_global_scale", lambda t: t * torch.nan, "nan is outside"),
    ],
)
def test_damaged_checkpoint_names_the_tensor(weights, key, change, what):
    with pytest.raises(CheckpointError) as caught:
        from_tensors(NAME, damaged(weights, key, change), Scheme(weights=weights))
    assert caught.value.where == f"{NAME}.{key}"
    assert what in caught.value.what


@pytest.mark.parametrize(
    ("weights", "key", "change", "what"),
    [
        ("mxfp4", "weight_packed", lambda t: t[:, :20], "do not divide K = 40"),
        ("mxfp6", "weight_packed", lambda t: t[:, :25], "do not divide K = 33"),
        ("mxfp8", "weight", lambda t: t[0], "is not that of a linear layer's weight"),
        ("none", "weight", lambda t: t[0], "is not that of a linear layer's weight"),
    ],
)
def test_stored_shape_that_no_layer_has_names_the_tensor(weights, key, change, what):
    with pytest.raises(ShapeError) as caught:
        from_tensors(NAME, damaged(weights, key, change), Scheme(weights=weights))
    assert caught.value.where == f"{NAME}.{key}"
    assert what in caught.value.what


@pytest.mark.parametrize("plan", SCHEMES, ids=lambda plan: f"{plan.name}-{plan.rule}")
def test_configuration_is_read_back_through_json(plan):
    config = json.loads(json.dumps(quantization_config(plan, ["lm_head"])))
    assert parse_quantization_config(config) == (plan, ("lm_head",))


def test_configuration_of_another_writer_has_the_default_rule_and_may_ignore_nothing():
    config = quantization_config(Scheme(weights="mxfp4", rule="floor"), [])
    del config["asterope"]
    config["ignore"] = None
    assert parse_quantization_config(config) == (Scheme(weights="mxfp4", rule="even"), ())


ROOT = "quantization_config"
GROUP = f"{ROOT}.config_groups.group_0"
INPUTS = "config_groups.group_0.input_activations"
PARTS = "config_groups.group_0.weights"


def changed(path, value, weights="mxfp4"):
    """The configuration of a scheme with one field set, or removed where the value is None."""
    config = copy.deepcopy(quantization_config(Scheme(weights=weights, activations="same"), []))
    *folders, last = path.split(".")
    place = config
    for folder in folders:
        place = place[folder]
    place[last] = value
    return config


STATIC = [
    (Scheme(weights="fp8_tensor", activations="fp8"), "input_scale", 0.01, 0.01),
    (Scheme(weights="mxfp4", activations="fp8"), "input_scale", 0.01, 0.01),
    (Scheme(weights="nvfp4", activations="same"), "input_global_scale", 0.004, 250.0),
]


@pytest.mark.parametrize(("plan", "key", "scale", "stored"), STATIC)
def test_static_scales_of_inputs_are_stored_and_read(plan, key, scale, stored):
    config = json.loads(json.dumps(quantization_config(plan, [], static_inputs=True)))
    layout = read_layout(config)
    assert layout.plan(1) == plan
    layer = quantize_weight(torch.randn(N, K), plan, name=NAME)
    layer = dataclasses.replace(layer, input_scale=float(torch.tensor(scale)))
    tensors = to_tensors(NAME, layer)
    torch.testing.assert_close(tensors[f"{NAME}.{key}"], torch.tensor([stored]))
    again = layout.layer(NAME, tensors, {})
    assert again.input_scale == pytest.approx(scale, rel=2**-22)
    assert to_tensors(NAME, again)[f"{NAME}.{key}"] == tensors.pop(f"{NAME}.{key}")
    with pytest.raises(CheckpointError, match="is missing"):
        layout.layer(NAME, tensors, {})


@pytest.mark.parametrize("place", [(), ("config_groups", "group_0"), (INPUTS,), (PARTS,)])
def test_fields_that_are_not_understood_are_not_ignored(place):
    for quiet in (None, False, [], {}, ""):
        assert parse_quantization_config(changed(".".join([*place, "later"]), quiet))
    with pytest.raises(UnsupportedError, match="not understood") as caught:
        parse_quantization_config(changed(".".join([*place, "later"]), {"rotated": True}))
    assert caught.value.where == ".".join([ROOT, *place, "later"])


def test_blocks_of_another_size_are_refused():
    args = quantization_config(Scheme(weights="fp8_block128"), [])
    args["config_groups"]["group_0"]["weights"]["block_structure"] = [128, 64]
    with pytest.raises(UnsupportedError) as caught:
        parse_quantization_config(args)
    assert caught.value.where == f"{GROUP}.weights.block_structure"


def test_nvfp4_preset_with_local_activations_is_read():
    config = quantization_config(Scheme(weights="nvfp4", activations="same"), [])
    config["config_groups"]["group_0"]["input_activations"]["dynamic"] = "local"
    assert parse_quantization_config(config)[0].activations == "same"


def test_names_of_fp8_by_other_versions_are_read():
    plan = Scheme(weights="fp8_tensor", activations="fp8")
    config = quantization_config(plan, [])
    config |= {"quantization_status": "frozen", "sparsity_config": {"format": "dense"}}
    config["format"] = config["config_groups"]["group_0"]["format"] = "naive-quantized"
    config["config_groups"]["group_0"]["weights"]["group_size"] = -1
    assert parse_quantization_config(config)[0] == plan


def test_unquantized_scheme_has_no_configuration():
    with pytest.raises(FormatError, match="has no quantization_config"):
        quantization_config(Scheme(weights="none"), [])


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("quant_method", "gptq", f"{ROOT}.quant_method", "'gptq' cannot be read; compressed-"),
        ("quantization_status", "initialized", f"{ROOT}.quantization_status", "compressed or froz"),
        ("kv_cache_scheme", {"num_bits": 8}, f"{ROOT}.kv_cache_scheme.type", "float can"),
        *(
            (
                "kv_cache_scheme",
                {"num_bits": 8, "type": "float", "strategy": "tensor", field: value},
                f"{ROOT}.kv_cache_scheme.{field}",
                what,
            )
            for field, value, what in (
                ("dynamic", True, "True cannot be read; False can"),
                ("group_size", 16, "16 cannot be read; null can"),
            )
        ),
        (
            "transform_config",
            {"config_groups": {}},
            f"{ROOT}.transform_config.config_groups",
            "one Hadamard rotation can",
        ),
        ("sparsity_config", {"format": "24"}, f"{ROOT}.sparsity_config", "null can"),
        ("config_groups.group_1", {}, f"{ROOT}.config_groups", "2 groups"),
        ("config_groups.group_0.targets", ["re:.*q"], f"{GROUP}.targets", "['re:.*q'] cannot"),
        ("config_groups.group_0.output_activations", {}, f"{GROUP}.output_activations", "null"),
        (f"{PARTS}.type", "int", f"{GROUP}.weights.type", "'int' cannot be read; float can"),
        (f"{PARTS}.symmetric", False, f"{GROUP}.weights.symmetric", "False cannot"),
        (f"{PARTS}.actorder", "group", f"{GROUP}.weights.actorder", "'group' cannot"),
        (f"{PARTS}.group_size", 64, f"{GROUP}.weights", "'4 bits by group of 64' cannot be read"),
        (f"{PARTS}.dynamic", True, f"{GROUP}.weights", "cannot be read"),
        (f"{INPUTS}.dynamic", False, f"{GROUP}.input_activations", "'a static scale' cannot"),
        (f"{INPUTS}.num_bits", 8, f"{GROUP}.input_activations", "'8 bits by group of 32' cannot"),
    ],
)
def test_configuration_that_cannot_be_read_names_the_field(path, value, where, what):
    with pytest.raises(UnsupportedError) as caught:
        parse_quantization_config(changed(path, value))
    assert caught.value.where == where
    assert what in caught.value.what


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("config_groups", [], f"{ROOT}.config_groups", "is list, not an object"),
        ("config_groups.group_0", 3, GROUP, "is int, not an object"),
        ("config_groups.group_0.weights", None, f"{GROUP}.weights", "is NoneType, not an"),
        ("config_groups.group_0.format", "dense", f"{ROOT}.format", "'dense' does not fit"),
        ("ignore", "lm_head", f"{ROOT}.ignore", "is not a list of names"),
        ("asterope", [], f"{ROOT}.asterope", "is list, not an object"),
        ("asterope.scale_rule", "up", f"{ROOT}.asterope.scale_rule", "'up' does not apply"),
    ],
)
def test_configuration_that_is_not_valid_names_the_field(path, value, where, what):
    with pytest.raises(CheckpointError) as caught:
        parse_quantization_config(changed(path, value))
    assert caught.value.where == where
    assert what in caught.value.what


def test_each_group_has_static_inputs_or_dynamic_ones_as_it_says():
    plan = Scheme(weights="fp8_tensor", activations="fp8")
    config = quantization_config(plan, [], static_inputs=True)
    other = copy.deepcopy(quantization_config(plan, [])["config_groups"]["group_0"])
    config["config_groups"]["group_1"] = other | {"targets": ["re:.*down_proj"]}
    layout = read_layout(config)
    assert layout.plan(2) == plan
    down, up = (f"model.layers.0.mlp.{name}_proj" for name in ("down", "up"))
    layer = quantize_weight(torch.randn(N, K), plan, name=NAME)
    assert layout.layer(down, to_tensors(down, layer), {}).input_scale is None
    with pytest.raises(CheckpointError, match="is missing"):
        layout.layer(up, to_tensors(up, layer), {})

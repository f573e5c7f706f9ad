"""Checkpoints of Model Optimizer: its table of algorithms, its traps, its configuration."""

import copy

import numpy as np
import pytest
import torch

from asterope.errors import CheckpointError, ShapeError, UnsupportedError
from asterope.formats import dequantize, quantize
from asterope.quant import Scheme, concatenate, quantization_of, read_layout
from foreign_weights import fp8, mx, nvfp4

N, K = 24, 128
NAME = "model.layers.0.self_attn.q_proj"


def own_file(algorithm, **more):
    return {
        "producer": {"name": "modelopt", "version": "0.47.0"},
        "quantization": {"quant_algo": algorithm, "exclude_modules": ["lm_head"], **more},
    }


def config(algorithm="NVFP4", bits=4, group_size=16, **more):
    """As config.json of a checkpoint has it."""
    args = {"dynamic": False, "num_bits": bits, "type": "float", "group_size": group_size}
    return {
        "quant_method": "modelopt",
        "quant_algo": algorithm,
        "config_groups": {
            "group_0": {"weights": args, "input_activations": dict(args), "targets": ["Linear"]}
        },
        "ignore": ["lm_head"],
        "producer": {"name": "modelopt", "version": "0.47.0"},
        **more,
    }


INPUTS = torch.tensor(0.0021)


def nvfp4_tensors(seed=0, upper=0.0123):
    codes, scales, weight = nvfp4(np.random.default_rng(seed), N, K, upper=upper)
    stored = {
        "weight": codes, "weight_scale": scales, "weight_scale_2": torch.tensor(upper),
        "input_scale": INPUTS,
    }  # fmt: skip
    return {f"{NAME}.{key}": tensor for key, tensor in stored.items()}, weight


def read(stored, found=None):
    return read_layout(found or config()).layer(NAME, stored, {})


@pytest.mark.parametrize("algorithm", ["NVFP4", "W4A16_NVFP4", "W4A8_NVFP4_FP8"])
def test_nvfp4_is_code_times_scale_times_scale_2(algorithm):
    stored, weight = nvfp4_tensors()
    layer = read(stored, config(algorithm))
    assert torch.equal(layer.dequantize(), weight)
    assert layer.input_scale == (None if algorithm == "W4A16_NVFP4" else float(INPUTS))


def test_blocks_of_32_have_each_scale_twice():
    """W4A8_NVFP4_FP8 of 0.47; of other algorithms they are scales of half the size."""
    stored, _ = nvfp4_tensors()
    key = f"{NAME}.weight_scale"
    stored[key] = stored[key].view(torch.uint8)[:, ::2].contiguous().view(torch.float8_e4m3fn)
    fine = stored | {key: stored[key].view(torch.uint8).repeat_interleave(2, 1)}
    fine[key] = fine[key].view(torch.float8_e4m3fn)
    found = {"quant_method": "modelopt", "quant_algo": "W4A8_NVFP4_FP8", "group_size": 32}
    assert torch.equal(read(stored, found).dequantize(), read(fine).dequantize())


def test_fused_projections_take_the_largest_static_scale_of_inputs():
    parts = []
    for seed, scale in enumerate((0.001, 0.004, 0.002)):
        stored, _ = nvfp4_tensors(seed)
        parts.append(read(stored | {f"{NAME}.input_scale": torch.tensor(scale)}))
    assert concatenate(parts).input_scale == float(torch.tensor(0.004))
    dynamic = read(nvfp4_tensors()[0], config("W4A16_NVFP4"))
    with pytest.raises(ShapeError):
        concatenate([parts[0], dynamic])


def test_static_scale_of_inputs_is_what_they_are_quantized_with():
    stored, weight = nvfp4_tensors()
    x = torch.randn(5, K, generator=torch.Generator().manual_seed(3))
    q = quantize(x.numpy(), "nvfp4", global_scale=float(INPUTS))
    wanted = torch.from_numpy(dequantize(q)).double() @ weight.double().T
    torch.testing.assert_close(read(stored).apply(x).double(), wanted, rtol=1e-4, atol=1e-3)


def test_upper_scale_is_not_taken_for_its_reciprocal():
    """compressed-tensors stores 1 / scale under another name: the classic wrong import."""
    stored, weight = nvfp4_tensors(upper=2.0**-5)
    ours = read(stored).dequantize()
    assert torch.equal(ours, weight)
    assert not torch.allclose(ours, weight * 2.0**10)


@pytest.mark.parametrize("upper", [0.1, 1 / 3, 7.3e-5, 3.0000002])
def test_upper_scale_is_kept_to_the_last_bit(upper):
    stored, weight = nvfp4_tensors(upper=upper)
    layer = read(stored)
    assert torch.equal(layer.row_scale, torch.full((N,), upper))
    assert torch.equal(layer.dequantize(), weight)


def test_fused_projections_keep_upper_scales_of_their_own():
    made = [nvfp4_tensors(seed, upper) for seed, upper in enumerate((0.011, 0.5, 0.0003))]
    whole = concatenate([read(stored) for stored, _ in made])
    assert torch.equal(whole.dequantize(), torch.cat([weight for _, weight in made]))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_fp8_has_one_scale(shape):
    scale = np.float32(0.0173)
    codes, weight = fp8(np.random.default_rng(0), N, K, scales=scale)
    stored = {f"{NAME}.weight": codes, f"{NAME}.weight_scale": torch.full(shape, float(scale))}
    stored[f"{NAME}.input_scale"] = INPUTS
    layer = read(stored, config("FP8", 8, None))
    assert layer.input_scale == float(INPUTS)
    assert layer.scheme == Scheme(weights="fp8_tensor", activations="fp8")
    assert torch.equal(layer.dequantize(), weight)


def test_fp8_per_channel_has_a_scale_a_row():
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.001, 0.1, (N, 1)).astype(np.float32)
    codes, weight = fp8(rng, N, K, scales=scales)
    stored = {f"{NAME}.weight": codes, f"{NAME}.weight_scale": torch.from_numpy(scales[:, 0])}
    found = config("FP8_PER_CHANNEL_PER_TOKEN", 8, None)
    assert torch.equal(read(stored, found).dequantize(), weight)


@pytest.mark.parametrize(
    ("algorithm", "bits", "element", "activations"),
    [("MXFP8", 8, "e4m3", "same"), ("W4A8_MXFP4_FP8", 4, "e2m1", "fp8")],
)
def test_mx_has_powers_of_two_and_its_rule_is_recorded(algorithm, bits, element, activations):
    codes, scales, weight = mx(np.random.default_rng(0), N, K, element=element)
    stored = {f"{NAME}.weight": codes, f"{NAME}.weight_scale": scales}
    stored[f"{NAME}.input_scale"] = INPUTS
    layer = read(stored, config(algorithm, bits, 32))
    assert (layer.scheme.activations, layer.scheme.rule) == (activations, "rceil")
    assert torch.equal(layer.dequantize(), weight)


# -- traps -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "change", "what"),
    [
        ("weight_scale", lambda t: t[:, ::2].contiguous(), "has shape [24, 4], not [24, 8]"),
        ("weight_scale", lambda t: None, "is missing"),
        ("weight_scale", lambda t: t.float(), "is torch.float32, not torch.float8_e4m3fn"),
        ("weight_scale_2", lambda t: None, "is missing"),
        ("input_scale", lambda t: None, "is missing"),
        ("input_scale", lambda t: t * torch.nan, "nan is outside"),
        ("weight_scale_2", lambda t: t.repeat(3), "has shape [3], not [1] or []"),
        ("weight_scale_2", lambda t: t * 0, "0.0 is outside"),
        ("weight", lambda t: t.view(torch.float8_e4m3fn), "is torch.float8_e4m3fn, not torch.u"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(key, change, what):
    """Scales of half the size come of `--low_memory_mode` (Model-Optimizer 2160)."""
    stored, _ = nvfp4_tensors()
    changed = change(stored.pop(f"{NAME}.{key}"))
    if changed is not None:
        stored[f"{NAME}.{key}"] = changed
    with pytest.raises(CheckpointError) as caught:
        read(stored)
    assert caught.value.where == f"{NAME}.{key}"
    assert what in caught.value.what


@pytest.mark.parametrize("key", ["pre_quant_scale", "svdquant_lora_a", "weight_zero_point"])
def test_a_tensor_that_changes_what_the_layer_computes_is_not_ignored(key):
    stored, _ = nvfp4_tensors()
    stored[f"{NAME}.{key}"] = torch.ones(K)
    with pytest.raises(UnsupportedError, match="not understood") as caught:
        read(stored)
    assert caught.value.where == f"{NAME}.{key}"


# -- configuration ---------------------------------------------------------------------------------
def test_own_file_says_what_config_json_says(tmp_path):
    (tmp_path / "hf_quant_config.json").write_text(
        '{"producer": {"name": "modelopt", "version": "0.19"}, "quantization": '
        '{"quant_algo": "NVFP4", "kv_cache_quant_algo": "INT8", "group_size": 16, '
        '"exclude_modules": ["lm_head", "model.layers.0.mlp*"]}}'
    )
    layout = read_layout(quantization_of({}, tmp_path))
    plan = layout.plan(1).of(0)
    assert plan["qkv"] == plan["output"] == Scheme(weights="nvfp4", activations="same")
    assert plan["gate_up"] is plan["down"] is None
    assert layout.is_kept("model.layers.0.mlp.up_proj", ())
    assert not layout.is_kept("model.layers.0.self_attn.q_proj", ())
    assert len(layout.notes) == 1
    assert "KV cache" in layout.notes[0]
    in_config = config("FP8", 8, None)
    assert quantization_of({"quantization_config": in_config}, tmp_path) is in_config


@pytest.mark.parametrize(
    ("asked", "format_"),
    [
        (None, "auto"), ("FP8", "fp8"), ("NVFP4", "nvfp4"), ("NVFP4_AFFINE", "auto"),
        ({"dynamic": False, "num_bits": 8, "type": "float"}, "fp8"),
        ({"num_bits": 4, "type": "float"}, "nvfp4"), ({"num_bits": 8, "type": "int"}, "auto"),
    ],
)  # fmt: skip
def test_a_cache_is_read_by_its_name_or_its_bits_and_else_noted(asked, format_):
    layout = read_layout(config("FP8", 8, None) | {"kv_cache_scheme": asked})
    assert layout.cache_format == format_
    assert len(layout.notes) == (format_ == "auto" and asked is not None)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "hf_quant_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        quantization_of({}, tmp_path)
    assert caught.value.where.endswith("hf_quant_config.json")


def test_layers_are_left_out_by_name_part_or_wildcard():
    layout = read_layout(config(ignore=["model.layers.1", "*.o_proj", "lm_head"]))
    assert layout.is_kept("model.layers.1.mlp.up_proj", ())
    assert not layout.is_kept("model.layers.11.mlp.up_proj", ())
    assert layout.is_kept("model.layers.2.self_attn.o_proj", ())


def changed(path, value):
    found = copy.deepcopy(config())
    *folders, last = path.split(".")
    place = found
    for folder in folders:
        place = place[folder]
    place[last] = value
    return found


WEIGHTS = "config_groups.group_0.weights"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("quant_algo", "MIXED_PRECISION"),
        ("quant_algo", "NVFP4_AWQ"),
        ("quant_algo", None),
        ("group_size", 32),
        ("config_groups.group_1", {}),
        ("config_groups.group_0.targets", ["Embedding"]),
        (f"{WEIGHTS}.group_size", 32),
        ("rotation", {"online": True}),
        ("pre_quant_scale", True),
        ("config_groups.group_0.pre_quant_scale", True),
        (f"{WEIGHTS}.zero_point", 3),
    ],
)
def test_configuration_that_cannot_be_read_names_the_field(path, value):
    with pytest.raises(UnsupportedError) as caught:
        read_layout(changed(path, value))
    assert caught.value.where in (
        f"quantization_config.{path}",
        "quantization_config.config_groups",
    )


@pytest.mark.parametrize(
    ("path", "value"), [(f"{WEIGHTS}.num_bits", 8), (f"{WEIGHTS}.type", "int"), ("ignore", "lm")]
)
def test_configuration_that_contradicts_itself_names_the_field(path, value):
    with pytest.raises(CheckpointError) as caught:
        read_layout(changed(path, value))
    assert caught.value.where == f"quantization_config.{path}"


@pytest.mark.parametrize("quiet", [None, False, [], {}, ""])
def test_a_field_that_says_nothing_may_have_any_name(quiet):
    assert read_layout(changed("later", quiet)).plan(1).weights == "nvfp4"


@pytest.mark.parametrize("method", ["gptq", None, 3])
def test_another_method_is_refused_by_name(method):
    with pytest.raises(UnsupportedError, match="modelopt") as caught:
        read_layout({"quant_method": method})
    assert caught.value.where == "quantization_config.quant_method"


def branched(rank=8, prefix="svdquant_lora"):
    """Tensors of NVFP4_SVD, the weight that they stand for, and a configuration."""
    stored, weight = nvfp4_tensors()
    generator = torch.Generator().manual_seed(5)
    first, second = (
        torch.randn(*shape, generator=generator).to(torch.bfloat16)
        for shape in ((rank, K), (N, rank))
    )
    stored |= {f"{NAME}.{prefix}_a": first, f"{NAME}.{prefix}_b": second}
    found = config("NVFP4_SVD")
    found["config_groups"]["group_0"] |= {"has_zero_point": False, "pre_quant_scale": True}
    if rank != 32:
        found["config_groups"]["group_0"]["lora_rank"] = rank
    return stored, weight + second.float() @ first.float(), found


@pytest.mark.parametrize(
    ("rank", "prefix"), [(8, "svdquant_lora"), (32, "weight_quantizer._svdquant_lora")]
)
def test_a_branch_is_added_under_both_names_and_of_the_default_rank(rank, prefix):
    stored, weight, found = branched(rank, prefix)
    stored[f"{NAME}.pre_quant_scale"] = torch.ones(K, dtype=torch.bfloat16)
    layer = read(stored, found)
    torch.testing.assert_close(layer.dequantize(), weight)
    assert layer.scheme == Scheme(weights="nvfp4", activations="same", rank=rank)
    assert layer.input_scale == float(INPUTS)


def test_a_branch_of_another_rank_or_scaled_inputs_are_refused():
    stored, _, found = branched()
    scaled = stored | {f"{NAME}.pre_quant_scale": torch.full((K,), 0.5)}
    with pytest.raises(UnsupportedError, match="pre_quant_scale"):
        read(scaled, found)
    found["config_groups"]["group_0"]["lora_rank"] = 4
    with pytest.raises(CheckpointError, match="svdquant_lora_a"):
        read(stored, found)
    with pytest.raises(UnsupportedError, match="svdquant_lora_a"):
        read(stored)

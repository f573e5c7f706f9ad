"""Checkpoints as the library that defines their layout, compressed-tensors, reads and writes."""

import pytest
import torch

from asterope.formats import BLOCKS
from asterope.quant import (
    ACTIVATIONS,
    WEIGHT_FORMATS,
    Scheme,
    from_tensors,
    parse_quantization_config,
    quantization_config,
    quantize_weight,
    to_tensors,
)

SHARED = [weights for weights in WEIGHT_FORMATS if weights != "mxfp4_e1m2"]
SCHEMES = [
    Scheme(weights=weights, activations=activations)
    for weights in SHARED
    for activations in ACTIVATIONS
]
N, K = 24, 128


@pytest.fixture(scope="module")
def library():
    """What is used of the library; importing it takes seconds."""
    from compressed_tensors import compressors, quantization

    return compressors, quantization


def weight(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, K, generator=generator) * torch.logspace(-2, 2, N)[:, None]


def described(plan, library):
    """Our configuration as the library reads it, and the compressor of its format."""
    compressors, quantization = library
    config = quantization.QuantizationConfig.model_validate(quantization_config(plan, ["lm_head"]))
    group = config.config_groups["group_0"]
    return config, group, compressors.BaseCompressor.get_value_from_registry(config.format)


@pytest.mark.parametrize("plan", SCHEMES, ids=lambda plan: plan.name)
def test_library_reads_our_configuration_and_we_read_what_it_writes(plan, library):
    config, group, _ = described(plan, library)
    assert config.ignore == ["lm_head"]
    assert config.quantization_status.value == "compressed"
    assert group.weights.num_bits == BLOCKS[plan.weights].element.bits
    assert (group.input_activations is None) == (plan.activation_format is None)
    written = config.model_dump(mode="json")
    assert parse_quantization_config(written) == (plan, ("lm_head",))


# fp8 weights alone have two names for one layout there.
@pytest.mark.parametrize(
    "plan",
    [plan for plan in SCHEMES if plan.name not in ("fp8_tensor", "fp8_row", "fp8_block128")],
    ids=lambda plan: plan.name,
)
def test_library_infers_the_format_that_we_name(plan, library):
    from compressed_tensors.compressors.format import infer_module_format

    config, group, _ = described(plan, library)
    assert infer_module_format(torch.nn.Linear, group).value == config.format


@pytest.mark.parametrize("weights", SHARED)
def test_library_decompresses_our_tensors_to_our_values(weights, library):
    plan = Scheme(weights=weights)
    layer = quantize_weight(weight(), plan, name="w")
    _, group, compressor = described(plan, library)
    stored = {name.removeprefix("w."): t for name, t in to_tensors("w", layer).items()}
    assert set(stored) == set(compressor.compression_param_names(group))
    values = compressor.decompress(stored, group)["weight"]
    ours = layer.dequantize()
    if weights == "nvfp4":  # theirs is rounded to bf16, and divides where we multiply
        torch.testing.assert_close(values.float(), ours, rtol=2**-8 + 2**-22, atol=0)
    else:
        assert torch.equal(values.float(), ours)


@pytest.mark.parametrize("weights", SHARED)
def test_library_compresses_to_our_bytes_under_our_scales(weights, library):
    plan = Scheme(weights=weights)
    w = weight()
    layer = quantize_weight(w, plan, name="w")
    stored = {name.removeprefix("w."): t for name, t in to_tensors("w", layer).items()}
    _, group, compressor = described(plan, library)
    given = {"weight": w, "weight_scale": float_scales(stored["weight_scale"])}
    if weights == "nvfp4":
        given["weight_global_scale"] = stored["weight_global_scale"]
    theirs = compressor.compress(given, group)
    assert theirs.keys() == stored.keys()
    for key, tensor in stored.items():
        assert theirs[key].dtype == tensor.dtype
        assert torch.equal(theirs[key].view(torch.uint8), tensor.view(torch.uint8))
    again = from_tensors("w", {f"w.{key}": t for key, t in theirs.items()}, plan)
    assert torch.equal(again.dequantize(), layer.dequantize())


def float_scales(stored):
    """Scales as the library's observers give them, before they are compressed."""
    return torch.exp2(stored.float() - 127) if stored.dtype == torch.uint8 else stored.float()


@pytest.mark.parametrize(
    ("preset", "text"),
    [
        ("NVFP4A16", Scheme(weights="nvfp4")),
        ("NVFP4", Scheme(weights="nvfp4", activations="same")),
        ("MXFP4A16", Scheme(weights="mxfp4")),
        ("MXFP4", Scheme(weights="mxfp4", activations="same")),
        ("MXFP6A16", Scheme(weights="mxfp6")),
        ("MXFP8A16", Scheme(weights="mxfp8")),
        ("MXFP8", Scheme(weights="mxfp8", activations="same")),
        ("FP8_DYNAMIC", Scheme(weights="fp8_row", activations="fp8")),
        ("FP8_BLOCK", Scheme(weights="fp8_block128", activations="same")),
    ],
)
def test_presets_of_the_library_are_read(preset, text, library):
    _, quantization = library
    config = quantization.QuantizationConfig(
        config_groups={preset: ["Linear"]},
        quantization_status="compressed",
        format=quantization_config(text, [])["format"],
    )
    assert parse_quantization_config(config.model_dump(mode="json"))[0] == text


@pytest.mark.parametrize(
    "plan", [Scheme(weights="mxfp4_e1m2"), Scheme(weights="fp8_row", rank=8)], ids=str
)
def test_library_refuses_e1m2_and_branches_instead_of_reading_other_weights(plan, library):
    _, quantization = library
    config = quantization_config(plan, [])
    with pytest.raises(ValueError, match="format"):
        quantization.QuantizationConfig.model_validate(config)


@pytest.mark.parametrize(
    ("preset", "plan"),
    [
        ("FP8", Scheme(weights="fp8_tensor", activations="fp8")),
        ("NVFP4", Scheme(weights="nvfp4", activations="same")),
    ],
)
def test_static_inputs_are_those_of_the_library_s_preset(preset, plan, library):
    _, quantization = library
    config = quantization_config(plan, ["lm_head"], static_inputs=True)
    ours = quantization.QuantizationConfig.model_validate(config).config_groups["group_0"]
    theirs = quantization.preset_name_to_scheme(preset, ["Linear"])
    for found, wanted in (
        (ours.weights, theirs.weights),
        (ours.input_activations, theirs.input_activations),
    ):
        for field in ("num_bits", "type", "strategy", "group_size", "dynamic", "symmetric"):
            assert getattr(found, field) == getattr(wanted, field), field

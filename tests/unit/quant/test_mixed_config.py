"""Mixes as checkpoints record them, and as compressed-tensors reads them."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from asterope.errors import CheckpointError, ConfigError, FormatError, UnsupportedError
from asterope.quant import (
    MODULES,
    PLACES,
    Mix,
    parse_plan,
    plan_config,
    quantization_config,
    scheme,
)

MXFP4, NVFP4, FP8 = scheme("mxfp4"), scheme("nvfp4/fp8"), scheme("fp8/same")
HEAD = ["lm_head"]


def mix(*rows):
    return Mix(tuple(tuple(s and scheme(s) for s in row.split()) for row in rows))


MIXES = {
    "two formats": mix("mxfp4 fp8/same mxfp4 fp8/same", "mxfp4 mxfp4 mxfp4 mxfp4"),
    "some left out": mix("mxfp4 none mxfp4 nvfp4/fp8", "none none mxfp8 mxfp8"),
    "one format": mix("mxfp4 none mxfp4 mxfp4", "none none none mxfp4"),
    "activations differ": mix("nvfp4 nvfp4/same nvfp4/fp8 nvfp4", "nvfp4 nvfp4 nvfp4 nvfp4"),
    "rotated": mix("mxfp4+h mxfp4+h16 mxfp4 nvfp4/same+h", "mxfp4+h none mxfp4 mxfp4"),
}


@pytest.mark.parametrize("plan", MIXES.values(), ids=MIXES.keys())
def test_a_mix_is_read_as_it_was_written(plan):
    assert parse_plan(json.loads(json.dumps(plan_config(plan, HEAD))), 2) == plan


def test_rules_are_recorded_by_group():
    plan = Mix(((scheme("mxfp4", rule="floor"), MXFP4, FP8, None),))
    stored = plan_config(plan, HEAD)
    assert stored["asterope"]["scale_rules"] == {
        "group_0": "floor", "group_1": "even", "group_2": "amax",
    }  # fmt: skip
    assert parse_plan(stored, 1) == plan
    del stored["asterope"]
    assert parse_plan(stored, 1) == Mix(((MXFP4, MXFP4, FP8, None),))


def test_a_mix_of_one_scheme_is_stored_as_that_scheme_is():
    plan = Mix.everywhere(NVFP4, 3)
    assert json.dumps(plan_config(plan, HEAD)) == json.dumps(quantization_config(NVFP4, HEAD))
    assert parse_plan(plan_config(plan, HEAD), 3) == NVFP4
    one_format = plan_config(MIXES["one format"], HEAD)
    assert [group["targets"] for group in one_format["config_groups"].values()] == [["Linear"]]
    assert "model.layers.1.mlp.up_proj" in one_format["ignore"]
    with pytest.raises(FormatError, match="no quantization_config"):
        plan_config(Mix.everywhere(None, 2), HEAD)


def test_a_mix_says_what_it_is():
    plan = Mix.everywhere(MXFP4, 2).replaced(1, "down", None).replaced(0, "qkv", FP8)
    assert plan.of(1) == {"qkv": MXFP4, "output": MXFP4, "gate_up": MXFP4, "down": None}
    assert plan.counts == {MXFP4: 6, FP8: 1, None: 1}
    assert plan.describe() == "mix of mxfp4 in 6, fp8_row/fp8 in 1, bf16 in 1 of 8 places"
    assert Mix.everywhere(MXFP4, 2).simplest == MXFP4
    assert Mix.everywhere(scheme("bf16"), 2).simplest is None
    assert Mix.everywhere(scheme("bf16"), 2) == Mix.everywhere(None, 2)
    with pytest.raises(ConfigError, match="layer 1 of a mix"):
        Mix(((None,) * 4, (None,) * 3))


@pytest.fixture(scope="module")
def library():
    """The library's quantization package; importing it takes seconds."""
    from compressed_tensors import quantization

    return quantization


def linears(num_layers):
    """A bare model whose linear modules have the names of a decoder's."""
    root = torch.nn.Module()
    for layer in range(num_layers):
        for names in MODULES.values():
            for name in names:
                at = root
                for part in f"model.layers.{layer}.{name}".split("."):
                    if not hasattr(at, part):
                        at.add_module(part, torch.nn.Module())
                    parent, at = at, getattr(at, part)
                setattr(parent, part, torch.nn.Linear(64, 64, bias=False, device="meta"))
    root.add_module("lm_head", torch.nn.Linear(64, 8, bias=False, device="meta"))
    return root


@pytest.mark.parametrize("plan", MIXES.values(), ids=MIXES.keys())
def test_the_library_gives_each_module_the_format_that_we_give_it(plan, library):
    config = library.QuantizationConfig.model_validate(plan_config(plan, HEAD))
    model = linears(2)
    library.apply_quantization_config(model, config, show_progress=False)
    assert parse_plan(config.model_dump(mode="json") | rules(plan), 2) == plan
    for layer in range(2):
        for place, chosen in plan.of(layer).items():
            for name in MODULES[place]:
                module = model.get_submodule(f"model.layers.{layer}.{name}")
                given = getattr(module, "quantization_scheme", None)
                assert (given is None) == (chosen is None)
                if chosen is not None:
                    alone = quantization_config(chosen, [])["config_groups"]["group_0"]
                    assert given.format == alone["format"]
                    assert given.weights.num_bits == alone["weights"]["num_bits"]
                    assert (given.input_activations is None) == (chosen.activations == "bf16")
    assert not hasattr(model.get_submodule("lm_head"), "quantization_scheme")


def rules(plan):
    """What the library does not read, and so does not write again."""
    stored = plan_config(plan, HEAD)
    return {name: stored[name] for name in ("asterope", "transform_config")}


def test_several_storage_formats_are_called_mixed_precision():
    assert plan_config(MIXES["two formats"], HEAD)["format"] == "mixed-precision"
    same = plan_config(MIXES["activations differ"], HEAD)
    assert same["format"] == "nvfp4-pack-quantized"
    assert len(same["config_groups"]) == 3


def test_names_go_before_patterns_and_patterns_before_classes():
    stored = plan_config(mix("mxfp4 fp8/same mxfp8 none"), HEAD)
    first, second, third = stored["config_groups"].values()
    first["targets"] = ["Linear"]
    second["targets"] = [r"re:.*layers\.(0|1)\.mlp"]
    third["targets"] = ["model.layers.1.mlp.down_proj"]
    stored["ignore"] = [r"re:.*\.0\.self_attn\.o_proj$", "lm_head"]
    assert parse_plan(stored, 3) == mix(
        "mxfp4 none fp8/same fp8/same", "mxfp4 mxfp4 fp8/same mxfp8", "mxfp4 mxfp4 mxfp4 mxfp4"
    )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda c: group(c)["targets"].pop(), UnsupportedError, "up_proj are quantized differ"),
        (lambda c: group(c).update(targets="Linear"), CheckpointError, "targets: is not a list"),
        (lambda c: group(c).update(targets=["re:(a+)+b"]), UnsupportedError, "may take long"),
        (lambda c: group(c).update(targets=["re:" + ".*a" * 5]), UnsupportedError, "take long"),
        (lambda c: group(c).update(targets=["re:(("]), CheckpointError, "is no pattern"),
        (lambda c: c["config_groups"].update(group_1=3), CheckpointError, "not an object"),
        (lambda c: group(c)["weights"].update(type="int"), UnsupportedError, "group_1.weights"),
        (lambda c: c.update(ignore=["re:.*"]), CheckpointError, "targets no layer"),
        (lambda c: c.update(ignore=[1]), CheckpointError, "ignore"),
        (lambda c: c["asterope"].update(scale_rules={"group_0": "x"}), CheckpointError, "rule"),
        (lambda c: turned(c)[0].update(targets=["a"]), UnsupportedError, "apply: cannot be read"),
        (lambda c: [part.update(targets=["Linear"]) for part in turned(c)],
         UnsupportedError, "apply: cannot be read"),
        (lambda c: turned(c).clear(), UnsupportedError, "apply: cannot be read"),
        (lambda c: c.update(transform_config=3), CheckpointError, "transform_config"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(change, error, words):
    stored = copy.deepcopy(
        plan_config(mix("mxfp4+h none mxfp4+h fp8/same", "mxfp4+h none fp8/same mxfp4+h"), HEAD)
    )
    change(stored)
    with pytest.raises(error, match=words):
        parse_plan(stored, 2)


def group(config):
    return config["config_groups"]["group_1"]


def turned(config):
    return config["transform_config"]["config_groups"]["group_0"]["apply"]


def test_places_are_those_of_the_models():
    from asterope.llm import ModelConfig, projections
    from llm_checkpoints import raw_config

    found = projections(ModelConfig.from_dict(raw_config(), where=""))
    assert tuple(found) == PLACES
    assert {place: tuple(n for n, *_ in parts) for place, parts in found.items()} == dict(MODULES)

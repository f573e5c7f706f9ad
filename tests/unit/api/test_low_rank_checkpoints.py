"""Models with low-rank branches: made, saved, loaded, counted, timed."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import asterope as ast
from asterope.errors import ConfigError
from asterope.quant import PLACES, Mix, scheme
from llm_checkpoints import MIXTURES
from tokenized_checkpoint import SMALL, write_tokenized

TEXT = "def f(x):\n    return x + 1\n" * 30
MIXED = Mix((
    tuple(map(scheme, ("mxfp4+r4", "none", "mxfp4/fp8", "nvfp4/same+r8"))),
    tuple(map(scheme, ("mxfp4+r4", "mxfp4+h+r4", "mxfp4", "none"))),
))  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A checkpoint of two layers."""
    directory = tmp_path_factory.mktemp("two") / "two"
    return ast.load(write_tokenized(directory, {**SMALL, "num_hidden_layers": 2}), dtype="bfloat16")


@pytest.fixture(scope="module")
def svdquant(original, tmp_path_factory):
    """What the algorithm makes, and where it is saved."""
    made = original.quantize("mxfp4", algorithm="svdquant", calibration_windows=1)
    return made, made.save(tmp_path_factory.mktemp("saved") / "saved")


@pytest.mark.parametrize(
    ("plan", "method"),
    [
        pytest.param("nvfp4/same+r4", "modelopt", marks=pytest.mark.slow),
        pytest.param("mxfp4/same+r4", "compressed-tensors", marks=pytest.mark.slow),
        pytest.param(MIXED, "compressed-tensors", marks=pytest.mark.slow, id="mix"),
    ],
)
def test_a_checkpoint_with_branches_loads_back_identically(original, tmp_path, plan, method):
    made = original.quantize(plan, algorithm="mse", calibration_windows=1)
    again = ast.load(made.save(tmp_path / "saved"))
    stored = json.loads((tmp_path / "saved" / "config.json").read_text())["quantization_config"]
    assert stored["quant_method"] == method
    assert again.scheme == made.scheme
    assert again.model.weight_bytes == made.model.weight_bytes
    assert again.perplexity(TEXT) == made.perplexity(TEXT)
    shapes = ast.from_config(tmp_path / "saved")
    assert shapes.scheme == made.scheme
    assert shapes.weight_bytes == made.weight_bytes
    saved_again = again.save(tmp_path / "again") / "model.safetensors"
    assert saved_again.read_bytes() == (tmp_path / "saved" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["mxfp4/same+r4", "nvfp4/same+r4"])
def test_experts_with_branches_load_back_identically(tmp_path, plan):
    raw = {**SMALL, **MIXTURES["mixtral"], "model_type": "mixtral", "architectures": None}
    mixture = ast.load(write_tokenized(tmp_path / "mixture", raw), dtype="bfloat16")
    made = mixture.quantize(plan, algorithm="mse", calibration_windows=1)
    again = ast.load(made.save(tmp_path / "saved"))
    assert again.scheme == made.scheme
    assert again.perplexity(TEXT) == made.perplexity(TEXT)
    count = made.config.experts.count
    for place in PLACES:
        mine, read = (getattr(m.model.layers[0], place) for m in (made, again))
        assert mine.num_branches == (1 if place in {"qkv", "output"} else count)
        assert mine.tensors.keys() == read.tensors.keys()
        assert all(torch.equal(t, read.tensors[name]) for name, t in mine.tensors.items())
    shapes = ast.from_config(tmp_path / "saved")
    assert shapes.weight_bytes == made.weight_bytes == again.weight_bytes


def test_projections_that_are_run_as_one_share_the_first_factor(svdquant):
    made, directory = svdquant
    with ast.llm.open_tensors(directory) as files:
        firsts = [
            files.raw(f"model.layers.0.self_attn.{name}_proj.svdquant_lora_a") for name in "qkv"
        ]
    assert all(torch.equal(first, made.model.layers[0].qkv.lora_a) for first in firsts)


def test_the_algorithm_brings_its_rank_where_the_format_says_none(svdquant):
    made, _ = svdquant
    assert made.scheme == scheme("mxfp4+r32")
    assert {getattr(made.model.layers[1], place).scheme.rank for place in PLACES} == {32}


def test_branches_are_timed_and_counted():
    plain, branched = (
        ast.from_config("llama-3.1-8b").quantize(fmt) for fmt in ("mxfp4", "mxfp4+r32")
    )
    layers = plain.config.num_layers
    factors = sum(
        2 * 32 * (linear.out_features + linear.in_features)
        for linear in (getattr(branched.model.layers[0], place) for place in PLACES)
    )
    assert branched.weight_bytes == plain.weight_bytes + layers * factors
    for chip, fidelity in (("maia200", "roofline"), ("h100", "operator")):
        steps = [m.simulate(chip, context=64, fidelity=fidelity).step for m in (plain, branched)]
        assert steps[1].time_s > steps[0].time_s
        products = [sum(1 for launch in step.launches if launch.result.flop) for step in steps]
        assert products[1] == products[0] + layers * len(PLACES) * 2


def test_what_has_no_branch_says_so(original):
    with pytest.raises(ConfigError, match="svdquant"):
        original.quantize("mxfp4+r4")
    with pytest.raises(ConfigError, match="two more products"):
        ast.api.time_product(ast.chips.get("maia200"), 8, 64, 64, scheme("mxfp4+r32"))


def test_a_rank_that_is_lost_is_missed(svdquant, tmp_path):
    shutil.copytree(svdquant[1], tmp_path / "copy")
    config = tmp_path / "copy" / "config.json"
    stored = json.loads(config.read_text())
    del stored["quantization_config"]["asterope"]["rank"]
    config.write_text(json.dumps(stored))
    with pytest.raises(ast.errors.CheckpointError, match="no rank"):
        ast.load(config.parent)

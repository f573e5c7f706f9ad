"""Checkpoints written by the tools themselves (`tools/write_foreign_checkpoints.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import asterope as ast
from asterope.llm import projections
from asterope.quant import split

FILES = Path(__file__).parents[2] / "data" / "foreign"
# The tools multiply scales in another order, or round what they read to bf16.
TOLERANCE = {"nvfp4": 2**-22, "quark_fp8": 2**-8, "fp8": 0.0, "mxfp4": 0.0}
SCHEMES = {
    "modelopt_fp8": "fp8_tensor/fp8",
    "modelopt_fp8_rows": "fp8_row/fp8",
    "modelopt_nvfp4": "nvfp4/nvfp4",
    "modelopt_w4a8_nvfp4_fp8": "nvfp4/fp8",
    "quark_fp8": "fp8_tensor/fp8",
    "quark_fp8_rows": "fp8_row",
    "quark_mxfp4": "mxfp4/mxfp4",
}


def weights(model):
    """Each projection's weight by its name in a checkpoint."""
    for index, layer in enumerate(model.layers):
        for place, pieces in projections(model.config).items():
            parts = split(getattr(layer, place), [n for _, n, _, _ in pieces])
            for (name, *_), part in zip(pieces, parts, strict=True):
                yield f"model.layers.{index}.{name}.weight", part.dequantize()


@pytest.mark.parametrize(("name", "scheme"), SCHEMES.items())
def test_weights_are_those_that_the_tool_reads(name, scheme, tmp_path):
    model = ast.load(FILES / name)
    assert model.scheme.name == scheme
    wanted = load_file(FILES / f"{name}.expected.safetensors")
    tolerance = next(limit for key, limit in TOLERANCE.items() if key in name)
    for found in (model, ast.load(model.save(tmp_path / "ours"))):
        read = dict(weights(found.model))
        assert read.keys() == wanted.keys()
        for key, weight in read.items():
            torch.testing.assert_close(weight, wanted[key], rtol=tolerance, atol=0)


def test_projections_that_are_fused_have_global_scales_of_their_own_or_one():
    """Model Optimizer gives q, k and v one, and o another."""
    layer = ast.load(FILES / "modelopt_nvfp4").model.layers[0]
    assert len(layer.qkv.row_scale.unique()) == 1
    assert not torch.equal(layer.qkv.row_scale[:1], layer.output.row_scale[:1])


def test_every_file_is_tested():
    assert sorted(path.name for path in FILES.iterdir() if path.is_dir()) == sorted(SCHEMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
def test_transformers_loads_what_is_saved(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    ast.load(FILES / name).save(tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.bfloat16
    )
    with torch.no_grad():
        theirs(torch.arange(8)[None])  # which decompresses
    for key, wanted in load_file(FILES / f"{name}.expected.safetensors").items():
        found = theirs.get_parameter(key).float()
        torch.testing.assert_close(found, wanted, rtol=2**-7, atol=0)

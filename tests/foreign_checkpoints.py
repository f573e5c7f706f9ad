"""Whole checkpoints in the layouts of other tools, and the same weights unquantized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foreign_weights import fp8, mx, nvfp4
from llm_checkpoints import tensors_of
from tokenized_checkpoint import SMALL, write_tokenized

__all__ = ["FOREIGN", "Foreign", "write_both"]


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A tool's `quantization_config`, and how it stores a layer of [n, k]."""

    config: dict
    layer: object
    weights: str
    activations: str


def modelopt_nvfp4(rng, n, k):
    upper = float(np.float32(rng.uniform(1e-4, 3e-4)))
    codes, scales, weight = nvfp4(rng, n, k, upper=upper)
    stored = {
        "weight": codes, "weight_scale": scales, "weight_scale_2": torch.tensor(upper),
        "input_scale": torch.tensor(0.01),
    }  # fmt: skip
    return stored, weight


def modelopt_fp8(rng, n, k):
    scale = np.float32(rng.uniform(0.5e-3, 2e-3))
    codes, weight = fp8(rng, n, k, scales=scale)
    scales = {key: torch.tensor(float(scale)) for key in ("weight_scale", "input_scale")}
    return {"weight": codes, **scales}, weight


def modelopt_mxfp4(rng, n, k):
    codes, scales, weight = mx(rng, n, k, element="e2m1")
    return {"weight": codes, "weight_scale": scales}, weight


def modelopt(algorithm):
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"]}


FOREIGN = {
    "modelopt-nvfp4": Foreign(
        config=modelopt("W4A16_NVFP4"), layer=modelopt_nvfp4, weights="nvfp4", activations="bf16"
    ),
    "modelopt-fp8": Foreign(
        config=modelopt("FP8"), layer=modelopt_fp8, weights="fp8_tensor", activations="fp8"
    ),
    "modelopt-mxfp4": Foreign(
        config=modelopt("W4A8_MXFP4_FP8"), layer=modelopt_mxfp4, weights="mxfp4",
        activations="fp8",
    ),
}  # fmt: skip


def write_both(directory: Path, foreign: Foreign, *, kept: tuple[str, ...] = ()):
    """Write a checkpoint of the tool and one of the weights it stands for; return both.

    Layers in `kept` are left as they are.
    """
    rng = np.random.default_rng(0)
    tensors = tensors_of(SMALL)
    quantized = dict(tensors)
    for full in [name for name in tensors if name.endswith("_proj.weight")]:
        name = full.removesuffix(".weight")
        if name in kept:
            continue
        del quantized[full]
        stored, tensors[full] = foreign.layer(rng, *tensors[full].shape)
        quantized |= {f"{name}.{key}": tensor for key, tensor in stored.items()}
    raw = {**SMALL, "quantization_config": foreign.config}
    return (
        write_tokenized(directory / "theirs", raw, tensors=quantized),
        write_tokenized(directory / "plain", SMALL, tensors=tensors),
    )

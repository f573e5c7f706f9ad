"""Whole checkpoints in the layouts of other tools, and the same weights unquantized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foreign_weights import fp8, mx, nvfp4
from llm_checkpoints import tensors_of
from tokenized_checkpoint import SMALL, write_tokenized

__all__ = ["FOREIGN", "QUARK_MX", "TORCHAO", "Foreign", "quark", "quark_spec", "write_both"]


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
    scales = {"weight_scale": torch.tensor(float(scale)), "input_scale": torch.tensor(0.2)}
    return {"weight": codes, **scales}, weight


def scales_of_blocks(rng, n, k):
    """Scales of 128 x 128, of which those at the edge are smaller, and one an element."""
    scales = rng.uniform(0.5e-3, 2e-3, (-(-n // 128), -(-k // 128))).astype(np.float32)
    return scales, np.repeat(np.repeat(scales, 128, 0), 128, 1)[:n, :k]


def fp8_blocks(rng, n, k):
    scales, wide = scales_of_blocks(rng, n, k)
    codes, weight = fp8(rng, n, k, scales=wide)
    return {"weight": codes, "weight_scale_inv": torch.from_numpy(scales)}, weight


def fp8_rows(rng, n, k):
    scales = rng.uniform(0.5e-3, 2e-3, (n, 1)).astype(np.float32)
    codes, weight = fp8(rng, n, k, scales=scales)
    return {"weight": codes, "weight_scale": torch.from_numpy(scales)}, weight


def mx_blocks(element):
    def layer(rng, n, k):
        codes, scales, weight = mx(rng, n, k, element=element)
        stored = {"weight": codes, "weight_scale": scales, "input_scale": torch.tensor(0.2)}
        return stored, weight

    return layer


def quark(weight, inputs=None):
    one = {"output_tensors": None, "bias": None, "target_device": None}
    return {
        "quant_method": "quark",
        "global_quant_config": {"weight": weight, "input_tensors": inputs, **one},
        "layer_quant_config": {},
        "layer_type_quant_config": {},
        "exclude": ["lm_head"],
        "algo_config": None,
        "softmax_quant_spec": None,
        "export": {"kv_cache_group": [], "min_kv_scale": 0.0, "pack_method": "reorder",
                   "weight_format": "real_quantized", "weight_merge_groups": None},
    }  # fmt: skip


def quark_spec(dtype, qscheme, **more):
    return {
        "dtype": dtype, "qscheme": qscheme, "is_dynamic": False, "ch_axis": None,
        "group_size": None, "symmetric": None, "round_method": "half_even", "scale_type": "float",
        "scale_format": None, "scale_calculation_mode": None, "mx_element_dtype": None,
        "observer_cls": "PerTensorMinMaxObserver", "is_scale_quant": False, **more,
    }  # fmt: skip


QUARK_MX = {
    "group_size": 32, "ch_axis": -1, "scale_format": "e8m0", "scale_calculation_mode": "even",
    "observer_cls": "PerBlockMXObserver",
}  # fmt: skip


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
        config=modelopt("W4A8_MXFP4_FP8"), layer=mx_blocks("e2m1"), weights="mxfp4",
        activations="fp8",
    ),
    "fp8-blocks": Foreign(
        config={
            "quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
            "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"],
        },
        layer=fp8_blocks, weights="fp8_block128", activations="same",
    ),
    "fp8-tensors": Foreign(
        config={"quant_method": "fp8", "activation_scheme": "static"},
        layer=modelopt_fp8, weights="fp8_tensor", activations="fp8",
    ),
    "fbgemm": Foreign(
        config={"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0,
                "modules_to_not_convert": ["lm_head"]},
        layer=fp8_rows, weights="fp8_row", activations="fp8",
    ),
    "quark-mxfp4": Foreign(
        config=quark(quark_spec("fp4", "per_group", **QUARK_MX),
                     quark_spec("fp4", "per_group", **QUARK_MX | {"is_dynamic": True})),
        layer=mx_blocks("e2m1"), weights="mxfp4", activations="same",
    ),
    "quark-fp8": Foreign(
        config=quark(quark_spec("fp8_e4m3", "per_tensor"), quark_spec("fp8_e4m3", "per_tensor")),
        layer=modelopt_fp8, weights="fp8_tensor", activations="fp8",
    ),
}  # fmt: skip


TORCHAO = {
    "quant_method": "torchao",
    "quant_type": {
        "default": {
            "_type": "MXDynamicActivationMXWeightConfig",
            "_version": 1,
            "_data": {
                "block_size": 32,
                "activation_dtype": {"_type": "torch.dtype", "_data": "float4_e2m1fn_x2"},
                "weight_dtype": {"_type": "torch.dtype", "_data": "float4_e2m1fn_x2"},
                "kernel_preference": {"_type": "KernelPreference", "_data": "AUTO"},
                "scaling_mode": {"_type": "ScaleCalculationMode", "_data": "RCEIL"},
            },
        }
    },
    "modules_to_not_convert": None,
}


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

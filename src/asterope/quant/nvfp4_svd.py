"""Write what Model Optimizer calls NVFP4_SVD: nvfp4 on both sides, beside a low-rank branch.

| tensor | what |
|---|---|
| `weight` uint8 [N, K / 2], `weight_scale` e4m3 [N, K / 16] | the rest of the weight |
| `weight_scale_2` float32 [] | its upper scale |
| `input_scale` float32 [] | the static upper scale of inputs |
| `svdquant_lora_a` bf16 [rank, K], `svdquant_lora_b` bf16 [N, rank] | the branch |

Value = code x weight_scale x weight_scale_2. There is no `pre_quant_scale`: what inputs are divided
by is in the norm or the projection before.

Source: nvidia-modelopt 0.47, `torch/export/convert_hf_config.py`, `torch/export/quant_utils.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from asterope.errors import FormatError
from asterope.quant.linear import QuantizedLinear
from asterope.quant.mix import Plan
from asterope.quant.scheme import Scheme
from asterope.quant.stored_branch import branch_tensors

__all__ = ["is_nvfp4_svd", "nvfp4_svd_config", "nvfp4_svd_tensors"]

_WEIGHTS = "nvfp4"


def is_nvfp4_svd(plan: Plan | None) -> bool:
    """Tell whether a model that is quantized so is what that name means."""
    if not isinstance(plan, Scheme) or plan.rank is None:
        return False
    return plan == Scheme(weights=_WEIGHTS, activations="same", rank=plan.rank)


def nvfp4_svd_config(scheme: Scheme, ignore: Sequence[str]) -> dict[str, Any]:
    """Return the `quantization_config` of a checkpoint; `ignore` names layers left as they were."""
    assert scheme.format is not None
    kind = {
        "dynamic": False, "num_bits": scheme.format.element.bits, "type": "float",
        "group_size": scheme.format.granularity,
    }  # fmt: skip
    group = {
        "weights": kind, "input_activations": dict(kind), "has_zero_point": False,
        "pre_quant_scale": False, "lora_rank": scheme.rank, "targets": ["Linear"],
    }  # fmt: skip
    return {
        "quant_method": "modelopt", "quant_algo": "NVFP4_SVD", "config_groups": {"group_0": group},
        "ignore": list(ignore),
    }  # fmt: skip


def nvfp4_svd_tensors(name: str, layer: QuantizedLinear) -> dict[str, torch.Tensor]:
    """Return the tensors that a checkpoint stores for the layer called `name`.

    Raises: FormatError for inputs without a static scale, or rows of different upper scales.
    """
    if layer.input_scale is None:
        raise FormatError("its inputs have no static scale, and NVFP4_SVD asks for one", where=name)
    upper = layer.tensors["row_scale"]
    if not torch.equal(upper, upper[:1].expand_as(upper)):
        raise FormatError(
            "rows have different upper scales", where=name,
            hint="store the layers that were concatenated one by one: split(layer, sizes)",
        )  # fmt: skip
    tensors = {
        "weight": layer.codes, "weight_scale": layer.tensors["scales"], "weight_scale_2": upper[0],
        "input_scale": torch.tensor(layer.input_scale), **branch_tensors(layer),
    }  # fmt: skip
    if layer.bias is not None:
        tensors["bias"] = layer.bias
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}

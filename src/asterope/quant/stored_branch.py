"""The low-rank branch of a layer in a checkpoint, under the names of Model Optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from asterope.errors import CheckpointError
from asterope.quant.linear import QuantizedLinear
from asterope.quant.stored import take

__all__ = ["branch_tensors", "stored_branch"]

_FIRST, _SECOND = "svdquant_lora_a", "svdquant_lora_b"


def branch_tensors(layer: QuantizedLinear) -> dict[str, torch.Tensor]:
    """Return the factors of a layer's branch by what comes behind its name; none without one."""
    if layer.lora_a is None or layer.lora_b is None:
        return {}
    return {_FIRST: layer.lora_a, _SECOND: layer.lora_b}


def stored_branch(
    name: str, tensors: Mapping[str, torch.Tensor], layer: QuantizedLinear, rank: int | None
) -> QuantizedLinear:
    """Return a layer with the branch of that rank that is stored beside it.

    Raises: CheckpointError for a factor that is missing, of another type or shape, or not finite,
    and for one that is there without a rank.
    """
    keys = [f"{name}.{_FIRST}", f"{name}.{_SECOND}"]
    if rank is None:
        for key in keys:
            if key in tensors:
                raise CheckpointError(
                    "is a branch, and quantization_config says of none", where=key
                )
        return layer
    shapes = ((rank, layer.in_features), (layer.out_features, rank))
    first, second = (
        take(tensors, key, (torch.bfloat16,), (shape,))
        for key, shape in zip(keys, shapes, strict=True)
    )
    for key, factor in zip(keys, (first, second), strict=True):
        if not bool(torch.isfinite(factor).all()):
            raise CheckpointError("is not finite", where=key)
    scheme = dataclasses.replace(layer.scheme, rank=rank)
    return dataclasses.replace(layer, scheme=scheme, lora_a=first, lora_b=second)

"""gpt-oss: `quant_method` "mxfp4", MXFP4 experts stored `[experts, rows, K / 32, 16]`.

The model around them is a mixture of experts, which is not run; their weights are converted.

Source: transformers 5, `integrations/mxfp4.py` (`convert_moe_packed_tensors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch

from asterope.errors import CheckpointError, UnsupportedError
from asterope.quant.linear import QuantizedLinear
from asterope.quant.scheme import Scheme
from asterope.quant.stored import Places, stored_layer, take

__all__ = ["experts_from_blocks", "refuse_mxfp4"]

_AXES, _BLOCK_BYTES = 4, 16


def refuse_mxfp4(config: Mapping[str, Any]) -> NoReturn:
    """Say what is missing for a whole model.

    Raises: UnsupportedError, always.
    """
    raise UnsupportedError(
        "the checkpoint is a mixture of experts (gpt-oss): routing tokens to experts and attention "
        "sinks are not there",
        where="quantization_config.quant_method",
        hint="asterope.quant.experts_from_blocks reads its expert weights",
    )


def experts_from_blocks(
    name: str, tensors: Mapping[str, torch.Tensor]
) -> tuple[QuantizedLinear, ...]:
    """Return one layer an expert, out of `NAME_blocks` and `NAME_scales`, without activations.

    Row r of expert e is what a linear layer multiplies inputs by to get output r. transformers'
    own dequantization gives the transpose.

    Shapes: blocks uint8 [E, N, K / 32, 16], the even element of two in the low half of a byte;
    scales uint8 (E8M0) [E, N, K / 32].
    Raises: CheckpointError for a tensor that is missing, of another type or shape, or holds NaN.
    """
    places = Places(codes=f"{name}_blocks", scales=f"{name}_scales")
    blocks = take(tensors, places.codes, (torch.uint8,))
    if blocks.dim() != _AXES or blocks.shape[-1] != _BLOCK_BYTES:
        raise CheckpointError(
            f"has shape {list(blocks.shape)}, not [experts, rows, K / 32, {_BLOCK_BYTES}]",
            where=places.codes,
        )
    experts, rows, groups, _ = blocks.shape
    scales = take(tensors, places.scales, (torch.uint8,), ((experts, rows, groups),))
    scheme = Scheme(weights="mxfp4")
    return tuple(
        stored_layer(
            {
                places.codes: blocks[expert].reshape(rows, groups * _BLOCK_BYTES),
                places.scales: scales[expert],
            },
            scheme,
            places,
        )
        for expert in range(experts)
    )

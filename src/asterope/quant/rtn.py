"""Round to nearest: quantize a weight as it is, without calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from asterope.errors import CheckpointError, ConfigError, FormatError
from asterope.formats import ScaleRule, global_scale_of, quantize
from asterope.quant.linear import QuantizedLinear, from_quantized, storable
from asterope.quant.rotation import rotate_rows
from asterope.quant.scheme import Scheme

__all__ = ["check_no_branch", "check_weight", "common_amax", "quantize_weight"]

_WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def quantize_weight(
    weight: torch.Tensor,
    scheme: Scheme,
    *,
    name: str,
    bias: torch.Tensor | None = None,
    amax: float | None = None,
) -> QuantizedLinear:
    """Quantize the weight of a linear layer, each element to the nearest, ties to even.

    `amax` replaces the weight's largest magnitude where a global scale follows from it (nvfp4).
    Layers that an engine fuses, such as q, k and v, should be given the largest of all: vLLM keeps
    one global scale for them (`common_amax`).

    Shapes: weight [N, K], float32, bf16 or fp16; bias [N].
    Raises: CheckpointError for NaN or infinity, with its place; ShapeError if the block does not
    divide K; FormatError for another type. Each names the tensor. ConfigError for a scheme with a
    branch.
    Cost: one read of the weight, two with scales of rows, tensors and two levels.
    """
    _check_dtype(weight, name)
    check_no_branch(scheme)
    scheme.check_shape(weight.shape, name)
    weight, fmt = weight.detach(), scheme.format
    if fmt is None:
        _largest(weight, name)
        return QuantizedLinear(scheme=scheme, codes=weight, bias=bias)
    if scheme.rotation is not None:
        _largest(weight, name)
        weight = rotate_rows(weight, scheme.rotation)
    global_scale = None
    if scheme.rule == ScaleRule.TWO_LEVEL:
        largest = _largest(weight, name)
        global_scale = float(storable(global_scale_of(largest if amax is None else amax, fmt)))
    q = quantize(
        _to_numpy(weight),
        fmt,
        rule=scheme.rule,
        global_scale=global_scale,
        packed=fmt.element.name == "e2m1",
    )
    marks = np.isnan(q.scales) if q.scales.dtype == np.float32 else q.scales == fmt.scale.nan_code
    if marks.any():
        raise _not_finite(weight, name)
    return from_quantized(q, scheme, bias=bias)


def common_amax(weights: Iterable[torch.Tensor], scheme: Scheme) -> float | None:
    """Return the largest magnitude of weights that engines fuse, if a scale follows from it.

    Shapes: weights [N, K] each.
    """
    if scheme.rule != ScaleRule.TWO_LEVEL:
        return None
    size = scheme.rotation
    turned = (w if size is None else rotate_rows(w, size) for w in weights)
    return max(float(weight.abs().max()) for weight in turned)


def check_no_branch(scheme: Scheme) -> None:
    """Check that a scheme has no low-rank branch, where inputs are not known.

    Raises: ConfigError.
    """
    if scheme.rank is not None:
        raise ConfigError(
            "a low-rank branch is fitted to the inputs of a layer", where=f"format {scheme.name}",
            hint="quantize by what looks at text: asterope quantize --algorithm svdquant",
        )  # fmt: skip


def check_weight(weight: torch.Tensor, name: str) -> None:
    """Check that a weight is of a type that is quantized, and finite.

    Raises: CheckpointError, FormatError, naming it.
    """
    _check_dtype(weight, name)
    _largest(weight, name)


def _check_dtype(weight: torch.Tensor, name: str) -> None:
    if weight.dtype not in _WEIGHT_DTYPES:
        raise FormatError(
            f"weights are {weight.dtype}; float32, bfloat16 or float16 is needed", where=name
        )


def _largest(weight: torch.Tensor, name: str) -> float:
    """Return the largest magnitude; raise CheckpointError if it is not finite."""
    low, high = (float(end) for end in torch.aminmax(weight))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise _not_finite(weight, name)
    return max(-low, high)


def _not_finite(weight: torch.Tensor, name: str) -> CheckpointError:
    """Return the error that says where the first NaN or infinity is, and how many there are."""
    places = torch.nonzero(~torch.isfinite(weight))
    first = [int(i) for i in places[0]]
    more = f", the first of {len(places)}" if len(places) > 1 else ""
    return CheckpointError(
        f"element {first} is {float(weight[tuple(first)])}{more}",
        where=name,
        hint="the checkpoint is damaged or its training diverged; finite weights are needed",
    )


def _to_numpy(weight: torch.Tensor) -> npt.NDArray[Any]:
    """Return the weight as an array on the same memory."""
    weight = weight.cpu().contiguous()
    if weight.dtype != torch.bfloat16:
        array: npt.NDArray[Any] = weight.numpy()
        return array
    bits: npt.NDArray[Any] = weight.view(torch.uint16).numpy()
    return bits.view(ml_dtypes.bfloat16)

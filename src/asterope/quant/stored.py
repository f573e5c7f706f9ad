"""The parts of a quantized weight under the names of some layout, as a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from asterope.errors import CheckpointError
from asterope.formats import BlockFormat, QuantizedTensor, ScaleRule
from asterope.quant.linear import QuantizedLinear, from_quantized, reciprocal
from asterope.quant.scheme import Scheme

__all__ = ["REAL_DTYPES", "Places", "stored_layer", "take"]

REAL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_E4M3_NAN = 0x7F
_SMALLEST_GLOBAL = 2.0**-126


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The names of a weight's tensors: codes, scales, and the scale above those of blocks.

    Value = code x scale x upper, or, where `upper_divides`, code x scale / upper. An upper scale
    that a layout may leave out, `upper_is_optional`, is 1. `inputs` is the static scale of inputs,
    if they have one: code x scale, or, where `inputs_divide`, code / scale.
    """

    codes: str
    scales: str
    upper: str = ""
    upper_divides: bool = False
    upper_is_optional: bool = False
    inputs: str = ""
    inputs_divide: bool = False
    bias: str = ""


def stored_layer(
    tensors: Mapping[str, torch.Tensor], scheme: Scheme, places: Places
) -> QuantizedLinear:
    """Return the layer whose tensors are at those places; others are not looked at.

    Codes of 4 and 6 bits are packed along K from the lowest bit up. Scales of E8M0 are bytes or
    float8_e8m0fnu; others are e4m3 or, of rows and tensors, real numbers.

    Raises: CheckpointError for a tensor that is missing, of another type or shape, or holds NaN or
    a negative scale; ShapeError if the block does not divide K. Each names the tensor.
    """
    fmt, key = scheme.format, places.codes
    assert fmt is not None
    packed = fmt.element.bits < 8
    codes = take(tensors, key, (torch.uint8 if packed else torch.float8_e4m3fn,))
    n, width = codes.shape if codes.dim() == 2 else (0, 0)
    shape = (n, width * 8 // fmt.element.bits)
    scheme.check_shape(shape, key)
    codes = codes.view(torch.uint8)
    if not packed:
        _check_codes(codes & _E4M3_NAN, _E4M3_NAN - 1, key)
    upper = _upper(tensors, places) if fmt.two_level else None
    bias = None
    if places.bias and places.bias in tensors:
        bias = take(tensors, places.bias, REAL_DTYPES, ((n,),))
    q = QuantizedTensor(
        codes=codes.numpy(),
        scales=_scales(tensors, places.scales, fmt, shape).numpy(),
        global_scale=upper,
        format=fmt,
        rule=ScaleRule(str(scheme.rule)),
        rounding="nearest_even",
        axis=1,
        seed=None,
        packed=packed,
    )
    layer = from_quantized(q, scheme, bias=bias)
    if not places.inputs:
        return layer
    inputs = _one_scale(tensors, places.inputs, divides=places.inputs_divide)
    return dataclasses.replace(layer, input_scale=float(inputs))


def take(
    tensors: Mapping[str, torch.Tensor],
    key: str,
    dtypes: tuple[torch.dtype, ...],
    shapes: tuple[tuple[int, ...], ...] = (),
) -> torch.Tensor:
    """Return a tensor of one of the types and, if any are given, shapes.

    Raises: CheckpointError naming it.
    """
    tensor = tensors.get(key)
    if tensor is None:
        raise CheckpointError("is missing from the checkpoint", where=key)
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise CheckpointError(f"is {tensor.dtype}, not {wanted}", where=key)
    if shapes and tuple(tensor.shape) not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise CheckpointError(f"has shape {list(tensor.shape)}, not {wanted}", where=key)
    return tensor


def _scales(
    tensors: Mapping[str, torch.Tensor], key: str, fmt: BlockFormat, shape: tuple[int, int]
) -> torch.Tensor:
    """Return codes of block scales, or float32 scales of rows or the tensor with two axes."""
    n, k = shape
    if isinstance(fmt.granularity, int):
        is_power = fmt.scale.name == "e8m0"
        dtypes = (torch.uint8, torch.float8_e8m0fnu) if is_power else (torch.float8_e4m3fn,)
        codes = take(tensors, key, dtypes, ((n, k // fmt.granularity),)).view(torch.uint8)
        _check_codes(codes, fmt.scale.max_code, key)
        return codes
    if isinstance(fmt.granularity, tuple):
        tall, wide = fmt.granularity
        blocks = (-(-n // tall), -(-k // wide))
        return _real_scales(take(tensors, key, REAL_DTYPES, (blocks,)), key)
    shapes = ((n, 1), (n,)) if fmt.granularity == "row" else ((1,), (), (1, 1))
    return _real_scales(take(tensors, key, REAL_DTYPES, shapes).reshape(-1, 1), key)


def _real_scales(stored: torch.Tensor, key: str) -> torch.Tensor:
    values = stored.float()
    bad = ~(torch.isfinite(values) & (values >= 0))
    if bad.any():
        place = [int(i) for i in torch.nonzero(bad)[0]]
        at = place[0] if values.shape[1] == 1 else place
        raise CheckpointError(f"scale {at} is {float(values[tuple(place)])}", where=key)
    return values


def _check_codes(codes: torch.Tensor, largest: int, key: str) -> None:
    """Check that no code is above the one of the largest number: those are NaN, or negative."""
    bad = codes > largest
    if bad.any():
        place = [int(i) for i in torch.nonzero(bad)[0]]
        raise CheckpointError(f"the code at {place} is NaN, or negative in a scale", where=key)


def _upper(tensors: Mapping[str, torch.Tensor], places: Places) -> np.float32:
    """Return what the block scales are multiplied by."""
    if places.upper_is_optional and places.upper not in tensors:
        return np.float32(1)
    return _one_scale(tensors, places.upper, divides=places.upper_divides)


def _one_scale(tensors: Mapping[str, torch.Tensor], key: str, *, divides: bool) -> np.float32:
    value = float(take(tensors, key, REAL_DTYPES, ((1,), (), (1, 1))))
    if not _SMALLEST_GLOBAL <= value <= 1 / _SMALLEST_GLOBAL:
        raise CheckpointError(
            f"{value} is outside {_SMALLEST_GLOBAL:.3g}..{1 / _SMALLEST_GLOBAL:.3g}", where=key
        )
    return reciprocal(value) if divides else np.float32(value)

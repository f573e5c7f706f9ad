"""The tensors of one layer in a checkpoint of the compressed-tensors layout.

| weights | tensors beside an optional `bias` |
|---|---|
| fp8_tensor | `weight` e4m3 [N, K], `weight_scale` float32 [1] |
| fp8_row | `weight` e4m3 [N, K], `weight_scale` float32 [N, 1] |
| mxfp8 | `weight` e4m3 [N, K], `weight_scale` uint8 (E8M0) [N, K / 32] |
| mxfp6, mxfp4, mxfp4_e1m2 | `weight_packed` uint8 [N, K x bits / 8], `weight_scale` as mxfp8 |
| nvfp4 | `weight_packed`, `weight_scale` e4m3 [N, K / 16], `weight_global_scale` float32 [1] |

`weight_global_scale` divides: value = code x weight_scale / weight_global_scale. Packed codes run
from the lowest bit up, so the even one of two 4-bit codes is in the low half of its byte.
mxfp4_e1m2 is an extension of Asterope; the others are read by compressed-tensors 0.20.

Source: compressed-tensors 0.20, `compressors/`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from asterope.errors import CheckpointError, FormatError
from asterope.formats import BlockFormat, QuantizedTensor, ScaleRule, pack
from asterope.quant.linear import QuantizedLinear, from_quantized, reciprocal
from asterope.quant.recode import from_e4m3
from asterope.quant.scheme import Scheme

__all__ = ["from_tensors", "to_tensors"]

_REAL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_E4M3_NAN = 0x7F
_SMALLEST_DIVISOR = 2.0**-126


def to_tensors(name: str, layer: QuantizedLinear) -> dict[str, torch.Tensor]:
    """Return the tensors that a checkpoint stores for the layer called `name`.

    Raises: FormatError if rows have different scales where the format has one for the tensor:
    concatenated layers are stored one by one.
    """
    tensors = _weight_tensors(name, layer)
    if layer.bias is not None:
        tensors["bias"] = layer.bias
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}


def _weight_tensors(name: str, layer: QuantizedLinear) -> dict[str, torch.Tensor]:
    fmt = layer.scheme.format
    if fmt is None:
        return {"weight": layer.codes}
    if layer.scales is None:
        scale = _one_scale(name, layer) if fmt.granularity == "tensor" else _row_scale(layer)
        return {"weight": layer.codes, "weight_scale": scale}
    if fmt.element.name == "e4m3":
        return {"weight": layer.codes, "weight_scale": layer.scales}
    tensors = {"weight_packed": _packed(layer, fmt), "weight_scale": layer.scales}
    if fmt.two_level:
        divisor = reciprocal(float(_one_scale(name, layer)))
        tensors["weight_global_scale"] = torch.tensor([divisor], dtype=torch.float32)
    return tensors


def _packed(layer: QuantizedLinear, fmt: BlockFormat) -> torch.Tensor:
    if fmt.element.name == "e2m1":
        return layer.codes
    codes = from_e4m3(layer.codes.view(torch.uint8).numpy(), fmt.element)
    return torch.from_numpy(pack(codes, fmt.element))


def _row_scale(layer: QuantizedLinear) -> torch.Tensor:
    return layer.tensors["row_scale"][:, None]


def _one_scale(name: str, layer: QuantizedLinear) -> torch.Tensor:
    scales = layer.tensors["row_scale"]
    if not torch.equal(scales, scales[:1].expand_as(scales)):
        raise FormatError(
            f"rows have different scales, and {layer.scheme.weights} has one for the tensor",
            where=name,
            hint="store the layers that were concatenated one by one: split(layer, sizes)",
        )
    return scales[:1]


def from_tensors(name: str, tensors: Mapping[str, torch.Tensor], scheme: Scheme) -> QuantizedLinear:
    """Return the layer called `name` from the tensors of a checkpoint; others are not looked at.

    Scales of inputs are not used: activations are quantized with scales of their own.

    Raises: CheckpointError for a tensor that is missing, of another type or shape, or holds NaN or
    a negative scale; ShapeError if the block does not divide K. Each names the tensor.
    """
    fmt = scheme.format
    if fmt is None:
        codes = _take(tensors, f"{name}.weight", _REAL_DTYPES)
        scheme.check_shape(codes.shape, f"{name}.weight")
        return QuantizedLinear(scheme=scheme, codes=codes, bias=_bias(tensors, name, len(codes)))
    packed = fmt.element.bits < 8
    key = f"{name}.weight_packed" if packed else f"{name}.weight"
    codes = _take(tensors, key, (torch.uint8 if packed else torch.float8_e4m3fn,))
    n, width = codes.shape if codes.dim() == 2 else (0, 0)
    k = width * 8 // fmt.element.bits
    scheme.check_shape((n, k), key)
    codes = codes.view(torch.uint8)
    if not packed:
        _check_codes(codes & _E4M3_NAN, _E4M3_NAN - 1, key)
    q = QuantizedTensor(
        codes=codes.numpy(),
        scales=_scales(tensors, name, fmt, (n, k)).numpy(),
        global_scale=_global_scale(tensors, name) if fmt.two_level else None,
        format=fmt,
        rule=ScaleRule(str(scheme.rule)),
        rounding="nearest_even",
        axis=1,
        seed=None,
        packed=packed,
    )
    return from_quantized(q, scheme, bias=_bias(tensors, name, n))


def _take(
    tensors: Mapping[str, torch.Tensor],
    key: str,
    dtypes: tuple[torch.dtype, ...],
    shapes: tuple[tuple[int, ...], ...] = (),
) -> torch.Tensor:
    """Return a tensor of one of the types and, if any are given, shapes."""
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


def _bias(tensors: Mapping[str, torch.Tensor], name: str, n: int) -> torch.Tensor | None:
    key = f"{name}.bias"
    return _take(tensors, key, _REAL_DTYPES, ((n,),)) if key in tensors else None


def _scales(
    tensors: Mapping[str, torch.Tensor], name: str, fmt: BlockFormat, shape: tuple[int, int]
) -> torch.Tensor:
    """Return codes of block scales, or float32 scales of rows or the tensor with two axes."""
    key, (n, k) = f"{name}.weight_scale", shape
    if isinstance(fmt.granularity, int):
        dtype = torch.uint8 if fmt.scale.name == "e8m0" else torch.float8_e4m3fn
        codes = _take(tensors, key, (dtype,), ((n, k // fmt.granularity),)).view(torch.uint8)
        _check_codes(codes, fmt.scale.max_code, key)
        return codes
    shapes = ((n, 1), (n,)) if fmt.granularity == "row" else ((1,), (), (1, 1))
    values = _take(tensors, key, _REAL_DTYPES, shapes).float().reshape(-1, 1)
    bad = ~(torch.isfinite(values) & (values >= 0))
    if bad.any():
        row = int(torch.nonzero(bad)[0, 0])
        raise CheckpointError(f"scale {row} is {float(values[row])}", where=key)
    return values


def _check_codes(codes: torch.Tensor, largest: int, key: str) -> None:
    """Check that no code is above the one of the largest number: those are NaN, or negative."""
    bad = codes > largest
    if bad.any():
        place = [int(i) for i in torch.nonzero(bad)[0]]
        raise CheckpointError(f"the code at {place} is NaN, or negative in a scale", where=key)


def _global_scale(tensors: Mapping[str, torch.Tensor], name: str) -> np.float32:
    """Return what the block scales are multiplied by: the reciprocal of what is stored."""
    key = f"{name}.weight_global_scale"
    divisor = float(_take(tensors, key, _REAL_DTYPES, ((1,), (), (1, 1))))
    if not _SMALLEST_DIVISOR <= divisor <= 1 / _SMALLEST_DIVISOR:
        raise CheckpointError(
            f"{divisor} is outside {_SMALLEST_DIVISOR:.3g}..{1 / _SMALLEST_DIVISOR:.3g}", where=key
        )
    return reciprocal(divisor)

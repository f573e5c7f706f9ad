"""The tensors of one layer in a checkpoint of the compressed-tensors layout.

| weights | tensors beside an optional `bias` |
|---|---|
| fp8_tensor | `weight` e4m3 [N, K], `weight_scale` float32 [1] |
| fp8_row | `weight` e4m3 [N, K], `weight_scale` float32 [N, 1] |
| fp8_block128 | `weight` e4m3 [N, K], `weight_scale` float32 [N / 128, K / 128], rounded up |
| mxfp8 | `weight` e4m3 [N, K], `weight_scale` uint8 (E8M0) [N, K / 32] |
| mxfp6, mxfp4, mxfp4_e1m2 | `weight_packed` uint8 [N, K x bits / 8], `weight_scale` as mxfp8 |
| nvfp4 | `weight_packed`, `weight_scale` e4m3 [N, K / 16], `weight_global_scale` float32 [1] |

`weight_global_scale` divides: value = code x weight_scale / weight_global_scale. Where inputs have
a static scale it is `input_scale`, which multiplies, or for nvfp4 `input_global_scale`, which
divides; both are float32 [1]. Packed codes run from the lowest bit up, so the even one of two 4-bit
codes is in the low half of its byte.
mxfp4_e1m2 is an extension of Asterope; the others are read by compressed-tensors 0.20.

A branch is `svdquant_lora_a` bf16 [rank, K] and `svdquant_lora_b` bf16 [N, rank], as Model
Optimizer calls it; of projections that are run as one, each has the same first factor.

Source: compressed-tensors 0.20, `compressors/`; nvidia-modelopt 0.47, `torch/export/`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from asterope.errors import FormatError
from asterope.formats import BlockFormat, pack
from asterope.quant.linear import QuantizedLinear, reciprocal
from asterope.quant.recode import from_e4m3
from asterope.quant.scheme import Scheme
from asterope.quant.stored import REAL_DTYPES, Places, stored_layer, take
from asterope.quant.stored_branch import branch_tensors, stored_branch

__all__ = ["from_tensors", "to_tensors"]


def to_tensors(name: str, layer: QuantizedLinear) -> dict[str, torch.Tensor]:
    """Return the tensors that a checkpoint stores for the layer called `name`.

    Raises: FormatError if rows have different scales where the format has one for the tensor:
    concatenated layers are stored one by one.
    """
    tensors = _weight_tensors(name, layer)
    if layer.bias is not None:
        tensors["bias"] = layer.bias
    tensors |= branch_tensors(layer)
    if layer.input_scale is not None:
        scale = layer.input_scale
        stored = float(reciprocal(scale)) if _inputs_divide(layer.scheme) else scale
        tensors[_inputs_key(layer.scheme)] = torch.tensor([stored], dtype=torch.float32)
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}


def _inputs_divide(scheme: Scheme) -> bool:
    """Tell whether the static scale of inputs is the upper one of nvfp4."""
    return scheme.activations == "same"


def _inputs_key(scheme: Scheme) -> str:
    return "input_global_scale" if _inputs_divide(scheme) else "input_scale"


def _weight_tensors(name: str, layer: QuantizedLinear) -> dict[str, torch.Tensor]:
    fmt = layer.scheme.format
    if fmt is None:
        return {"weight": layer.codes}
    if layer.scales is None:
        scale = _one_scale(name, layer) if fmt.granularity == "tensor" else _row_scale(layer)
        return {"weight": layer.codes, "weight_scale": scale}
    if isinstance(fmt.granularity, tuple):
        scales = _block_scales(name, layer.scales, fmt.granularity[0])
        return {"weight": layer.codes, "weight_scale": scales}
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


def _block_scales(name: str, rows: torch.Tensor, size: int) -> torch.Tensor:
    """Return one row of scales for each block of so many."""
    blocks = rows[::size]
    if not torch.equal(blocks.repeat_interleave(size, 0)[: len(rows)], rows):
        raise FormatError(
            f"scales change inside a block of {size} rows", where=name,
            hint="store the layers that were concatenated one by one: split(layer, sizes)",
        )  # fmt: skip
    return blocks


def _one_scale(name: str, layer: QuantizedLinear) -> torch.Tensor:
    scales = layer.tensors["row_scale"]
    if not torch.equal(scales, scales[:1].expand_as(scales)):
        raise FormatError(
            f"rows have different scales, and {layer.scheme.weights} has one for the tensor",
            where=name,
            hint="store the layers that were concatenated one by one: split(layer, sizes)",
        )
    return scales[:1]


def from_tensors(
    name: str,
    tensors: Mapping[str, torch.Tensor],
    scheme: Scheme,
    *,
    static_inputs: bool = False,
) -> QuantizedLinear:
    """Return the layer called `name` from the tensors of a checkpoint; others are not looked at.

    A scale of inputs is used if they are static.

    Raises: CheckpointError for a tensor that is missing, of another type or shape, or holds NaN or
    a negative scale; ShapeError if the block does not divide K. Each names the tensor.
    """
    fmt, bias = scheme.format, f"{name}.bias"
    if fmt is not None:
        places = Places(
            codes=f"{name}.weight_packed" if fmt.element.bits < 8 else f"{name}.weight",
            scales=f"{name}.weight_scale",
            upper=f"{name}.weight_global_scale",
            upper_divides=True,
            inputs=f"{name}.{_inputs_key(scheme)}" if static_inputs else "",
            inputs_divide=_inputs_divide(scheme),
            bias=bias,
        )
        layer = stored_layer(tensors, scheme.without_branch, places)
        return stored_branch(name, tensors, layer, scheme.rank)
    codes = take(tensors, f"{name}.weight", REAL_DTYPES)
    scheme.check_shape(codes.shape, f"{name}.weight")
    held = take(tensors, bias, REAL_DTYPES, ((len(codes),),)) if bias in tensors else None
    return QuantizedLinear(scheme=scheme, codes=codes, bias=held)

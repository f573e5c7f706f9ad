"""Checkpoints of torchao in safetensors: `quant_method` "torchao".

A tensor subclass is stored as its parts, `NAME._weight_qdata`, `NAME._weight_scale` and so on, and
what else it consists of as JSON under `NAME.weight` in the files' metadata.

| quant_type | subclass | weights | activations |
|---|---|---|---|
| Float8DynamicActivationFloat8WeightConfig | Float8Tensor | fp8_row, fp8_tensor | fp8 |
| Float8WeightOnlyConfig | Float8Tensor | fp8_row, fp8_tensor | bf16 |
| MXDynamicActivationMXWeightConfig | MXTensor | mxfp8, mxfp4 | the same |
| NVFP4DynamicActivationNVFP4WeightConfig | NVFP4Tensor | nvfp4 | the same |
| NVFP4WeightOnlyConfig | NVFP4Tensor | nvfp4 | bf16 |

Scales of blocks may be swizzled: padded to tiles of 128 x 4, in which row r and column c lie at
(r % 32) x 16 + (r / 32) x 4 + c. `_weight_per_tensor_scale` multiplies, and may be left out.

Source: torchao 0.18, `prototype/safetensors`, `prototype/mx_formats/utils.py` (`to_blocked`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from asterope.errors import CheckpointError
from asterope.formats import BlockFormat
from asterope.quant.fields import check_fields, mapping, refuse
from asterope.quant.linear import QuantizedLinear
from asterope.quant.readers.layout import Layout, Tensors, check_tensors
from asterope.quant.scheme import Scheme
from asterope.quant.stored import Places, stored_layer

__all__ = ["read_torchao"]

_ROOT = "quantization_config"
_FIELDS = ("quant_method", "quant_type", "modules_to_not_convert")
_WHERE = f"{_ROOT}.quant_type.default"
_EXECUTION = (
    "mm_config",
    "kernel_preference",
    "set_inductor_config",
    "alg_id",
    "use_triton_kernel",
)
"""Fields that choose a kernel, not numbers."""
_TENSORS = (
    "_weight_qdata", "_weight_scale", "_weight_per_tensor_scale", "_weight_act_per_tensor_scale",
    "bias",
)  # fmt: skip
_E4M3, _E2M1 = "float8_e4m3fn", "float4_e2m1fn_x2"
_RULES = MappingProxyType({"RCEIL": "rceil", "FLOOR": "floor", "EVEN": "even"})
_GRANULARITIES = MappingProxyType({"PerRow": "fp8_row", "PerTensor": "fp8_tensor"})
_SUBCLASSES = MappingProxyType(
    {
        "fp8_row": "Float8Tensor",
        "fp8_tensor": "Float8Tensor",
        "mxfp8": "MXTensor",
        "mxfp4": "MXTensor",
        "nvfp4": "NVFP4Tensor",
    }
)
_SUBCLASS_FIELDS = (
    "block_size", "elem_dtype", "orig_dtype", "dtype", "act_quant_kwargs", "is_swizzled_scales",
    *_EXECUTION,
)  # fmt: skip
_TILE_ROWS, _TILE_COLUMNS = 128, 4


def read_torchao(config: Mapping[str, Any]) -> Layout:
    """Return how a checkpoint of torchao is quantized.

    Raises: UnsupportedError for configurations not in the table, and fields that are not known;
    CheckpointError for fields of the wrong kind.
    """
    check_fields(config, _FIELDS, _ROOT)
    kinds = mapping(config.get("quant_type"), f"{_ROOT}.quant_type")
    check_fields(kinds, ("default",), f"{_ROOT}.quant_type")
    kind, data = _typed(kinds.get("default"), _WHERE)
    if kind not in _CONFIGS:
        refuse(f"{_WHERE}._type", kind, ", ".join(_CONFIGS))
    scheme = _CONFIGS[kind](data, f"{_WHERE}._data")
    is_static = data.get("step") is not None

    def layer(name: str, tensors: Tensors, metadata: Mapping[str, str]) -> QuantizedLinear:
        check_tensors(name, tensors, _TENSORS)
        return _layer(name, tensors, metadata, scheme, static_inputs=is_static)

    return Layout(
        scheme_of=lambda _: scheme,
        layer=layer,
        is_plain=lambda name, own: f"{name}.weight" in own,
    )


def _typed(value: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the fields of an object that torchao wrote."""
    found = mapping(value, where)
    check_fields(found, ("_type", "_version", "_data"), where)
    return str(found.get("_type")), mapping(found.get("_data"), f"{where}._data")


def _named(value: Any, where: str) -> str:
    """Return the value of an enumeration or the name of a type that torchao wrote."""
    found = mapping(value, where)
    check_fields(found, ("_type", "_data"), where)
    return str(found.get("_data"))


def _float8_dynamic(data: Mapping[str, Any], where: str) -> Scheme:
    known = ("activation_dtype", "weight_dtype", "granularity", "packing_format", *_EXECUTION)
    check_fields(data, known, where)
    for field, wanted in (
        ("activation_dtype", _E4M3), ("weight_dtype", _E4M3), ("packing_format", "PLAIN"),
    ):  # fmt: skip
        if data.get(field) is not None and _named(data[field], f"{where}.{field}") != wanted:
            refuse(f"{where}.{field}", data[field], wanted)
    both = data.get("granularity")
    parts = both if isinstance(both, list) else [both]
    if any(part != parts[0] for part in parts):
        refuse(f"{where}.granularity", both, "one granularity")
    return Scheme(weights=_granularity(parts[0], f"{where}.granularity"), activations="fp8")


def _float8_weights(data: Mapping[str, Any], where: str) -> Scheme:
    check_fields(data, ("weight_dtype", "granularity", *_EXECUTION), where)
    if _named(data.get("weight_dtype"), f"{where}.weight_dtype") != _E4M3:
        refuse(f"{where}.weight_dtype", data["weight_dtype"], _E4M3)
    return Scheme(weights=_granularity(data.get("granularity"), f"{where}.granularity"))


def _granularity(value: Any, where: str) -> str:
    kind, data = _typed(value, where)
    if kind not in _GRANULARITIES or data.get("dim", -1) != -1:
        refuse(where, value, ", ".join(_GRANULARITIES))
    return _GRANULARITIES[kind]


def _mx(data: Mapping[str, Any], where: str) -> Scheme:
    known = ("block_size", "activation_dtype", "weight_dtype", "scaling_mode", *_EXECUTION)
    check_fields(data, known, where)
    if data.get("block_size") != 32:
        refuse(f"{where}.block_size", data.get("block_size"), "32")
    weights, activations = (
        _named(data.get(field), f"{where}.{field}")
        for field in ("weight_dtype", "activation_dtype")
    )
    formats = {_E4M3: "mxfp8", _E2M1: "mxfp4"}
    if weights not in formats:
        refuse(f"{where}.weight_dtype", weights, " or ".join(formats))
    if activations != weights:
        refuse(f"{where}.activation_dtype", activations, weights)
    mode = _named(data.get("scaling_mode"), f"{where}.scaling_mode")
    if mode not in _RULES:
        refuse(f"{where}.scaling_mode", mode, ", ".join(_RULES))
    return Scheme(weights=formats[weights], activations="same", rule=_RULES[mode])


def _nvfp4_dynamic(data: Mapping[str, Any], where: str) -> Scheme:
    check_fields(data, ("use_dynamic_per_tensor_scale", "step", *_EXECUTION), where)
    return Scheme(weights="nvfp4", activations="same")


def _nvfp4_weights(data: Mapping[str, Any], where: str) -> Scheme:
    check_fields(data, ("use_dynamic_per_tensor_scale",), where)
    return Scheme(weights="nvfp4")


_CONFIGS = MappingProxyType(
    {
        "Float8DynamicActivationFloat8WeightConfig": _float8_dynamic,
        "Float8WeightOnlyConfig": _float8_weights,
        "MXDynamicActivationMXWeightConfig": _mx,
        "NVFP4DynamicActivationNVFP4WeightConfig": _nvfp4_dynamic,
        "NVFP4WeightOnlyConfig": _nvfp4_weights,
    }
)


def _layer(
    name: str, tensors: Tensors, metadata: Mapping[str, str], scheme: Scheme, *,
    static_inputs: bool,
) -> QuantizedLinear:  # fmt: skip
    fmt, prefix = scheme.format, f"{name}._weight"
    assert fmt is not None
    is_swizzled = _checked(name, metadata, scheme)
    places = Places(
        codes=f"{prefix}_qdata",
        scales=f"{prefix}_scale",
        upper=f"{prefix}_per_tensor_scale",
        upper_is_optional=True,
        inputs=f"{prefix}_act_per_tensor_scale" if static_inputs else "",
    )
    if is_swizzled:
        tensors = {**tensors, **_unswizzled(tensors, places, fmt)}
    return stored_layer(tensors, scheme, places)


def _checked(name: str, metadata: Mapping[str, str], scheme: Scheme) -> bool:
    """Check what the files say of a weight against the configuration; return if it is swizzled."""
    where, fmt = f"{name}.weight", scheme.format
    if where not in metadata:
        raise CheckpointError(
            "is not described in the metadata of the safetensors files", where=where,
            hint="save it with transformers 5 and torchao 0.13 or later",
        )  # fmt: skip
    try:
        content = json.loads(metadata[where])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"metadata cannot be read: {error}", where=where) from None
    found = mapping(content, where)
    check_fields(found, ("_type", "_data", "_tensor_data_names"), where)
    data = mapping(found.get("_data"), where)
    check_fields(data, _SUBCLASS_FIELDS, where)
    assert fmt is not None
    wanted: dict[str, tuple[Any, Any]] = {
        "_type": (found.get("_type"), _SUBCLASSES[scheme.weights])
    }
    if isinstance(fmt.granularity, int):
        wanted["block_size"] = (data.get("block_size"), fmt.granularity)
    if "elem_dtype" in data:
        element = _E2M1 if fmt.element.bits == 4 else _E4M3
        wanted["elem_dtype"] = (_named(data["elem_dtype"], where), element)
    for field, (value, known) in wanted.items():
        if value != known:
            raise CheckpointError(
                f"{field} is {value!r}, and {known!r} by quantization_config", where=where
            )
    return bool(data.get("is_swizzled_scales"))


def _unswizzled(tensors: Tensors, places: Places, fmt: BlockFormat) -> Tensors:
    """Return scales of blocks row by row, without the padding; nothing for what is no layer."""
    codes, swizzled = tensors.get(places.codes), tensors.get(places.scales)
    if codes is None or swizzled is None or codes.dim() != 2 or swizzled.dtype.itemsize != 1:
        return {}
    n, width = codes.shape
    assert isinstance(fmt.granularity, int)
    columns = width * 8 // fmt.element.bits // fmt.granularity
    tall, wide = -(-n // _TILE_ROWS), -(-columns // _TILE_COLUMNS)
    if swizzled.numel() != tall * wide * _TILE_ROWS * _TILE_COLUMNS:
        raise CheckpointError(
            f"has shape {list(swizzled.shape)}, and {[n, columns]} scales swizzled are "
            f"{[32 * tall, 16 * wide]}",
            where=places.scales,
        )
    tiles = swizzled.contiguous().view(torch.uint8).view(tall, wide, 32, 4, 4)
    rows = tiles.permute(0, 3, 2, 1, 4).reshape(tall * _TILE_ROWS, wide * _TILE_COLUMNS)
    return {places.scales: rows[:n, :columns].contiguous().view(swizzled.dtype)}

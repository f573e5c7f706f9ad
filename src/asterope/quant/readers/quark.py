"""Checkpoints of AMD's Quark: `quant_method` "quark".

| weight of global_quant_config | `weight` | `weight_scale` |
|---|---|---|
| fp4, per_group 32, scale_format e8m0 | uint8 [N, K / 2] | uint8 (E8M0) [N, K / 32] |
| fp8_e4m3, per_tensor | e4m3 [N, K] | of the model's own type [] |
| fp8_e4m3, per_channel | e4m3 [N, K] | of the model's own type [N] |

Inputs are not quantized, quantized as the weights are, or fp8. `scale_calculation_mode` is the
scale rule. Not read: `dtype` "mx", whose scales and codes are one tensor; fp6, whose codes are
packed from the highest bit down; layers with formats of their own. 0.13 cannot write MXFP8.

Source: amd-quark 0.13, `torch/quantization/config/config.py`, `torch/export/nn/modules`,
`torch/utils/pack.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from asterope.quant.fields import check_fields, look_up, mapping, names, refuse
from asterope.quant.linear import QuantizedLinear
from asterope.quant.readers.layout import Layout, Tensors, check_tensors, is_named
from asterope.quant.readers.notes import KV_CACHE
from asterope.quant.scheme import Scheme
from asterope.quant.stored import Places, stored_layer

__all__ = ["read_quark"]

_ROOT = "quantization_config"
_FIELDS = (
    "quant_method", "global_quant_config", "layer_quant_config", "layer_type_quant_config",
    "exclude", "algo_config", "export", "kv_cache_quant_config", "kv_cache_post_rope",
    "kv_cache_group", "min_kv_scale", "quant_mode", "softmax_quant_spec", "version",
)  # fmt: skip
_LAYER_FIELDS = ("input_tensors", "output_tensors", "weight", "bias", "target_device")
_SPEC_FIELDS = (
    "dtype", "is_dynamic", "qscheme", "ch_axis", "group_size", "block_size", "symmetric",
    "round_method", "scale_type", "zero_point_type", "scale_format", "scale_calculation_mode",
    "mx_element_dtype", "observer_cls", "is_scale_quant", "enable_buffer_reuse",
    "max_input_numel",
)  # fmt: skip
_EXPORT_FIELDS = ("weight_format", "pack_method", "kv_cache_group", "min_kv_scale")
_TENSORS = ("weight", "weight_scale", "input_scale", "output_scale", "bias")
_RULES = MappingProxyType({"even": "even", "floor": "floor", "ceil": "rceil", None: None})
# Those that change weights before they are rounded, and nothing at run time.
_ALGORITHMS = ("gptq", "gptaq", "qronos", "awq", "smooth", "autosmoothquant")

_Kind = tuple[Any, Any, Any, Any]
"""Element, what shares a scale, how many of them, and the format of the scale."""
_KINDS: Mapping[_Kind, str] = MappingProxyType(
    {
        ("fp4", "per_group", 32, "e8m0"): "mxfp4",
        ("fp8_e4m3", "per_tensor", None, None): "fp8_tensor",
        ("fp8_e4m3", "per_channel", None, None): "fp8_row",
    }
)
_ROWS_AXIS = 0


def read_quark(config: Mapping[str, Any]) -> Layout:
    """Return how a checkpoint of Quark is quantized.

    Raises: UnsupportedError for formats not in the table, layers with formats of their own, and
    fields that are not known; CheckpointError for fields of the wrong kind.
    """
    check_fields(config, _FIELDS, _ROOT)
    for field in ("layer_type_quant_config", "softmax_quant_spec"):
        if config.get(field):
            refuse(f"{_ROOT}.{field}", config[field], "null")
    _check_export(config.get("export"))
    _check_algorithms(config.get("algo_config"))
    where = f"{_ROOT}.global_quant_config"
    whole = mapping(config.get("global_quant_config"), where)
    check_fields(whole, _LAYER_FIELDS, where)
    for field in ("output_tensors", "bias"):
        if whole.get(field) is not None:
            refuse(f"{where}.{field}", whole[field], "null")
    scheme = _scheme(whole, where)
    has_kv_cache = bool(config.get("kv_cache_quant_config")) | _has_kv_outputs(config, whole)
    inputs = mapping(whole.get("input_tensors") or {}, f"{where}.input_tensors")
    is_static = inputs.get("is_dynamic") is False
    if is_static and inputs.get("qscheme") != "per_tensor":
        refuse(f"{where}.input_tensors.is_dynamic", False, "true, or one scale a tensor")
    ignored = names(config.get("exclude"), f"{_ROOT}.exclude")

    def layer(name: str, tensors: Tensors, metadata: Mapping[str, str]) -> QuantizedLinear:
        check_tensors(name, tensors, _TENSORS)
        places = Places(
            codes=f"{name}.weight",
            scales=f"{name}.weight_scale",
            inputs=f"{name}.input_scale" if is_static else "",
        )
        return stored_layer(tensors, scheme, places)

    return Layout(
        scheme_of=lambda name: None if is_named(name, ignored) else scheme,
        layer=layer,
        notes=(KV_CACHE,) * has_kv_cache,
    )


def _scheme(whole: Mapping[str, Any], where: str) -> Scheme:
    spec, kind = _spec(whole.get("weight"), f"{where}.weight")
    weights = look_up(_KINDS, kind)
    is_per_row = spec.get("ch_axis") in (None, _ROWS_AXIS)
    if weights is None or (weights == "fp8_row" and not is_per_row):
        refuse(f"{where}.weight", kind, "one of " + ", ".join(map(str, _KINDS)))
    activations = _activations(whole.get("input_tensors"), kind, f"{where}.input_tensors")
    mode = spec.get("scale_calculation_mode") if weights == "mxfp4" else None
    if mode not in tuple(_RULES):
        refuse(f"{where}.weight.scale_calculation_mode", mode, "even, floor or ceil")
    return Scheme(weights=weights, activations=activations, rule=_RULES[mode])


def _activations(value: Any, weights: _Kind, where: str) -> str:
    if value is None:
        return "bf16"
    _, kind = _spec(value, where)
    if (look_up(_KINDS, kind) or "").startswith("fp8"):
        return "fp8"
    if kind != weights:
        refuse(where, kind, f"null, fp8_e4m3 by tensor or channel, or {weights}")
    return "same"


def _spec(value: Any, where: str) -> tuple[Mapping[str, Any], _Kind]:
    """Return a description of quantized numbers, and what tells one format from another."""
    if isinstance(value, list):
        refuse(where, f"{len(value)} levels of scales", "one")
    spec = mapping(value, where)
    check_fields(spec, _SPEC_FIELDS, where)
    for field, known in (("symmetric", (True, None)), ("round_method", ("half_even", None))):
        if spec.get(field) not in known:
            refuse(f"{where}.{field}", spec.get(field), str(known[0]))
    for field in ("is_scale_quant", "block_size", "mx_element_dtype"):
        if spec.get(field):
            refuse(f"{where}.{field}", spec[field], "null")
    scheme = spec.get("qscheme")
    is_grouped = scheme == "per_group"
    size = spec.get("group_size") if is_grouped else None
    scale = spec.get("scale_format") if is_grouped or spec.get("scale_format") == "e8m0" else None
    return spec, (spec.get("dtype"), scheme, size, scale)


def _check_export(value: Any) -> None:
    where = f"{_ROOT}.export"
    export = mapping(value or {}, where)
    check_fields(export, _EXPORT_FIELDS, where)
    if export.get("weight_format", "real_quantized") != "real_quantized":
        refuse(f"{where}.weight_format", export["weight_format"], "real_quantized")


def _check_algorithms(value: Any) -> None:
    """Refuse algorithms after which inputs have to be rotated, or something else be computed."""
    for algorithm in value if isinstance(value, list) else [value] if value else []:
        where = f"{_ROOT}.algo_config"
        name = mapping(algorithm, where).get("name")
        if name not in _ALGORITHMS:
            refuse(where, name, ", ".join(_ALGORITHMS))


def _has_kv_outputs(config: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Tell whether layers differ in quantized outputs, which are keys and values for the cache.

    Raises: UnsupportedError if they differ in anything else.
    """
    where = f"{_ROOT}.layer_quant_config"
    layers = mapping(config.get("layer_quant_config") or {}, where)
    for pattern, value in layers.items():
        layer = mapping(value, f"{where}.{pattern}")
        check_fields(layer, _LAYER_FIELDS, f"{where}.{pattern}")
        same = all(layer.get(field) == whole.get(field) for field in ("weight", "input_tensors"))
        if not same or layer.get("bias") or not pattern.endswith(("k_proj", "v_proj")):
            refuse(f"{where}.{pattern}", value, "one format for all layers")
    return bool(layers)

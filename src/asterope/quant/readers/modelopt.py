"""Checkpoints of NVIDIA's Model Optimizer: `quant_method` "modelopt", or `hf_quant_config.json`.

| quant_algo | `weight` | `weight_scale` | activations |
|---|---|---|---|
| FP8 | e4m3 [N, K] | float32 [] | fp8 |
| FP8_PER_CHANNEL_PER_TOKEN | e4m3 [N, K] | float32 [N] | fp8 a token |
| MXFP8 | e4m3 [N, K] | uint8 (E8M0) [N, K / 32] | mxfp8 |
| W4A8_MXFP4_FP8 | uint8 [N, K / 2] | uint8 (E8M0) [N, K / 32] | fp8 |
| NVFP4 | uint8 [N, K / 2] | e4m3 [N, K / 16] | nvfp4 |
| W4A16_NVFP4 | as NVFP4 | as NVFP4 | bf16 |
| W4A8_NVFP4_FP8 | as NVFP4 | as NVFP4, or [N, K / 32] | fp8 |
| NVFP4_SVD | as NVFP4 | as NVFP4 | nvfp4 |

NVFP4 weights have a `weight_scale_2` float32 [], which multiplies: value = code x weight_scale x
weight_scale_2. compressed-tensors stores the reciprocal. Projections that engines fuse may have
different ones here; each keeps its own. NVFP4_SVD has a low-rank branch: `svdquant_lora_a` bf16
[rank, K] and `svdquant_lora_b` bf16 [N, rank], of inputs as they come, under names of the layer's
or, in language models, of its `weight_quantizer`. Its `pre_quant_scale`, which multiplies inputs
before both, is read where it is one.

A KV cache is that of `kv_cache_quant_algo` FP8 or NVFP4: the `k_scale` of `k_proj` and the
`v_scale` of `v_proj` multiply what it holds, the largest over 448 or 2,688, one if left out.

Source: nvidia-modelopt 0.47, `torch/export/quant_utils.py`, `torch/export/unified_export_hf.py`,
`torch/export/convert_hf_config.py`,
`torch/quantization/nn/modules/quant_linear.py` (`SVDQuantLinear`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from asterope.errors import CheckpointError, UnsupportedError
from asterope.formats import BlockFormat
from asterope.quant.fields import check_fields, look_up, mapping, names, refuse
from asterope.quant.linear import QuantizedLinear
from asterope.quant.readers.layout import Layout, Tensors, check_tensors, is_named
from asterope.quant.readers.notes import KV_CACHE
from asterope.quant.scheme import Scheme
from asterope.quant.stored import Places, stored_layer
from asterope.quant.stored_branch import stored_branch

__all__ = ["from_own_file", "read_modelopt"]

_ROOT = "quantization_config"
_SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "FP8": Scheme(weights="fp8_tensor", activations="fp8"),
        "FP8_PER_CHANNEL_PER_TOKEN": Scheme(weights="fp8_row", activations="fp8"),
        "MXFP8": Scheme(weights="mxfp8", activations="same", rule="rceil"),
        "W4A8_MXFP4_FP8": Scheme(weights="mxfp4", activations="fp8", rule="rceil"),
        "NVFP4": Scheme(weights="nvfp4", activations="same"),
        "W4A16_NVFP4": Scheme(weights="nvfp4"),
        "W4A8_NVFP4_FP8": Scheme(weights="nvfp4", activations="fp8"),
        "NVFP4_SVD": Scheme(weights="nvfp4", activations="same", rank=32),
    }
)
_BRANCHED = "NVFP4_SVD"
"""The algorithm with a branch, of rank 32 where `lora_rank` says nothing: the tool's default."""
_COARSE = "W4A8_NVFP4_FP8"
"""The algorithm whose blocks may be twice as large: each of their scales is taken for two."""
_COARSE_SIZE = 32
_STATIC = ("FP8", "NVFP4", "W4A8_MXFP4_FP8", "W4A8_NVFP4_FP8", "NVFP4_SVD")
"""Algorithms whose layers store an `input_scale`, for nvfp4 inputs the upper one."""
_FIELDS = (
    "quant_method", "quant_algo", "config_groups", "ignore", "kv_cache_scheme", "group_size",
    "producer",
)  # fmt: skip
_GROUP_FIELDS = ("targets", "weights", "input_activations")
_BRANCH_FIELDS = ("has_zero_point", "pre_quant_scale", "lora_rank")
_ARGS_FIELDS = ("num_bits", "type", "group_size", "dynamic", "strategy")
_CACHES = {"FP8": "fp8", "NVFP4": "nvfp4"}
_CACHES_BY_BITS = {8: "fp8", 4: "nvfp4"}
_OWN_FIELDS = (
    "quant_algo", "kv_cache_quant_algo", "group_size", "exclude_modules", "pre_quant_scale",
)  # fmt: skip
_TENSORS = (
    "weight", "weight_scale", "weight_scale_2", "input_scale", "k_scale", "v_scale", "bias",
)  # fmt: skip
_BRANCHED_TENSORS = (*_TENSORS, "svdquant_lora_a", "svdquant_lora_b")


def from_own_file(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `hf_quant_config.json` as the `quantization_config` that newer versions write too."""
    where = "hf_quant_config.json"
    check_fields(content, ("producer", "quantization"), where)
    own = mapping(content.get("quantization"), f"{where}.quantization")
    check_fields(own, _OWN_FIELDS, f"{where}.quantization")
    return {
        "quant_method": "modelopt",
        "quant_algo": own.get("quant_algo"),
        "kv_cache_scheme": own.get("kv_cache_quant_algo"),
        "group_size": own.get("group_size"),
        "ignore": own.get("exclude_modules"),
        "producer": content.get("producer"),
    }


def read_modelopt(config: Mapping[str, Any]) -> Layout:
    """Return how a checkpoint of Model Optimizer is quantized.

    Raises: UnsupportedError for algorithms not in the table, and for fields that are not known;
    CheckpointError for a configuration that contradicts itself.
    """
    check_fields(config, _FIELDS, _ROOT)
    algorithm = config.get("quant_algo")
    scheme = look_up(_SCHEMES, algorithm)
    if scheme is None:
        refuse(f"{_ROOT}.quant_algo", algorithm, ", ".join(_SCHEMES))
    fmt = scheme.format
    assert fmt is not None
    if algorithm != _COARSE or config.get("group_size") != _COARSE_SIZE:
        _check_group_size(config.get("group_size"), fmt, f"{_ROOT}.group_size")
    groups = mapping(config.get("config_groups") or {}, f"{_ROOT}.config_groups")
    if len(groups) > 1:
        refuse(f"{_ROOT}.config_groups", f"{len(groups)} groups", "one")
    for name, group in groups.items():
        where = f"{_ROOT}.config_groups.{name}"
        own = _BRANCH_FIELDS if algorithm == _BRANCHED else ()
        _check_group(group, fmt, where, (*_GROUP_FIELDS, *own))
        if algorithm == _BRANCHED:
            scheme = _of_rank(scheme, group, where)
    ignored = names(config.get("ignore"), f"{_ROOT}.ignore")
    asked = config.get("kv_cache_scheme")
    cache = _cache_format(asked)

    def layer(name: str, tensors: Tensors, metadata: Mapping[str, str]) -> QuantizedLinear:
        if algorithm == _BRANCHED:
            tensors = _without_smoothing(name, tensors)
        check_tensors(name, tensors, _TENSORS if scheme.rank is None else _BRANCHED_TENSORS)
        places = Places(
            codes=f"{name}.weight",
            scales=f"{name}.weight_scale",
            upper=f"{name}.weight_scale_2",
            inputs=f"{name}.input_scale" if algorithm in _STATIC else "",
        )
        if algorithm == _COARSE:
            tensors = _finer(tensors, places)
        made = stored_layer(tensors, scheme.without_branch, places)
        return stored_branch(name, tensors, made, scheme.rank)

    return Layout(
        scheme_of=lambda name: None if is_named(name, ignored) else scheme,
        layer=layer,
        notes=(KV_CACHE,) * (cache == "auto" and asked is not None),
        cache_format=cache,
        cache_scales=("k_proj.k_scale", "v_proj.v_scale"),
        missing_scale=1.0,
    )


def _cache_format(asked: Any) -> str:
    """Return the format of a cache, by its name or its bits; `auto` for what is not read."""
    if not isinstance(asked, Mapping):
        return look_up(_CACHES, asked) or "auto"
    if asked.get("type") != "float":
        return "auto"
    return look_up(_CACHES_BY_BITS, asked.get("num_bits")) or "auto"


def _of_rank(scheme: Scheme, group: Mapping[str, Any], where: str) -> Scheme:
    rank = group.get("lora_rank", scheme.rank)
    if type(rank) is not int or rank < 1:
        raise CheckpointError(f"{rank!r} is not a rank", where=f"{where}.lora_rank")
    return dataclasses.replace(scheme, rank=rank)


def _without_smoothing(name: str, tensors: Tensors) -> Tensors:
    """Return tensors with the branch under the layer's own name, and no scale of inputs of one.

    Raises: UnsupportedError for a scale of inputs that changes them.
    """
    prefix = f"{name}.weight_quantizer._"
    found = {key.replace(prefix, f"{name}."): tensor for key, tensor in tensors.items()}
    key = f"{name}.pre_quant_scale"
    smoothing = found.pop(key, None)
    if smoothing is not None and not bool((smoothing == 1).all()):
        raise UnsupportedError(
            "multiplies inputs, and that is not computed", where=key,
            hint="fold it into the norm or the projection before; scales of one are read",
        )  # fmt: skip
    return found


def _finer(tensors: Tensors, places: Places) -> Tensors:
    """Return tensors with a scale for each 16 elements, where there is one for 32."""
    codes, scales = tensors.get(places.codes), tensors.get(places.scales)
    if codes is None or scales is None or not codes.dim() == scales.dim() == 2:
        return tensors
    if 2 * codes.shape[1] != _COARSE_SIZE * scales.shape[1]:
        return tensors
    doubled = scales.view(torch.uint8).repeat_interleave(2, -1).view(scales.dtype)
    return {**tensors, places.scales: doubled}


def _check_group(value: Any, fmt: BlockFormat, where: str, fields: tuple[str, ...]) -> None:
    """Check that the details of a group are those of the algorithm."""
    group = mapping(value, where)
    check_fields(group, fields, where)
    if group.get("targets") != ["Linear"]:
        refuse(f"{where}.targets", group.get("targets"), "['Linear']")
    for field in ("weights", "input_activations"):
        args = mapping(group.get(field) or {}, f"{where}.{field}")
        check_fields(args, _ARGS_FIELDS, f"{where}.{field}")
    weights = mapping(group.get("weights"), f"{where}.weights")
    for field, found, wanted in (
        ("num_bits", weights.get("num_bits"), fmt.element.bits),
        ("type", weights.get("type"), "float"),
    ):
        if found != wanted:
            raise CheckpointError(
                f"is {found!r}, and {wanted!r} by quant_algo", where=f"{where}.weights.{field}"
            )
    _check_group_size(weights.get("group_size"), fmt, f"{where}.weights.group_size")


def _check_group_size(size: Any, fmt: BlockFormat, where: str) -> None:
    """Check that blocks are those of the format, where their size is said."""
    if size and size != fmt.granularity:
        refuse(where, size, f"{fmt.granularity} of {fmt.name}")

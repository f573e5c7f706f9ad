"""The `quantization_config` of a checkpoint's config.json, in the terms of compressed-tensors.

compressed-tensors 0.20 reads what is written here, with one exception: mxfp4_e1m2 is stored under
a format name of its own, `mxfp4-e1m2-pack-quantized`, so that others refuse it instead of reading
its codes as e2m1. Two things it reads have no preset there: block-scaled weights with fp8
activations by token, and nvfp4 activations whose upper scale is dynamic too. The scale rule has no
field; it is recorded under `asterope`, which others ignore, and taken to be the format's default
where that is absent. Weights beside a low-rank branch are stored under a format name of their own
as well, that of the weights with `-svdquant` behind it, and the rank is recorded with the rule:
others refuse the checkpoint instead of loading it without the branch.

Source: compressed-tensors 0.20, `quantization/quant_scheme.py` (presets) and `quant_args.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from asterope.errors import CheckpointError, FormatError, UnsupportedError
from asterope.quant.fields import check_fields, names
from asterope.quant.fields import mapping as _mapping
from asterope.quant.fields import refuse as _refuse
from asterope.quant.kv_config import stored_cache_format
from asterope.quant.scheme import Scheme

__all__ = ["has_static_inputs", "parse_quantization_config", "quantization_config"]

_ROOT = "quantization_config"
_GROUP = f"{_ROOT}.config_groups"

_STORED_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "fp8_tensor": "float-quantized",
        "fp8_row": "float-quantized",
        "fp8_block128": "float-quantized",
        "mxfp8": "mxfp8-quantized",
        "mxfp6": "mxfp6-pack-quantized",
        "mxfp4": "mxfp4-pack-quantized",
        "mxfp4_e1m2": "mxfp4-e1m2-pack-quantized",
        "nvfp4": "nvfp4-pack-quantized",
    }
)
_BRANCHED = "-svdquant"
"""What is behind the name of a format with low-rank branches."""
_FP8_FORMATS = ("float-quantized", "naive-quantized")
_STORED_STATUS = ("compressed", "frozen")
"""Early versions wrote `frozen` with compressed weights."""

_ROOT_FIELDS = (
    "quant_method", "quantization_status", "format", "config_groups", "ignore", "kv_cache_scheme",
    "sparsity_config", "transform_config", "global_compression_ratio", "version", "asterope",
)  # fmt: skip
_GROUP_FIELDS = ("targets", "weights", "input_activations", "output_activations", "format")
_ARGS_FIELDS = (
    "num_bits", "type", "strategy", "group_size", "symmetric", "dynamic", "actorder",
    "block_structure", "scale_dtype", "zp_dtype", "observer", "observer_kwargs",
)  # fmt: skip

_TRANSFORM_FIELDS = ("type", "apply", "randomize", "requires_grad", "head_dim", "precision")
_APPLY_FIELDS = ("targets", "location", "inverse", "ignore")

_Kind = tuple[int, str, int | None]
"""Bits, strategy and group size: what tells one format of floats from another."""
_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "fp8_tensor": (8, "tensor", None),
        "fp8_row": (8, "channel", None),
        "fp8_block128": (8, "block", None),
        "mxfp8": (8, "group", 32),
        "mxfp6": (6, "group", 32),
        "mxfp4": (4, "group", 32),
        "mxfp4_e1m2": (4, "group", 32),
        "nvfp4": (4, "tensor_group", 16),
    }
)
_FP8_WEIGHTS = ("fp8_tensor", "fp8_row")
_FP8_TOKEN: _Kind = (8, "token", None)
_FP8_GROUPS: _Kind = (8, "group", 128)
"""Activations beside weights in blocks of 128 x 128."""
_BLOCK_STRUCTURE = [128, 128]


def quantization_config(
    scheme: Scheme, ignore: Sequence[str], *, static_inputs: bool = False
) -> dict[str, Any]:
    """Return the `quantization_config` of a checkpoint; `ignore` names layers left as they were.

    With `static_inputs` layers store a scale of their inputs, the upper one for nvfp4.

    Raises: FormatError for unquantized weights, which have none.
    """
    if scheme.format is None:
        raise FormatError("an unquantized checkpoint has no quantization_config", where="weights")
    group = config_group(scheme, ["Linear"], static_inputs=static_inputs)
    transforms = None
    if scheme.rotation is not None:
        transforms = {"config_groups": {"rotation": transform(scheme, ["Linear"], ignore)}}
    record = {"scale_rule": scheme.rule} | ({} if scheme.rank is None else {"rank": scheme.rank})
    return config_root(group["format"], {"group_0": group}, ignore) | {
        "transform_config": transforms,
        "asterope": record,
    }


def config_root(stored: str, groups: Mapping[str, Any], ignore: Sequence[str]) -> dict[str, Any]:
    """Return a `quantization_config` around groups of layers, without transforms and rules."""
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": stored,
        "config_groups": dict(groups),
        "ignore": list(ignore),
        "kv_cache_scheme": None,
    }


def config_group(scheme: Scheme, targets: Sequence[str], *, static_inputs: bool) -> dict[str, Any]:
    """Return the group of the layers that have a scheme."""
    activations = None
    if scheme.activation_format is not None:
        activations = _inputs(scheme, static=static_inputs)
    return {
        "targets": list(targets),
        "weights": _args(_KINDS[scheme.weights], dynamic=False),
        "input_activations": activations,
        "output_activations": None,
        "format": _STORED_FORMATS[scheme.weights] + (_BRANCHED if scheme.rank is not None else ""),
    }


def _inputs(scheme: Scheme, *, static: bool) -> dict[str, Any]:
    """Return the description of inputs; scales of their own blocks are dynamic."""
    if scheme.activations == "fp8":
        return _args(_KINDS["fp8_tensor"] if static else _FP8_TOKEN, dynamic=not static)
    has_upper = scheme.format is not None and scheme.format.two_level
    return _args(_same_kind(scheme.weights), dynamic="local" if static and has_upper else True)


def transform(scheme: Scheme, targets: Sequence[str], ignore: Sequence[str]) -> dict[str, Any]:
    """Return the rotation of a scheme: of inputs when they come, of weights already."""
    places = (("input", False), ("weight_input", True))
    return {
        "type": "hadamard",
        "apply": [
            {
                "targets": list(targets), "location": place, "inverse": inverse,
                "ignore": list(ignore),
            }
            for place, inverse in places
        ],
        "randomize": False, "requires_grad": False, "head_dim": scheme.rotation,
        "precision": "torch.float32",
    }  # fmt: skip


def _rotation(value: Any, ignore: Sequence[str]) -> int | None:
    """Return the size of rotated blocks; refuse transforms unlike those of `_transforms`."""
    if not value:
        return None
    where = f"{_ROOT}.transform_config"
    check_fields(_mapping(value, where), ("config_groups",), where)
    groups = _mapping(value.get("config_groups"), f"{where}.config_groups")
    if len(groups) != 1:
        _refuse(f"{where}.config_groups", f"{len(groups)} transforms", "one Hadamard rotation")
    [(name, group)] = groups.items()
    where = f"{where}.config_groups.{name}"
    group = _mapping(group, where)
    check_fields(group, _TRANSFORM_FIELDS, where)
    for field, known in (("type", ("hadamard",)), ("randomize", (False, None))):
        if group.get(field) not in known:
            _refuse(f"{where}.{field}", group.get(field), str(known[0]))
    found = group.get("apply")
    applied = [a for a in found if isinstance(a, Mapping)] if isinstance(found, list) else []
    places = sorted(str(a.get("location")) for a in applied)
    for a in applied:
        check_fields(a, _APPLY_FIELDS, f"{where}.apply")
    is_ours = all(
        a.get("targets") in ("Linear", ["Linear"])
        and set(names(a.get("ignore"), f"{where}.apply.ignore")) == set(ignore)
        for a in applied
    )
    if places != ["input", "weight_input"] or not is_ours:
        _refuse(f"{where}.apply", found, "inputs and weights of all quantized linear layers")
    size = group.get("head_dim")
    if not isinstance(size, int):
        _refuse(f"{where}.head_dim", size, "the size of a block")
    return size


def _args(kind: _Kind, *, dynamic: bool | str) -> dict[str, Any]:
    """Return the description of one kind of quantized floats."""
    bits, strategy, group_size = kind
    args = {
        "num_bits": bits,
        "type": "float",
        "strategy": strategy,
        "group_size": group_size,
        "symmetric": True,
        "dynamic": dynamic,
        "actorder": None,
    }
    if strategy == "block":
        args["block_structure"] = _BLOCK_STRUCTURE
    if group_size is not None and kind != _FP8_GROUPS:
        args["scale_dtype"] = "torch.uint8" if strategy == "group" else "torch.float8_e4m3fn"
    return args


def parse_quantization_config(config: Mapping[str, Any]) -> tuple[Scheme, tuple[str, ...]]:
    """Return the scheme of a checkpoint and the layers it leaves unquantized.

    One group of linear layers is read, weights of the formats of `Scheme`, activations in bf16,
    fp8, or the format of the weights. `has_static_inputs` tells if layers store a scale of fp8
    inputs, or the upper one of nvfp4.

    Raises: UnsupportedError for a valid configuration that cannot be read; CheckpointError for one
    that is not valid. Each names the field.
    """
    _check_root(config)
    groups = _mapping(config.get("config_groups"), _GROUP)
    if len(groups) != 1:
        raise UnsupportedError(
            f"{len(groups)} groups of layers; one is read", where=_GROUP, hint="requantize it"
        )
    [(group_name, value)] = groups.items()
    where = f"{_GROUP}.{group_name}"
    group = _mapping(value, where)
    check_fields(group, _GROUP_FIELDS, where)
    if group.get("targets") != ["Linear"]:
        _refuse(f"{where}.targets", group.get("targets"), "['Linear']")
    if group.get("output_activations") is not None:
        _refuse(f"{where}.output_activations", "quantized outputs", "null")
    stored = group.get("format") or config.get("format")
    has_branch = isinstance(stored, str) and stored.endswith(_BRANCHED)
    if isinstance(stored, str):
        stored = stored.removesuffix(_BRANCHED)
    weights = _weights(group.get("weights"), stored, f"{where}.weights")
    activations = _activations(
        group.get("input_activations"), weights, f"{where}.input_activations"
    )
    ignore = names(config.get("ignore"), f"{_ROOT}.ignore")
    rotation = _rotation(config.get("transform_config"), ignore)
    scheme = _scheme(weights, activations, config.get("asterope"), rotation)
    if has_branch != (scheme.rank is not None):
        raise CheckpointError(
            f"a format {'with' if has_branch else 'without'} {_BRANCHED!r} has "
            f"{'no rank' if has_branch else f'rank {scheme.rank}'} recorded under asterope",
            where=f"{_ROOT}.format",
        )
    return scheme, ignore


def has_static_inputs(group: Mapping[str, Any]) -> bool:
    """Tell whether layers store scales of their inputs, of a group that was parsed."""
    return (group.get("input_activations") or {}).get("dynamic") in (False, "local")


def _check_root(config: Mapping[str, Any]) -> None:
    check_fields(_mapping(config, _ROOT), _ROOT_FIELDS, _ROOT)
    for field, known in (
        ("quant_method", ("compressed-tensors",)),
        ("quantization_status", _STORED_STATUS),
    ):
        if config.get(field) not in known:
            _refuse(f"{_ROOT}.{field}", config.get(field), " or ".join(known))
    stored_cache_format(config.get("kv_cache_scheme"))
    sparse = config.get("sparsity_config")
    if sparse and sparse != {"format": "dense"}:
        _refuse(f"{_ROOT}.sparsity_config", sparse, "null")


def _weights(value: Any, stored: Any, where: str) -> str:
    """Return the weight format; the stored format's name tells e1m2 from e2m1."""
    args = _mapping(value, where)
    kind = _kind(args, where)
    names = [name for name, known in _KINDS.items() if known == kind]
    if not names or args.get("dynamic"):
        _refuse(where, _words(kind), "one of " + ", ".join(_KINDS))
    for name in names:
        is_alias = _STORED_FORMATS[name] in _FP8_FORMATS and stored in _FP8_FORMATS
        if is_alias or stored == _STORED_FORMATS[name]:
            return name
    raise CheckpointError(
        f"format {stored!r} does not fit weights of {_words(kind)}",
        where=f"{_ROOT}.format",
        hint=f"{' or '.join(_STORED_FORMATS[name] for name in names)} does",
    )


def _activations(value: Any, weights: str, where: str) -> str:
    if value is None:
        return "bf16"
    args = _mapping(value, where)
    kind = _kind(args, where)
    if kind == _KINDS["fp8_tensor"] and not args.get("dynamic"):
        return "fp8"
    if not args.get("dynamic"):
        _refuse(where, "a static scale", "dynamic scales")
    if kind == _FP8_TOKEN:
        return "fp8"
    if kind != _same_kind(weights) or weights in _FP8_WEIGHTS:
        _refuse(where, _words(kind), f"8 bits by token, or {_words(_same_kind(weights))}")
    return "same"


def _same_kind(weights: str) -> _Kind:
    """Return the kind of activations that have the format of the weights."""
    return _FP8_GROUPS if weights == "fp8_block128" else _KINDS[weights]


def _kind(args: Mapping[str, Any], where: str) -> _Kind:
    """Return what tells formats apart; refuse what is not plain symmetric floats."""
    check_fields(args, _ARGS_FIELDS, where)
    if args.get("type") != "float":
        _refuse(f"{where}.type", args.get("type"), "float")
    if args.get("symmetric") is False:
        _refuse(f"{where}.symmetric", False, "true")
    if args.get("actorder") in ("group", "dynamic"):
        _refuse(f"{where}.actorder", args["actorder"], "null or static")
    if args.get("strategy") == "block" and args.get("block_structure") != _BLOCK_STRUCTURE:
        _refuse(f"{where}.block_structure", args.get("block_structure"), str(_BLOCK_STRUCTURE))
    group_size = None if args.get("group_size") == -1 else args.get("group_size")
    return args.get("num_bits", 8), str(args.get("strategy")), group_size


def _scheme(weights: str, activations: str, record: Any, rotation: int | None) -> Scheme:
    where = f"{_ROOT}.asterope"
    record = {} if record is None else _mapping(record, where)
    rank = record.get("rank")
    if rank is not None and type(rank) is not int:
        raise CheckpointError(f"{rank!r} is not a whole number", where=f"{where}.rank")
    try:
        return Scheme(
            weights=weights, activations=activations, rule=record.get("scale_rule"),
            rotation=rotation, rank=rank,
        )  # fmt: skip
    except FormatError as error:
        fields = {"rotation": f"{_ROOT}.transform_config", "rank": f"{where}.rank"}
        field = fields.get(str(error.where), f"{where}.scale_rule")
        raise CheckpointError(error.what, where=field, hint=error.hint) from error


def _words(kind: _Kind) -> str:
    bits, strategy, group_size = kind
    return f"{bits} bits by {strategy}" + (f" of {group_size}" if group_size else "")

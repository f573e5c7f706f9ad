"""The `kv_cache_scheme` of a checkpoint: how its keys and values are stored.

In fp8 and nvfp4 each attention module stores a scale of its keys and one of its values, `k_scale`
and `v_scale`; block scales are computed with each token. Servers read fp8 alone: of four bits is
said here what compressed-tensors says of inputs in them.

Source: compressed-tensors 0.20, `quantization/quant_config.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.kernels import CACHE_FORMATS, CacheFormat
from asterope.quant.fields import check_fields, mapping, refuse

__all__ = ["CACHE_SCALES", "kv_cache_scheme", "stored_cache_format"]

CACHE_SCALES = ("k_scale", "v_scale")
"""What a layer's attention stores, of keys and of values."""
_WHERE = "quantization_config.kv_cache_scheme"
_FIELDS = ("num_bits", "type", "strategy")
_ABSENT = ("group_size", "block_structure", "actorder")
"""Fields that say something else of a cache, unless they are null or its scheme has them."""
_USUAL = ("dynamic", "symmetric")
"""Fields that may be left out."""
_SILENT = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")
"""Fields that say how scales were found, or are null beside the others."""


def kv_cache_scheme(fmt: CacheFormat) -> dict[str, Any] | None:
    """Return the `kv_cache_scheme` of a cache in a format, None for that of activations."""
    if fmt.name == "auto":
        return None
    if fmt.blocks is None:
        return {
            "num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False,
            "symmetric": True,
        }  # fmt: skip
    return {
        "num_bits": fmt.blocks.element.bits, "type": "float",
        "strategy": "tensor_group" if fmt.two_level else "group", "group_size": fmt.group,
        "dynamic": "local" if fmt.two_level else True, "symmetric": True,
    }  # fmt: skip


def stored_cache_format(value: Any) -> str:
    """Return the format of a checkpoint's cache, `auto` where it is left out.

    Raises: UnsupportedError or CheckpointError naming the field.
    """
    if not value:
        return "auto"
    args = mapping(value, _WHERE)
    check_fields(args, (*_FIELDS, *_ABSENT, *_USUAL, *_SILENT), _WHERE)
    name, known = min(_schemes().items(), key=lambda item: len(_differing(args, item[1])))
    for field in _differing(args, known):
        wanted = "null" if known[field] is None else str(known[field])
        refuse(f"{_WHERE}.{field}", args.get(field), wanted)
    return name


def _schemes() -> Mapping[str, Mapping[str, Any]]:
    """Return all that a scheme says of each format, with what it must not."""
    found = {name: kv_cache_scheme(fmt) for name, fmt in CACHE_FORMATS.items()}
    return {name: dict.fromkeys(_ABSENT) | scheme for name, scheme in found.items() if scheme}


def _differing(args: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    return [
        field
        for field, value in known.items()
        if args.get(field, value if field in _USUAL else None) != value
    ]

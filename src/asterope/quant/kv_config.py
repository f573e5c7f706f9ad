"""The `kv_cache_scheme` of a checkpoint: keys and values in fp8, a stored scale of each a layer.

Source: compressed-tensors 0.20, `quantization/quant_config.py`; the scales are the `k_scale` and
`v_scale` of an attention module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.quant.fields import check_fields, mapping, refuse

__all__ = ["is_fp8_cache", "kv_cache_scheme"]

_WHERE = "quantization_config.kv_cache_scheme"
_FP8: Mapping[str, object] = {
    "num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True,
}  # fmt: skip
_SILENT = (
    "group_size", "block_structure", "actorder", "observer", "observer_kwargs", "scale_dtype",
    "zp_dtype",
)  # fmt: skip
"""Fields that say how scales were found, or are null beside these."""


def kv_cache_scheme() -> dict[str, Any]:
    """Return the `kv_cache_scheme` of a cache in fp8."""
    return dict(_FP8)


def is_fp8_cache(value: Any) -> bool:
    """Tell whether a checkpoint's cache is in fp8; what is neither that nor left out is refused.

    Raises: UnsupportedError or CheckpointError naming the field.
    """
    if not value:
        return False
    args = mapping(value, _WHERE)
    check_fields(args, (*_FP8, *_SILENT), _WHERE)
    for field, known in _FP8.items():
        if args.get(field, known if field in {"dynamic", "symmetric"} else None) != known:
            refuse(f"{_WHERE}.{field}", args.get(field), str(known))
    for field in ("group_size", "block_structure", "actorder"):
        if args.get(field) is not None:
            refuse(f"{_WHERE}.{field}", args[field], "null")
    return True

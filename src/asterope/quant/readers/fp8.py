"""FP8 checkpoints of transformers and DeepSeek: `quant_method` "fp8" and "fbgemm_fp8".

| configuration | `weight` | scales | inputs |
|---|---|---|---|
| block size [128, 128] | e4m3 [N, K] | `weight_scale_inv` float32 [N / 128, K / 128] | by 128 |
| no block size | e4m3 [N, K] | `weight_scale_inv` or `weight_scale` float32 [] | fp8 |
| fbgemm_fp8 | e4m3 [N, K] | `weight_scale` float32 [N, 1] | fp8 |

`weight_scale_inv` multiplies, whatever its name says: it is the inverse of what weights were
multiplied by to become codes.

Source: transformers 5, `integrations/finegrained_fp8.py`, `integrations/fbgemm_fp8.py`,
`quantizers/quantizers_utils.py` (which modules are converted); vLLM, `quantization/fp8.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from asterope.quant.fields import check_fields, names, refuse
from asterope.quant.linear import QuantizedLinear
from asterope.quant.readers.layout import Layout, Tensors, check_tensors
from asterope.quant.readers.notes import BOUNDED_INPUTS
from asterope.quant.scheme import Scheme
from asterope.quant.stored import Places, stored_layer

__all__ = ["read_fbgemm_fp8", "read_fp8"]

_ROOT = "quantization_config"
_FIELDS = (
    "quant_method", "activation_scheme", "weight_block_size", "modules_to_not_convert",
    "ignored_layers", "fmt", "scale_fmt", "expert_dtype",
)  # fmt: skip
_FBGEMM_FIELDS = ("quant_method", "activation_scale_ub", "modules_to_not_convert")
_TENSORS = (
    "weight", "weight_scale_inv", "weight_scale", "input_scale", "activation_scale", "bias",
)  # fmt: skip
_BLOCK = [128, 128]


def read_fp8(config: Mapping[str, Any]) -> Layout:
    """Return how a checkpoint of `quant_method` "fp8" is quantized.

    Raises: UnsupportedError for blocks of another size, and fields that are not known.
    """
    check_fields(config, _FIELDS, _ROOT)
    for field, known in (
        ("activation_scheme", ("dynamic", "static", None)),
        ("weight_block_size", (_BLOCK, None)),
        ("fmt", ("e4m3", None)),
        ("scale_fmt", ("float", None)),
        ("expert_dtype", ("fp8", None)),
    ):
        if config.get(field) not in known:
            refuse(f"{_ROOT}.{field}", config.get(field), f"{known[0]!r}")
    is_static = config.get("activation_scheme") == "static"
    if config.get("weight_block_size"):
        if is_static:
            refuse(f"{_ROOT}.activation_scheme", "static", "dynamic, beside blocks of weights,")
        scheme = Scheme(weights="fp8_block128", activations="same")
    else:
        scheme = Scheme(weights="fp8_tensor", activations="fp8")
    field = "ignored_layers" if config.get("ignored_layers") else "modules_to_not_convert"
    return _layout(scheme, config, field, static_inputs=is_static)


def read_fbgemm_fp8(config: Mapping[str, Any]) -> Layout:
    """Return how a checkpoint of `quant_method` "fbgemm_fp8" is quantized.

    Raises: UnsupportedError for fields that are not known.
    """
    check_fields(config, _FBGEMM_FIELDS, _ROOT)
    scheme = Scheme(weights="fp8_row", activations="fp8")
    return _layout(scheme, config, "modules_to_not_convert", notes=(BOUNDED_INPUTS,))


def _layout(
    scheme: Scheme, config: Mapping[str, Any], field: str, *, static_inputs: bool = False,
    notes: tuple[str, ...] = (),
) -> Layout:  # fmt: skip
    where = f"{_ROOT}.{field}"
    kept = names(config.get(field), where)
    for name in kept:
        if re.search(r"[*?^$+()|\[\]\\{}]", name):
            refuse(where, name, "the name of a layer, or its beginning or end,")

    def scheme_of(name: str) -> Scheme | None:
        is_kept = any(name == k or name.startswith(f"{k}.") or name.endswith(k) for k in kept)
        return None if is_kept else scheme

    def layer(name: str, tensors: Tensors, metadata: Mapping[str, str]) -> QuantizedLinear:
        check_tensors(name, tensors, _TENSORS)
        scales, inputs = f"{name}.weight_scale_inv", f"{name}.activation_scale"
        if scales not in tensors and f"{name}.weight_scale" in tensors:
            scales = f"{name}.weight_scale"
        if inputs not in tensors and f"{name}.input_scale" in tensors:
            inputs = f"{name}.input_scale"
        places = Places(
            codes=f"{name}.weight", scales=scales, inputs=inputs if static_inputs else ""
        )
        return stored_layer(tensors, scheme, places)

    return Layout(scheme_of=scheme_of, layer=layer, notes=notes)

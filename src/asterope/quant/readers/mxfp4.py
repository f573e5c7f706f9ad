"""gpt-oss: `quant_method` "mxfp4", MXFP4 experts beside layers that are not quantized.

They are stored `[experts, rows, K / 32, 16]`, and read one by one, as `llm.packed_experts` names
them: of `NAME_blocks` and `NAME_scales` the rows of one, `NAME.weight_blocks` [N, K / 2] with the
even element of two in the low half of a byte, and `NAME.weight_scales` [N, K / 32], E8M0.

Source: transformers 5, `integrations/mxfp4.py` (`convert_moe_packed_tensors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.quant.fields import check_fields, names
from asterope.quant.linear import QuantizedLinear
from asterope.quant.readers.layout import Layout, Tensors, check_tensors, is_named
from asterope.quant.scheme import Scheme
from asterope.quant.stored import Places, stored_layer

__all__ = ["read_mxfp4"]

_ROOT = "quantization_config"
_FIELDS = ("quant_method", "modules_to_not_convert", "dequantize", "use_kernels")
_EXPERTS = ".mlp.experts."
_TENSORS = ("weight_blocks", "weight_scales", "bias")


def read_mxfp4(config: Mapping[str, Any]) -> Layout:
    """Return how a checkpoint of `quant_method` "mxfp4" is quantized: its experts alone are.

    Raises: UnsupportedError for fields that are not known.
    """
    check_fields(config, _FIELDS, _ROOT)
    kept = names(config.get("modules_to_not_convert"), f"{_ROOT}.modules_to_not_convert")
    scheme = Scheme(weights="mxfp4")

    def scheme_of(name: str) -> Scheme | None:
        return scheme if _EXPERTS in name and not is_named(name, kept) else None

    def layer(name: str, tensors: Tensors, metadata: Mapping[str, str]) -> QuantizedLinear:
        check_tensors(name, tensors, _TENSORS)
        places = Places(codes=f"{name}.weight_blocks", scales=f"{name}.weight_scales")
        return stored_layer(tensors, scheme, places)

    return Layout(scheme_of=scheme_of, layer=layer)

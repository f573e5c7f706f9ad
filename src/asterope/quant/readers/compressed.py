"""The compressed-tensors layout: what Asterope writes too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.quant.checkpoint import from_tensors
from asterope.quant.config import has_static_inputs, parse_quantization_config
from asterope.quant.readers.layout import Layout

__all__ = ["read_compressed"]


def read_compressed(config: Mapping[str, Any]) -> Layout:
    """Return how a compressed-tensors checkpoint is quantized.

    Raises: as `parse_quantization_config`.
    """
    scheme, ignored = parse_quantization_config(config)
    static = has_static_inputs(config)
    return Layout(
        scheme=scheme,
        layer=lambda name, tensors, _: from_tensors(name, tensors, scheme, static_inputs=static),
        is_kept=lambda name, _: name in ignored,
    )

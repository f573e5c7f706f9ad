"""The compressed-tensors layout: what Asterope writes too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.quant.checkpoint import from_tensors
from asterope.quant.config import has_static_inputs
from asterope.quant.linear import QuantizedLinear
from asterope.quant.mixed_config import parse_groups
from asterope.quant.readers.layout import Layout, Tensors

__all__ = ["read_compressed"]


def read_compressed(config: Mapping[str, Any]) -> Layout:
    """Return how a compressed-tensors checkpoint is quantized.

    Raises: as `parse_groups`.
    """
    scheme_of = parse_groups(config)
    is_static = has_static_inputs(config)

    def layer(name: str, tensors: Tensors, _: Mapping[str, str]) -> QuantizedLinear:
        scheme = scheme_of(name)
        assert scheme is not None
        has_inputs = scheme.activation_format is not None
        return from_tensors(name, tensors, scheme, static_inputs=is_static and has_inputs)

    return Layout(
        scheme_of=scheme_of,
        layer=layer,
        is_kept=lambda name, _: scheme_of(name) is None,
    )

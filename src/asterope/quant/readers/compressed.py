"""The compressed-tensors layout: what Asterope writes too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.quant.checkpoint import from_tensors
from asterope.quant.linear import QuantizedLinear
from asterope.quant.mixed_config import parse_groups
from asterope.quant.readers.layout import Layout, Tensors
from asterope.quant.readers.notes import STATIC_INPUTS

__all__ = ["read_compressed"]


def read_compressed(config: Mapping[str, Any]) -> Layout:
    """Return how a compressed-tensors checkpoint is quantized.

    Raises: as `parse_groups`.
    """
    scheme_of, groups = parse_groups(config), config["config_groups"]
    inputs = [group.get("input_activations") or {} for group in groups.values()]
    is_static = any(args.get("dynamic", True) is not True for args in inputs)

    def layer(name: str, tensors: Tensors, _: Mapping[str, str]) -> QuantizedLinear:
        scheme = scheme_of(name)
        assert scheme is not None
        return from_tensors(name, tensors, scheme)

    return Layout(
        scheme_of=scheme_of,
        layer=layer,
        is_kept=lambda name, _: scheme_of(name) is None,
        notes=(STATIC_INPUTS,) * is_static,
    )

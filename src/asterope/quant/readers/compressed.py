"""The compressed-tensors layout: what Asterope writes too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.quant.checkpoint import from_tensors
from asterope.quant.config import parse_quantization_config
from asterope.quant.readers.layout import Layout
from asterope.quant.readers.notes import STATIC_INPUTS

__all__ = ["read_compressed"]


def read_compressed(config: Mapping[str, Any]) -> Layout:
    """Return how a compressed-tensors checkpoint is quantized.

    Raises: as `parse_quantization_config`.
    """
    scheme, ignored = parse_quantization_config(config)
    inputs = [group.get("input_activations") or {} for group in config["config_groups"].values()]
    is_static = any(args.get("dynamic", True) is not True for args in inputs)
    return Layout(
        scheme=scheme,
        layer=lambda name, tensors, _: from_tensors(name, tensors, scheme),
        is_kept=lambda name, _: name in ignored,
        notes=(STATIC_INPUTS,) * is_static,
    )

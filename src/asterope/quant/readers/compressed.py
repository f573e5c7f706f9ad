"""The compressed-tensors layout: what Asterope writes too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.quant.checkpoint import from_tensors
from asterope.quant.kv_config import stored_cache_format
from asterope.quant.linear import QuantizedLinear
from asterope.quant.mixed_config import parse_groups
from asterope.quant.readers.layout import Layout, Tensors
from asterope.quant.scheme import Scheme

__all__ = ["read_compressed"]


def read_compressed(config: Mapping[str, Any]) -> Layout:
    """Return how a compressed-tensors checkpoint is quantized.

    Raises: as `parse_groups`.
    """
    group_of = parse_groups(config)

    def scheme_of(name: str) -> Scheme | None:
        group = group_of(name)
        return None if group is None else group.scheme

    def layer(name: str, tensors: Tensors, _: Mapping[str, str]) -> QuantizedLinear:
        group = group_of(name)
        assert group is not None
        return from_tensors(name, tensors, group.scheme, static_inputs=group.has_static_inputs)

    return Layout(
        scheme_of=scheme_of, layer=layer,
        cache_format=stored_cache_format(config.get("kv_cache_scheme")),
    )  # fmt: skip

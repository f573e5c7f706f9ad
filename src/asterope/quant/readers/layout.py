"""What a reader says of a checkpoint: how it is quantized, and how its layers become ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from asterope.errors import UnsupportedError
from asterope.quant.kv_config import CACHE_SCALES
from asterope.quant.linear import QuantizedLinear
from asterope.quant.mix import LayerModules, Plan, plan_of_modules
from asterope.quant.readers.notes import KV_CACHE
from asterope.quant.scheme import Scheme

__all__ = ["Layout", "Reader", "Tensors", "check_tensors", "is_named"]

Tensors = Mapping[str, torch.Tensor]
LayerReader = Callable[[str, Tensors, Mapping[str, str]], QuantizedLinear]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a checkpoint is quantized.

    `scheme_of(name)` tells the scheme of a layer, None where its name says that it is left plain.
    `layer(name, tensors, metadata)` makes a layer of the tensors whose names begin with its own,
    and of the text that the safetensors files carry beside them. `is_plain(name, own)` tells
    whether it was left plain by the full names of its tensors, where its name does not say so.
    `notes` say what is in the checkpoint and not used. `cache_format` is that of the KV cache; if
    it has scales of a layer, they are the `cache_scales` of its attention, of keys and of values,
    or `missing_scale` where that is said and they are not there.
    """

    scheme_of: Callable[[str], Scheme | None]
    layer: LayerReader
    is_plain: Callable[[str, Collection[str]], bool] = lambda _name, _own: False
    notes: tuple[str, ...] = ()
    cache_format: str = "auto"
    cache_scales: tuple[str, str] = CACHE_SCALES
    missing_scale: float | None = None

    def without_cache(self) -> Layout:
        """Return it for a model whose keys and values stay as computed, which is then a note."""
        if self.cache_format == "auto":
            return self
        return dataclasses.replace(self, cache_format="auto", notes=(*self.notes, KV_CACHE))

    def is_kept(self, name: str, own: Collection[str]) -> bool:
        """Tell whether a layer was left unquantized, by its name or those of its tensors."""
        return self.scheme_of(name) is None or self.is_plain(name, own)

    def plan(self, num_layers: int, names: LayerModules = ()) -> Plan:
        """Return how a model of so many layers is quantized, as far as names of modules tell.

        Raises: as `plan_of_modules`.
        """
        return plan_of_modules(self.scheme_of, num_layers, names)


Reader = Callable[[Mapping[str, object]], Layout]
"""From a `quantization_config` to a layout; raises UnsupportedError and CheckpointError."""


def is_named(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a layer, or what it is a part of, is in a list of names with wildcards."""
    return any(name.startswith(f"{p}.") or fnmatchcase(name, p) for p in patterns)


def check_tensors(name: str, tensors: Tensors, known: tuple[str, ...]) -> None:
    """Check that a layer has no tensors but those that are read, or known not to change weights.

    Raises: UnsupportedError naming the tensor.
    """
    for full in tensors:
        if full.removeprefix(f"{name}.") not in known:
            raise UnsupportedError(
                "is not understood, and might change what the layer computes", where=full,
                hint=f"tensors that are read: {', '.join(known)}",
            )  # fmt: skip

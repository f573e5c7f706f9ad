"""A KV cache in fp8: half the bytes that attention reads for each token of a context.

Each layer has one scale for its keys and one for its values, as vLLM has and compressed-tensors
stores. Queries, scores and weights stay in the model's type; the chip widens what it reads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch

from asterope.errors import CheckpointError, ConfigError, UnsupportedError
from asterope.llm.layers import KVCache, Layer
from asterope.llm.lazy_layers import LazyLayers
from asterope.llm.model import Model
from asterope.llm.states import in_batches, start_states

__all__ = ["CACHE_FORMATS", "CACHE_SCALES", "check_scale", "with_cache", "with_scales"]

CACHE_FORMATS: Mapping[str, torch.dtype | None] = MappingProxyType(
    {"auto": None, "fp8": torch.float8_e4m3fn}
)
"""The formats of a KV cache; `auto` is the type of the activations."""

CACHE_SCALES = ("k_scale", "v_scale")
"""What a layer's attention stores of them in a checkpoint."""


def with_cache(
    model: Model,
    name: str,
    windows: torch.Tensor | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Return the model with a KV cache in a format.

    With windows of tokens, scales are such that the largest key and value seen in a layer become
    the largest number of the format; without, they are 1, and what is larger than 448 becomes that.

    Shapes: windows [S, T].
    Raises: UnsupportedError for attention over latents in another format than `auto`; ConfigError
    for a format that does not exist, or tokens that the model does not have;
    CheckpointError for keys or values that are not finite, naming the layer.
    """
    if name not in CACHE_FORMATS:
        raise ConfigError(
            f"there is no {name!r}", where="KV cache", hint=f"use {' or '.join(CACHE_FORMATS)}"
        )
    dtype = CACHE_FORMATS[name]
    if dtype is not None and model.config.latent is not None:
        raise UnsupportedError(
            "latent vectors are cached in the type of activations only",
            where=model.name or "KV cache",
        )
    scales = [(1.0, 1.0)] * len(model.layers)
    if dtype is not None and windows is not None:
        most = torch.finfo(dtype).max
        scales = [
            (_scale(keys, most), _scale(values, most))
            for keys, values in _largest(model, windows, progress)
        ]
    return dataclasses.replace(with_scales(model, scales), cache_dtype=dtype)


def with_scales(model: Model, scales: Sequence[tuple[float, float]]) -> Model:
    """Return the model with a KV cache in fp8 and each layer's scales of keys and values."""
    if isinstance(model.layers, LazyLayers):
        lazy = model.layers.changed(
            lambda index, layer: dataclasses.replace(
                layer, key_scale=scales[index][0], value_scale=scales[index][1]
            )
        )
        return dataclasses.replace(model, layers=lazy, cache_dtype=CACHE_FORMATS["fp8"])
    changed: dict[tuple[int, float, float], Layer] = {}  # shapes share one layer: so do these
    layers = []
    for layer, (key_scale, value_scale) in zip(model.layers, scales, strict=True):
        key = (id(layer), key_scale, value_scale)
        if key not in changed:
            changed[key] = dataclasses.replace(layer, key_scale=key_scale, value_scale=value_scale)
        layers.append(changed[key])
    return dataclasses.replace(model, layers=layers, cache_dtype=CACHE_FORMATS["fp8"])


def check_scale(stored: torch.Tensor, name: str) -> float:
    """Return a stored scale of keys or values.

    Raises: CheckpointError naming the tensor, if it is not one positive number.
    """
    if stored.numel() != 1 or not stored.is_floating_point():
        raise CheckpointError(f"is {stored.dtype} {list(stored.shape)}, not a number", where=name)
    scale = float(stored)
    if not (math.isfinite(scale) and scale > 0):
        raise CheckpointError(f"is {scale}, not a positive number", where=name)
    return scale


def _scale(largest: float, most: float) -> float:
    """Return what the largest magnitude is divided by, as it is stored; 1 if all are zero."""
    return float(torch.tensor(largest / most, dtype=torch.float32)) if largest else 1.0


@torch.inference_mode()
def _largest(
    model: Model, windows: torch.Tensor, progress: Callable[[int, int], None] | None
) -> list[tuple[float, float]]:
    """Return the largest key and value of each layer over all windows."""
    model.check_tokens(windows.flatten().tolist(), where="calibration text")
    wide = dataclasses.replace(model, cache_dtype=None)
    batches = start_states(wide, in_batches(windows))
    most = torch.zeros(len(model.layers), 2)
    for index, layer in enumerate(model.layers):
        for batch in batches:
            batch.advance(wide, index, layer)
            most[index] = torch.maximum(most[index], torch.tensor(_magnitudes(batch.cache)))
        if progress:
            progress(index + 1, len(model.layers))
    for index, pair in enumerate(most.tolist()):
        if not all(map(math.isfinite, pair)):
            raise CheckpointError(
                "keys or values are not finite", where=f"model.layers.{index}.self_attn"
            )
    return [(float(keys), float(values)) for keys, values in most.tolist()]


def _magnitudes(cache: KVCache) -> tuple[float, float]:
    return float(cache.keys[0].abs().max()), float(cache.values[0].abs().max())

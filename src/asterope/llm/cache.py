"""A KV cache in fewer bits: half or a quarter of what attention reads of each token of a context.

Each layer has one scale for its keys and one for its values, as vLLM has and compressed-tensors
stores; in nvfp4 they stand above the scales of blocks, and mxfp4 has none. Queries, scores and
weights stay in the model's type; the chip widens what it reads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch

from asterope.errors import CheckpointError, UnsupportedError
from asterope.kernels import CACHE_FORMATS, CacheFormat, cache_format
from asterope.llm.layers import KVCache, Layer
from asterope.llm.lazy_layers import LazyLayers
from asterope.llm.model import Model
from asterope.llm.states import in_batches, start_states
from asterope.native import freed_at_once

__all__ = ["CACHE_FORMATS", "check_scale", "with_cache", "with_scales"]


def with_cache(
    model: Model,
    name: str,
    windows: torch.Tensor | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Return the model with a KV cache in a format.

    With windows of tokens, scales are such that the largest key and value seen in a layer become
    the largest number of the format; without, they are 1, and what is larger becomes that number.
    Formats without such scales need no windows.

    Shapes: windows [S, T].
    Raises: UnsupportedError for attention over latents in another format than `auto`; ConfigError
    for a format that does not exist, or tokens that the model does not have; ShapeError if blocks
    do not divide half a head; CheckpointError for keys or values that are not finite, naming the
    layer.
    """
    fmt = cache_format(name)
    _check(model, fmt)
    scales = [(1.0, 1.0)] * len(model.layers)
    if fmt.largest is not None and windows is not None:
        most = fmt.largest
        scales = [
            (_scale(keys, most), _scale(values, most))
            for keys, values in _largest(model, windows, progress)
        ]
    return with_scales(model, fmt, scales)


def with_scales(model: Model, fmt: CacheFormat, scales: Sequence[tuple[float, float]]) -> Model:
    """Return the model with a KV cache in a format and each layer's scales of keys and values.

    Raises: UnsupportedError or ShapeError as `with_cache` does.
    """
    _check(model, fmt)
    if isinstance(model.layers, LazyLayers):
        lazy = model.layers.changed(
            lambda index, layer: dataclasses.replace(
                layer, key_scale=scales[index][0], value_scale=scales[index][1]
            )
        )
        return dataclasses.replace(model, layers=lazy, cache_format=fmt)
    changed: dict[tuple[int, float, float], Layer] = {}  # shapes share one layer: so do these
    layers = []
    for layer, (key_scale, value_scale) in zip(model.layers, scales, strict=True):
        key = (id(layer), key_scale, value_scale)
        if key not in changed:
            changed[key] = dataclasses.replace(layer, key_scale=key_scale, value_scale=value_scale)
        layers.append(changed[key])
    return dataclasses.replace(model, layers=layers, cache_format=fmt)


def _check(model: Model, fmt: CacheFormat) -> None:
    if fmt.name != "auto" and model.config.latent is not None:
        raise UnsupportedError(
            "latent vectors are cached in the type of activations only",
            where=model.name or "KV cache",
        )
    fmt.check(model.config.head_dim)


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
@freed_at_once()
def _largest(
    model: Model, windows: torch.Tensor, progress: Callable[[int, int], None] | None
) -> list[tuple[float, float]]:
    """Return the largest key and value of each layer over all windows."""
    model.check_tokens(windows.flatten().tolist(), where="calibration text")
    wide = dataclasses.replace(model, cache_format=CACHE_FORMATS["auto"])
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
    keys, values = cache.keys[0], cache.values[0]
    assert isinstance(keys, torch.Tensor)
    assert isinstance(values, torch.Tensor)
    return float(keys.abs().max()), float(values.abs().max())

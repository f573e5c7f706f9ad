"""How much memory quantizing one layer needs, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from asterope.llm.config import ModelConfig
from asterope.llm.pieces import fused_pieces, projections, scheme_place
from asterope.llm.states import MAX_BATCH_TOKENS
from asterope.quant import Algorithm, Mix, QuantizedLinear, Scheme

__all__ = ["working_set_bytes"]

_FLOAT32, _FLOAT64 = 4, 8
_TRAINED = 7  # latent, gradient, two moments, scale, rounded, and their product
_KEPT = 4  # inputs, rounded inputs, outputs, and gradients of one of them
_Shapes = Mapping[str, tuple[int, int]]


def working_set_bytes(
    config: ModelConfig, mix: Mix, algorithm: Algorithm, dtype: torch.dtype,
    windows: tuple[int, int] = (0, 0), cache_windows: tuple[int, int] = (0, 0),
) -> int:  # fmt: skip
    """Return the bytes that quantizing the largest layer of a model works on.

    They are the layer as it was, fused, and as it becomes; the largest of its projections in
    float32, and scaled; for an algorithm that looks at text also the states, keys and values of all
    windows, the activations of those that run at once and one input in float32, the sum of products
    of each place's inputs in float64; for one that feeds errors back the curvature of the widest
    and the factor of its inverse; where there are branches the factor of the curvature, and the
    weight that they make up for, what they leave and what it is rounded to; and for one that tunes
    what a step of training holds, and the states of the original. Scales of a KV cache need the
    states and activations of their windows, if these are more. Not among them are temporary copies.

    Shapes: windows and cache_windows S of T tokens.
    """
    units = fused_pieces(config)
    parts = projections(config)
    shapes = {place: (sum(n for _, n, _, _ in row), row[0][2]) for place, row in parts.items()}
    largest = max(n * k for row in parts.values() for _, n, k, _ in row)
    plain = dtype.itemsize * sum(n * k for n, k in shapes.values())
    quantized = max(
        sum(
            _quantized_bytes(x, row[scheme_place(place)], dtype, len(units[place]))
            for place, x in shapes.items()
        )
        for row in (mix.of(index) for index in range(config.num_layers))
    )
    if config.latent is not None:
        plain += dtype.itemsize * config.num_heads * config.latent.head_size * config.latent.rank
    total = plain + quantized + 2 * _FLOAT32 * largest
    text = _text_bytes(config, shapes, dtype, windows) if algorithm.needs_text else 0
    total += max(text, _flowing_bytes(config, shapes, dtype, cache_windows))
    if algorithm.tunes:
        total += _tuning_bytes(config, shapes, dtype, windows)
    widest = max(k for _, k in shapes.values())
    if algorithm.feeds_back:
        total += (_FLOAT64 + _FLOAT32) * widest**2
    if any(scheme is not None and scheme.rank is not None for scheme in mix.counts):
        total += _FLOAT32 * (widest**2 + 3 * max(n * k for n, k in shapes.values()))
    return total


def _quantized_bytes(
    shape: tuple[int, int], scheme: Scheme | None, dtype: torch.dtype, experts: int
) -> int:
    if scheme is None:
        return 0  # it stays what it was
    return QuantizedLinear.empty(*shape, scheme, dtype=dtype, experts=experts).num_bytes


def _text_bytes(
    config: ModelConfig, shapes: _Shapes, dtype: torch.dtype, windows: tuple[int, int]
) -> int:
    """Count what is held of the windows, and of the inputs they give a layer."""
    widest = max(k for _, k in shapes.values())
    units = {place: len(rows) for place, rows in fused_pieces(config).items()}
    sums = _FLOAT64 * sum(units[place] * k * k for place, (_, k) in shapes.items())
    flowing = _flowing_bytes(config, shapes, dtype, windows)
    return flowing + _FLOAT32 * _at_once(windows) * widest + sums


def _flowing_bytes(
    config: ModelConfig, shapes: _Shapes, dtype: torch.dtype, windows: tuple[int, int]
) -> int:
    """Count the states of all windows, and the activations of those that run at once."""
    flowing = sum(n + k for n, k in shapes.values()) + config.cache_size
    held = windows[0] * windows[1] * 2 * config.hidden_size
    return dtype.itemsize * (held + _at_once(windows) * flowing)


def _at_once(windows: tuple[int, int]) -> int:
    """Return how many tokens of windows go through a layer at once."""
    return min(windows[0] * windows[1], max(MAX_BATCH_TOKENS, windows[1]))


def _tuning_bytes(
    config: ModelConfig, shapes: _Shapes, dtype: torch.dtype, windows: tuple[int, int]
) -> int:
    """Count what tuning a layer holds: all in float32, but the states of the original."""
    tokens, length = windows[0] * windows[1], windows[1]
    at_once = _at_once(windows)
    weights = sum(n * k for n, k in shapes.values())
    flowing = sum(n + k for n, k in shapes.values())
    scores = 2 * config.num_heads * length
    trained = _FLOAT32 * (_TRAINED * weights + at_once * (_KEPT * flowing + scores))
    return trained + dtype.itemsize * tokens * 2 * config.hidden_size

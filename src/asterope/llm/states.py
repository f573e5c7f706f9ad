"""Where windows of text are between two layers of a model, so that layers are run one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from asterope.kernels import CACHE_FORMATS
from asterope.llm.layers import KVCache, Layer
from asterope.llm.model import Model

__all__ = ["MAX_BATCH_TOKENS", "States", "in_batches", "start_states"]

MAX_BATCH_TOKENS = 1024
"""Tokens of windows that go through a layer at once."""


@dataclass(slots=True, eq=False)
class States:
    """What the layers so far gave for some windows, and room for one layer's keys and values.

    Nobody reads that room but the run of a layer that has just written it: states share it.

    Shapes: B windows of T tokens, M = B x T; residual and branch [M, H].
    """

    residual: torch.Tensor
    branch: torch.Tensor | None
    cache: KVCache

    def advance(self, model: Model, index: int, layer: Layer) -> None:
        """Run a layer in the place of the one with that index."""
        keys, values = self.cache.keys[0], self.cache.values[0]
        self.branch = model.run_layer(
            index, layer, self.residual, self.branch, keys, values, past=0
        )

    def copy(self) -> States:
        """Return states that go on from here; both write over the same keys and values."""
        return States(self.residual.clone(), self.branch, self.cache)


def start_states(model: Model, batches: Iterable[torch.Tensor]) -> list[States]:
    """Return where batches of windows are before the first layer. Shapes: each [B, T]."""
    one_layer = dataclasses.replace(model.config, num_layers=1, windows=model.config.windows[:1])
    caches: dict[torch.Size, KVCache] = {}
    states = []
    for windows in batches:
        if windows.shape not in caches:
            batch, length = windows.shape
            caches[windows.shape] = KVCache(
                one_layer, batch, length, model.dtype, CACHE_FORMATS["auto"], model.device
            )
        states.append(States(model.embed(windows.reshape(-1)), None, caches[windows.shape]))
    return states


def in_batches(windows: torch.Tensor) -> Sequence[torch.Tensor]:
    """Split windows [S, T] into batches of `MAX_BATCH_TOKENS` at most, or of one window."""
    parts: Sequence[torch.Tensor] = torch.split(
        windows, max(1, MAX_BATCH_TOKENS // windows.shape[1])
    )
    return parts

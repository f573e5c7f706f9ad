"""Where windows of text are between two layers of a model, so that layers are run one by one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from asterope.llm.layers import KVCache, Layer
from asterope.llm.model import Model

__all__ = ["MAX_BATCH_TOKENS", "States"]

MAX_BATCH_TOKENS = 1024
"""Tokens of windows that go through a layer at once."""


@dataclass(slots=True, eq=False)
class States:
    """What the layers so far gave for some windows, and room for one layer's keys and values.

    Shapes: B windows of T tokens, M = B x T; residual and branch [M, H].
    """

    residual: torch.Tensor
    branch: torch.Tensor | None
    cache: KVCache

    @classmethod
    def start(cls, model: Model, windows: torch.Tensor) -> States:
        """Return where windows are before the first layer. Shapes: windows [B, T]."""
        one_layer = dataclasses.replace(
            model.config, num_layers=1, windows=model.config.windows[:1]
        )
        batch, length = windows.shape
        cache = KVCache(one_layer, batch, length, model.dtype, model.device)
        return cls(model.embed(windows.reshape(-1)), None, cache)

    def advance(self, model: Model, index: int, layer: Layer) -> None:
        """Run a layer in the place of the one with that index."""
        keys, values = self.cache.keys[0], self.cache.values[0]
        self.branch = model.run_layer(
            index, layer, self.residual, self.branch, keys, values, past=0
        )

    def copy(self) -> States:
        """Return states that go on from here; both write over the same keys and values."""
        return States(self.residual.clone(), self.branch, self.cache)

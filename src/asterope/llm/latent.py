"""Attention of a layer over latent vectors (MLA): what it has besides a layer's usual projections.

Shapes: M tokens of width H, L the size of a latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asterope.kernels import latent_attention, rms_norm, turn_and_cache_latents
from asterope.llm.config import ModelConfig
from asterope.llm.linears import Linear

__all__ = ["LATENT_EPS", "LatentParts"]

LATENT_EPS = 1e-6
"""Of the norms of latents, whatever config.json says of others, as in DeepSeek's published code."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LatentParts:
    """How queries come of their latents or of the layer's input, and keys and values of theirs.

    `kv_up` stays in the type of activations: absorbed, it is applied to queries and results.

    Shapes: q_norm [query rank]; kv_norm [L]; kv_up [Hq (nope + V), L].
    """

    q_norm: torch.Tensor | None
    q_up: Linear
    kv_norm: torch.Tensor
    kv_up: torch.Tensor

    def attend(
        self, config: ModelConfig, normal: torch.Tensor, latents: torch.Tensor,
        cache: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor], *, past: int,
    ) -> torch.Tensor:  # fmt: skip
        """Cache the latents of new tokens, and return what their attention gives.

        Shapes: normal, the layer's input, [M, H]; latents, products of it, [M, query rank + L +
        rope]; cache [B, S, L + rope]; tables [S, rope / 2] each; result [M, Hq V].
        """
        sizes = config.latent
        assert sizes is not None
        if self.q_norm is not None:
            normal = rms_norm(latents[:, : sizes.query_rank], self.q_norm, LATENT_EPS)
        q = self.q_up.apply(normal).view(len(latents), config.num_heads, -1)
        turn_and_cache_latents(
            latents[:, sizes.query_rank :], q, cache, self.kv_norm, *tables, past=past,
            eps=LATENT_EPS, pairs=sizes.pairs,
        )  # fmt: skip
        return latent_attention(
            q, cache, self.kv_up, nope=sizes.nope, past=past, scale=config.score_scale
        )

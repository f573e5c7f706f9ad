"""A decoder layer as torch operators, through which gradients flow.

Shapes: B sequences of T tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from asterope.llm.config import ModelConfig
from asterope.llm.layers import rope_tables

__all__ = ["layer_output"]


def layer_output(
    config: ModelConfig, index: int, x_BTH: torch.Tensor,
    linear: Callable[[str, torch.Tensor], torch.Tensor],
    norms: Callable[[str], torch.Tensor | None],
) -> torch.Tensor:  # fmt: skip
    """Return what a layer with an MLP in a place makes of whole sequences, as `Model.run_layer`.

    `linear` is given a place of the layer and inputs [tokens, K]; `norms` the name of a norm's
    weight. All is computed in the type of x.

    Shapes: result [B, T, H], the residual in it.
    """
    batch, length, hidden = x_BTH.shape

    def normal(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, x.shape[-1:], norms(name), config.norm_eps)

    def heads(x: torch.Tensor, norm: str) -> torch.Tensor:
        return x if norms(norm) is None else normal(norm, x)

    flat = normal("attention_norm", x_BTH).reshape(-1, hidden)
    qkv = linear("qkv", flat).view(batch, length, -1, config.head_dim).transpose(1, 2)
    counts = [config.num_heads, config.num_kv_heads, config.num_kv_heads]
    q, k, v = qkv.split(counts, 1)  # type: ignore[no-untyped-call]
    tables = rope_tables(config, length)
    q, k = _rotated(heads(q, "q_norm"), *tables), _rotated(heads(k, "k_norm"), *tables)
    mixed = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=_seen(length, config.windows[index]), enable_gqa=True,
        scale=config.head_dim**-0.5,
    )  # fmt: skip
    mixed = mixed.transpose(1, 2).reshape(batch * length, -1)
    x_BTH = x_BTH + linear("output", mixed).view(x_BTH.shape)
    gate, up = linear("gate_up", normal("mlp_norm", x_BTH).reshape(-1, hidden)).chunk(2, -1)
    return x_BTH + linear("down", nn.functional.silu(gate) * up).view(x_BTH.shape)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _seen(length: int, window: int | None) -> torch.Tensor:
    """Return which keys each query sees. Shapes: result [T, T]."""
    places = torch.arange(length)
    before = places[:, None] - places[None, :]
    return (before >= 0) if window is None else (before >= 0) & (before < window)

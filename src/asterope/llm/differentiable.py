"""A decoder layer as torch operators, through which gradients flow.

Shapes: B sequences of T tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from asterope.llm.config import Clamp, LatentConfig, ModelConfig
from asterope.llm.latent import LATENT_EPS
from asterope.llm.layers import rope_tables

__all__ = ["layer_output"]

_Linears = Callable[[str, torch.Tensor], torch.Tensor]
_Norms = Callable[[str], torch.Tensor | None]
_Tables = tuple[torch.Tensor, torch.Tensor]


def layer_output(
    config: ModelConfig, index: int, x_BTH: torch.Tensor, linear: _Linears, norms: _Norms
) -> torch.Tensor:  # fmt: skip
    """Return what a layer with an MLP in a place makes of whole sequences, as `Model.run_layer`.

    `linear` is given a place of the layer and inputs [tokens, K]; `norms` the name of a vector as
    `Layer.named_vectors` has them. All is computed in the type of x.

    Shapes: result [B, T, H], the residual in it.
    """
    batch, length, hidden = x_BTH.shape

    def normal(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, x.shape[-1:], norms(name), config.norm_eps)

    flat = normal("attention_norm", x_BTH).reshape(-1, hidden)
    made = linear("qkv", flat).view(batch, length, -1)
    tables = rope_tables(config, length)
    if config.latent is None:
        q, k, v = _heads(config, made, norms, tables)
    else:
        q, k, v = _heads_of_latents(config, config.latent, flat, made, linear, norms, tables)
    mixed = _attention(q, k, v, _seen(length, config.windows[index]), config, norms("sinks"))
    mixed = mixed.transpose(1, 2).reshape(batch * length, -1)
    x_BTH = x_BTH + linear("output", mixed).view(x_BTH.shape)
    normed = normal("mlp_norm", x_BTH).reshape(-1, hidden)
    added = linear("down", _gated(linear("gate_up", normed), config.clamp))
    experts = config.at(index).experts
    if experts is not None and experts.shared_size:
        added = added + linear("shared_down", _gated(linear("shared_gate_up", normed)))
    return x_BTH + added.view(x_BTH.shape)


def _gated(x: torch.Tensor, clamp: Clamp | None = None) -> torch.Tensor:
    gate, up = x.chunk(2, -1)
    if clamp is None:
        return functional.silu(gate) * up
    gate, up = gate.clamp(max=clamp.limit), up.clamp(-clamp.limit, clamp.limit)
    return (up + 1) * gate * (clamp.alpha * gate).sigmoid()


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, config: ModelConfig,
    sinks: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """Return what attention gives, whose softmax has a score more of each head with sinks."""
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    if sinks is not None:  # scores of a key that is zero, as is its value
        k, v = functional.pad(k, (0, 0, 0, 1)), functional.pad(v, (0, 0, 0, 1))
        column = sinks.view(-1, 1, 1).expand(-1, len(mask), 1)
        mask = torch.cat([mask.expand(len(sinks), -1, -1), column], -1)
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, enable_gqa=True, scale=config.score_scale
    )


def _heads(
    config: ModelConfig, made: torch.Tensor, norms: _Norms, tables: _Tables
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values of `qkv`'s products. Shapes: each [B, heads, T, D]."""

    def heads(x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        if weight is not None:  # over each head, or over all
            parts = x.view(*x.shape[:2], -1, len(weight))
            x = functional.rms_norm(parts, weight.shape, weight, config.norm_eps)
        return x.view(*x.shape[:2], -1, config.head_dim).transpose(1, 2)

    q, k, v = torch.split(made, [config.q_size, config.kv_size, config.kv_size], -1)
    q, k, v = heads(q, norms("q_norm")), heads(k, norms("k_norm")), heads(v, None)

    return _rotated(q, *tables), _rotated(k, *tables), v


def _heads_of_latents(
    config: ModelConfig, sizes: LatentConfig, flat: torch.Tensor, made: torch.Tensor,
    linear: _Linears, norms: _Norms, tables: _Tables,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return queries, keys and values, made of latents, of each head. Shapes: as `_heads`."""

    def normal(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.rms_norm(x, x.shape[-1:], norms(name), LATENT_EPS)

    def turned(x: torch.Tensor) -> torch.Tensor:
        if not sizes.pairs:
            return _rotated(x, *tables)
        return _rotated(torch.cat([x[..., ::2], x[..., 1::2]], -1), *tables)

    ranks = [sizes.query_rank, sizes.rank, sizes.rope]
    latent_q, latent_kv, turning = torch.split(made, ranks, -1)
    if sizes.query_rank:
        flat = normal(latent_q, "query_norm").flatten(0, 1)
    q = linear("q_up", flat).view(*made.shape[:2], config.num_heads, -1).transpose(1, 2)
    kv_up = norms("kv_up")
    assert kv_up is not None
    kv = functional.linear(normal(latent_kv, "kv_norm"), kv_up)
    kv = kv.view(*made.shape[:2], config.num_heads, -1).transpose(1, 2)
    q_nope, q_turning = torch.split(q, [sizes.nope, sizes.rope], -1)
    k_nope, v = torch.split(kv, [sizes.nope, sizes.value], -1)
    key = turned(turning[:, None]).expand(-1, config.num_heads, -1, -1)
    return torch.cat([q_nope, turned(q_turning)], -1), torch.cat([k_nope, key], -1), v


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _seen(length: int, window: int | None) -> torch.Tensor:
    """Return which keys each query sees. Shapes: result [T, T]."""
    places = torch.arange(length)
    before = places[:, None] - places[None, :]
    return (before >= 0) if window is None else (before >= 0) & (before < window)

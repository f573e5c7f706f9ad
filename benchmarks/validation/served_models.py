"""Published models as shapes of operators, and what their weights and caches take of a chip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope import llm
from asterope.operators import (
    Heads,
    LatentHeads,
    MixtureOfExperts,
    Parallel,
    Precision,
    Transformer,
)

__all__ = ["kv_bytes_per_token", "transformer", "weight_bytes"]


def transformer(name: str, *, cache_bits: float = 16) -> Transformer:
    """Return the shape of a published model."""
    config = llm.published_config(name)
    num_layers = config["num_hidden_layers"]
    kinds = config.get("layer_types") or ["full_attention"] * num_layers
    window = config.get("sliding_window")
    return Transformer(
        hidden_size=config["hidden_size"], num_layers=num_layers,
        heads=_heads(config, cache_bits), vocab_size=config["vocab_size"],
        intermediate_size=config["intermediate_size"], moe=_moe(config),
        dense_layers=config.get("first_k_dense_replace", 0),
        head_norms=config["model_type"].startswith("qwen3") or config.get("use_qk_norm", False),
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
    )  # fmt: skip


def _heads(config: Mapping[str, Any], cache_bits: float) -> Heads | LatentHeads:
    query = config["num_attention_heads"]
    if "kv_lora_rank" in config:
        return LatentHeads(
            query=query, latent=config["kv_lora_rank"], rope=config["qk_rope_head_dim"],
            nope=config["qk_nope_head_dim"], value=config["v_head_dim"], cache_bits=cache_bits,
            query_latent=config.get("q_lora_rank") or 0,
        )  # fmt: skip
    dim = config.get("head_dim") or config["hidden_size"] // query
    return Heads(
        query=query, key_value=config["num_key_value_heads"], dim=dim, cache_bits=cache_bits
    )


def _moe(config: Mapping[str, Any]) -> MixtureOfExperts | None:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    num_experts = next((config[name] for name in names if config.get(name)), 0)
    if not num_experts:
        return None
    inner = config.get("moe_intermediate_size") or config["intermediate_size"]
    return MixtureOfExperts(
        num_experts=num_experts, top_k=config["num_experts_per_tok"], intermediate_size=inner,
        shared_intermediate=inner * config.get("n_shared_experts", 0),
    )  # fmt: skip


def weight_bytes(model: Transformer, precision: Precision, parallel: Parallel) -> float:
    """Count the bytes of one chip's share of the weights; embeddings and head are in 16 bits."""
    hidden, chips = model.hidden_size, parallel.tensor
    heads = model.heads
    if isinstance(heads, LatentHeads):
        around = (heads.query_latent or 0) * (hidden + heads.query * (heads.nope + heads.rope))
        around += hidden * (heads.latent + heads.rope)
        around += heads.query * (heads.nope + heads.value) * heads.latent
        around += heads.query * heads.value * hidden
    else:
        around = 2 * (heads.query + heads.key_value) * heads.dim * hidden
    dense = 3 * hidden * model.intermediate_size * (model.num_layers - model.num_moe_layers)
    total = (around * model.num_layers + dense) * precision.b_bits
    if model.moe is not None:
        each = 3 * hidden * model.moe.intermediate_size
        total += each * model.moe.num_experts * model.num_moe_layers * (
            precision.moe_bits or precision.b_bits
        )  # fmt: skip
        total += (
            3 * hidden * model.moe.shared_intermediate * model.num_moe_layers * precision.b_bits
        )
    total += 2 * hidden * model.vocab_size * 16
    return total / 8 / chips


def kv_bytes_per_token(model: Transformer, parallel: Parallel) -> float:
    """Count the bytes that a token takes of one chip's cache, in layers that keep all tokens."""
    heads = model.heads
    kept = model.layers_by_window().get(None, 0) or model.num_layers
    if isinstance(heads, LatentHeads):
        return kept * (heads.latent + heads.rope) * heads.cache_bits / 8
    shared = max(1, heads.key_value // parallel.tensor)
    return kept * 2 * shared * heads.dim * heads.cache_bits / 8

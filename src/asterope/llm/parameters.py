"""Count the weights of a decoder from its configuration: dense, mixture of experts, and MLA."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asterope.errors import ConfigError, UnsupportedError

__all__ = ["COUNTED_MODEL_TYPES", "ParameterCount", "count_parameters"]

COUNTED_MODEL_TYPES = frozenset({
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "glm_moe_dsa", "gpt_oss", "kimi_k2",
    "llama", "minimax_m2", "mistral", "mixtral", "olmoe", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe",
})  # fmt: skip
"""Architectures whose layers are attention and a gated MLP or experts, as counted here."""


_MAX_LAYERS = 100_000
_MAX_SIZE = 2**40


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCount:
    """The weights of a model's matrices.

    `total` is every matrix once; `active` those of one token, the embedding tables whole, as
    makers count; `multiplied` those a token is multiplied by: `active` without a separate input
    table, which is a look-up.
    """

    total: int
    active: int
    multiplied: int


def count_parameters(config: Mapping[str, Any]) -> ParameterCount:
    """Count the weights of the matrices that a Hugging Face configuration describes.

    Norms, biases, attention sinks and multi-token-prediction layers are left out.

    Raises: UnsupportedError for an architecture of another build; ConfigError naming the field
    that is missing or not a whole number.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in COUNTED_MODEL_TYPES:
        what = f"parameters of model type {reprlib.repr(model_type)} cannot be counted"
        hint = f"those of {', '.join(sorted(COUNTED_MODEL_TYPES))} can"
        raise UnsupportedError(what, where="model_type", hint=hint)
    table = _whole(config, "vocab_size") * _whole(config, "hidden_size")
    tied = bool(config.get("tie_word_embeddings", False))
    num_layers = _whole(config, "num_hidden_layers", at_most=_MAX_LAYERS)
    layers = [_layer(config, layer) for layer in range(num_layers)]
    tables = table if tied else 2 * table
    active = sum(active for _, active in layers)
    return ParameterCount(
        total=tables + sum(total for total, _ in layers),
        active=tables + active,
        multiplied=table + active,
    )


def _layer(config: Mapping[str, Any], layer: int) -> tuple[int, int]:
    """Count one layer's weights: all, and those of one token."""
    hidden = _whole(config, "hidden_size")
    attention = _mla(config, hidden) if "kv_lora_rank" in config else _gqa(config, hidden)
    num_experts = _num_experts(config)
    if not num_experts or not _is_moe_layer(config, layer):
        mlp = 3 * hidden * _whole(config, "intermediate_size")
        return attention + mlp, attention + mlp
    inner = "moe_intermediate_size" if "moe_intermediate_size" in config else "intermediate_size"
    expert = 3 * hidden * _whole(config, inner)
    always = attention + hidden * num_experts + expert * _whole(config, "n_shared_experts", 0)
    if "shared_expert_intermediate_size" in config:  # and the share of what it gives
        always += hidden * (3 * _whole(config, "shared_expert_intermediate_size") + 1)
    active_experts = _whole(config, "num_experts_per_tok")
    return always + expert * num_experts, always + expert * active_experts


def _gqa(config: Mapping[str, Any], hidden: int) -> int:
    """Count the projections of grouped-query attention."""
    heads = _whole(config, "num_attention_heads")
    kv_heads = _whole(config, "num_key_value_heads", heads)
    head_dim = _whole(config, "head_dim", hidden // max(heads, 1))
    return 2 * hidden * head_dim * (heads + kv_heads)


def _mla(config: Mapping[str, Any], hidden: int) -> int:
    """Count the projections of multi-head latent attention, with its indexer where it has one.

    Source: DeepSeek-V3 technical report, section 2.1.1; DeepSeek-V3.2, lightning indexer.
    """
    heads = _whole(config, "num_attention_heads")
    q_rank, kv_rank = _whole(config, "q_lora_rank", 0), _whole(config, "kv_lora_rank")
    nope, rope = _whole(config, "qk_nope_head_dim"), _whole(config, "qk_rope_head_dim")
    value = _whole(config, "v_head_dim")
    queries = hidden * q_rank + (q_rank or hidden) * heads * (nope + rope)
    keys_values = hidden * (kv_rank + rope) + kv_rank * heads * (nope + value)
    output = heads * value * hidden
    index_heads = _whole(config, "index_n_heads", 0)
    index_dim = _whole(config, "index_head_dim", 0)
    indexer = q_rank * index_heads * index_dim + hidden * (index_dim + index_heads)
    return queries + keys_values + output + indexer


def _num_experts(config: Mapping[str, Any]) -> int:
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if config.get(key) is not None:
            return _whole(config, key)
    return 0


def _is_moe_layer(config: Mapping[str, Any], layer: int) -> bool:
    """Tell whether a layer has experts; each model family has its own way to say so."""
    dense = config.get("mlp_only_layers") or ()
    if not isinstance(dense, (list, tuple)):
        raise ConfigError(f"{reprlib.repr(dense)} is not a list of layers", where="mlp_only_layers")
    return (
        layer >= _whole(config, "first_k_dense_replace", 0)
        and layer % max(_whole(config, "moe_layer_freq", 1), 1) == 0
        and (layer + 1) % max(_whole(config, "decoder_sparse_step", 1), 1) == 0
        and layer not in dense
    )


def _whole(
    config: Mapping[str, Any], key: str, default: int | None = None, *, at_most: int = _MAX_SIZE
) -> int:
    """Read a field that must be a whole number from zero to a limit."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise ConfigError("is missing from the model's configuration", where=key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= at_most:
        raise ConfigError(
            f"{reprlib.repr(value)} is not a whole number from 0 to {at_most}", where=key
        )
    return value

"""Small random checkpoints, written without transformers."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

from asterope.llm import KV_UP, ModelConfig, projections, routers

__all__ = ["LATENT", "LLAMA", "MIXTURES", "raw_config", "tensors_of", "write_checkpoint"]

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "dtype": "float32",
}

MIXTURES = {
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 64,
        "norm_topk_prob": True, "head_dim": 16,
    },
    "gpt_oss": {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 24},
    "olmoe": {"num_experts": 5, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 96,
    },
}  # fmt: skip
"""What makes a configuration one of experts, by model type."""

LATENT = {
    "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"],
    "kv_lora_rank": 32, "q_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 16, "moe_intermediate_size": 64, "n_routed_experts": 8,
    "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_shared_experts": 1, "n_group": 4,
    "topk_group": 2, "routed_scaling_factor": 2.5,
}  # fmt: skip
"""What makes a configuration one of latents and experts, the first layer without these."""


def raw_config(**changes):
    """Return the configuration with fields changed, or left out where None."""
    merged = {**LLAMA, **changes}
    return {k: v for k, v in merged.items() if v is not None or k not in changes}


def experts_of(config, prefix):
    """List the tensors of a layer's router."""
    if config.experts is None:
        return {}
    found = {
        f"{prefix}.{name}.weight": (rows, config.hidden_size)
        for name, rows in routers(config).items()
    }
    if config.experts.is_corrected:
        name = next(iter(routers(config)))
        found[f"{prefix}.{name}.e_score_correction_bias"] = (config.experts.count,)
    if config.experts.has_bias:
        found[f"{prefix}.{next(iter(routers(config)))}.bias"] = (config.experts.count,)
    return found


def latents_of(config, attention, prefix):
    """List what attention over latents has that no format rounds."""
    sizes = config.latent
    if sizes is None:
        return {}
    found = {
        f"{attention}.kv_a_layernorm.weight": (sizes.rank,),
        f"{prefix}.{KV_UP}.weight": (config.num_heads * sizes.head_size, sizes.rank),
    }
    if sizes.query_rank:
        found[f"{attention}.q_a_layernorm.weight"] = (sizes.query_rank,)
    return found


def shapes_of(config):
    """List every tensor of a checkpoint with its shape."""
    wide = (config.vocab_size, config.hidden_size)
    shapes = {"model.embed_tokens.weight": wide, "model.norm.weight": (config.hidden_size,)}
    if not config.tied_embeddings:
        shapes["lm_head.weight"] = wide
    for i in range(config.num_layers):
        prefix = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{norm}.weight"] = (config.hidden_size,)
        for norm, size in zip(("q_norm", "k_norm"), config.norm_sizes or (), strict=False):
            shapes[f"{prefix}.self_attn.{norm}.weight"] = (size,)
        if config.has_sinks:
            shapes[f"{prefix}.self_attn.sinks"] = (config.num_heads,)
        own = config.at(i)
        shapes |= experts_of(own, prefix) | latents_of(own, f"{prefix}.self_attn", prefix)
        for pieces in projections(own).values():
            for name, n, k, bias in pieces:
                shapes[f"{prefix}.{name}.weight"] = (n, k)
                if bias:
                    shapes[f"{prefix}.{name}.bias"] = (n,)
    return shapes


def tensors_of(raw, seed=0, dtype=torch.float32):
    """Make random weights for a configuration."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes_of(ModelConfig.from_dict(raw, where="config")).items():
        values = torch.randn(shape, generator=generator)
        made[name] = (values * 0.2 + ("norm" in name)).to(dtype)
    return made


def write_checkpoint(directory, raw=LLAMA, *, tensors=None, shards=1, seed=0):
    """Write config.json and the weights, in as many files as asked; return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(raw))
    tensors = tensors_of(raw, seed) if tensors is None else tensors
    if shards == 1:
        save_file(tensors, directory / "model.safetensors")
        return directory
    names, weight_map = sorted(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]
        save_file({n: tensors[n] for n in part}, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory

"""What the stored projections of a layer are made of, under the names of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from asterope.llm.config import LatentConfig, ModelConfig

__all__ = [
    "KV_UP",
    "Piece",
    "Units",
    "fused_pieces",
    "module_names",
    "projections",
    "routers",
    "scheme_place",
    "stored_name",
    "torch_name",
]

Piece = tuple[str, int, int, bool]
"""Checkpoint name, outputs, inputs, bias."""
KV_UP = "self_attn.kv_b_proj"
"""The module that makes keys and values of latents, which no format rounds."""
Units = tuple[tuple[Piece, ...], ...]
"""What engines fuse is one unit; of experts each has its own."""

_EXPERTS: Mapping[str, tuple[str, str, str, str]] = MappingProxyType({
    "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
    **dict.fromkeys(
        ("gpt_oss", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "kimi_k2"),
        ("mlp", "gate_proj", "up_proj", "down_proj"),
    ),
})  # fmt: skip
"""The module that has experts, and what an expert calls its gate, up and down projections."""
_OWN_NAMES = ("mlp", "gate_proj", "up_proj", "down_proj")
"""What transformers calls those of all families."""


def projections(config: ModelConfig) -> dict[str, tuple[Piece, ...]]:
    """List what each stored projection is made of, row below row.

    Experts are one below another, each with its gate above its up projection.
    """
    return {
        place: tuple(piece for unit in units for piece in unit)
        for place, units in fused_pieces(config).items()
    }


def fused_pieces(config: ModelConfig) -> dict[str, Units]:
    """Return the same, in the units that engines fuse: those that read one input, of one expert.

    All layers are taken to be alike; `config.at(layer)` says what those of one are.
    """
    hidden, q, kv, bias = config.hidden_size, config.q_size, config.kv_size, config.qkv_bias
    gate_up, down = _feed_forward(config)
    if config.latent is not None:
        return {
            **_over_latents(config, config.latent),
            "output": ((("self_attn.o_proj", hidden, q, config.output_bias),),),
            "gate_up": gate_up, "down": down, **_shared(config),
        }  # fmt: skip
    return {
        "qkv": ((
            ("self_attn.q_proj", q, hidden, bias),
            ("self_attn.k_proj", kv, hidden, bias),
            ("self_attn.v_proj", kv, hidden, bias),
        ),),
        "output": ((("self_attn.o_proj", hidden, q, config.output_bias),),),
        "gate_up": gate_up, "down": down, **_shared(config),
    }  # fmt: skip


def _over_latents(config: ModelConfig, latent: LatentConfig) -> dict[str, Units]:
    """List what makes latents and queries; `kv_up`, which makes keys and values, is read alone."""
    hidden, width = config.hidden_size, config.num_heads * (latent.nope + latent.rope)
    stored = latent.rank + latent.rope
    made: tuple[Piece, ...] = (("self_attn.kv_a_proj_with_mqa", stored, hidden, config.qkv_bias),)
    query: Piece = ("self_attn.q_proj", width, hidden, False)
    if latent.query_rank:
        made = (("self_attn.q_a_proj", latent.query_rank, hidden, config.qkv_bias), *made)
        query = ("self_attn.q_b_proj", width, latent.query_rank, False)
    return {"qkv": (made,), "q_up": ((query,),)}


def _shared(config: ModelConfig) -> dict[str, Units]:
    """List what the MLP beside the experts is made of."""
    if config.experts is None or not config.experts.shared_size:
        return {}
    hidden, inner, bias = config.hidden_size, config.experts.shared_size, config.mlp_bias
    name = "mlp.shared_expert" if config.family == "qwen2_moe" else "mlp.shared_experts"
    return {
        "shared_gate_up": ((
            (f"{name}.gate_proj", inner, hidden, bias), (f"{name}.up_proj", inner, hidden, bias),
        ),),
        "shared_down": (((f"{name}.down_proj", hidden, inner, bias),),),
    }  # fmt: skip


def scheme_place(place: str) -> str:
    """Return the place whose format a place has: of what a mix does not name by itself."""
    return {"q_up": "qkv"}.get(place, place.removeprefix("shared_"))


def _feed_forward(config: ModelConfig) -> tuple[Units, Units]:
    hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
    prefixes, (gate, up, down) = ["mlp"], ("gate_proj", "up_proj", "down_proj")
    if config.experts is not None:
        module, gate, up, down = _EXPERTS[config.family]
        prefixes = [f"{module}.experts.{i}" for i in range(config.experts.count)]
    both = tuple(
        ((f"{p}.{gate}", inner, hidden, bias), (f"{p}.{up}", inner, hidden, bias)) for p in prefixes
    )
    return both, tuple(((f"{p}.{down}", hidden, inner, bias),) for p in prefixes)


def module_names(config: ModelConfig) -> list[dict[str, tuple[str, ...]]]:
    """Return the modules of each layer by their names in a checkpoint.

    They are under the places that have formats of their own: those of `q_up` are under `qkv`.
    """

    @cache
    def of(own: ModelConfig) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for place, pieces in projections(own).items():
            under = scheme_place(place)
            found[under] = (*found.get(under, ()), *(name for name, *_ in pieces))
        return found

    return [of(config.at(layer)) for layer in range(config.num_layers)]


def torch_name(config: ModelConfig, name: str) -> str:
    """Return what transformers (5 and later) calls a module or tensor of a checkpoint."""
    return _renamed(name, dict(zip(_EXPERTS.get(config.family, ()), _OWN_NAMES, strict=False)))


def stored_name(config: ModelConfig, name: str) -> str:
    """Return what a checkpoint calls a module or tensor of transformers: undo `torch_name`."""
    return _renamed(name, dict(zip(_OWN_NAMES, _EXPERTS.get(config.family, ()), strict=False)))


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    return ".".join(parts.get(part, part) for part in name.split("."))


def routers(config: ModelConfig) -> dict[str, int]:
    """Return what the router of a layer of experts is made of, row below row, and the rows of each.

    Behind the experts' rows is that of the MLP beside them, where it has a share for each token.
    """
    experts = config.experts
    if experts is None:
        return {}
    name = "router" if config.family == "gpt_oss" else "gate"
    found = {f"{_EXPERTS[config.family][0]}.{name}": experts.count}
    return found | {"mlp.shared_expert_gate": 1} if experts.shared_gated else found

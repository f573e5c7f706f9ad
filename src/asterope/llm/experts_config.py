"""The mixture of experts of a model, from its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asterope.llm.fields import (
    EXPERTS,
    FLAG,
    LAYERS,
    POSITIVE,
    SIZE,
    Fields,
    list_of,
    one_of,
    whole,
)

__all__ = ["ALIKE", "DEEPSEEK", "ExpertsConfig", "read_experts"]

DEEPSEEK = ("deepseek_v2", "deepseek_v3", "kimi_k2")
"""Families that attend over latents, and may have experts in groups."""
ALIKE = ("gpt_oss", "mixtral", "olmoe")
"""Families that have experts in all layers, of `intermediate_size`."""
_WITH_EXPERTS = (*ALIKE, "qwen2_moe", "qwen3_moe", *DEEPSEEK)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertsConfig:
    """How many experts each layer has, and which of them see a token (`kernels.Routing`).

    All experts are alike. The `dense_layers` have a plain feed-forward part of `dense_size` in
    their place. An MLP of `shared_size`, where it is not 0, sees every token besides; with
    `shared_gated` its result is multiplied by a share of its own for each token. With
    `is_corrected` a checkpoint has numbers that are added to the scores experts are chosen by, with
    `has_bias` some that are added to the products that scores are made of.
    """

    count: int
    top_k: int
    normalized: bool
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    groups: int = 1
    top_groups: int = 1
    scale: float = 1.0
    is_corrected: bool = False
    has_bias: bool = False
    shared_size: int = 0
    shared_gated: bool = False
    dense_layers: tuple[int, ...] = ()
    dense_size: int = 0


def read_experts(fields: Fields, family: str, layers: int) -> ExpertsConfig | None:
    """Read the mixture of experts of a family, None for a dense model.

    Raises: CheckpointError naming the field that is missing, wrong or not supported.
    """
    if family not in _WITH_EXPERTS or (family in DEEPSEEK and not fields.has("n_routed_experts")):
        return None
    names = ("n_routed_experts", "num_experts", "num_local_experts")
    field = next((name for name in names if fields.has(name)), names[-1])
    count, top_k = fields.get(field, EXPERTS), fields.get("num_experts_per_tok", EXPERTS)
    if top_k > count:
        raise fields.fail(f"{top_k} is above {field} {count}", "num_experts_per_tok")
    if family in DEEPSEEK:
        return _deepseek(fields, family, layers, count, top_k)
    if family in ALIKE:
        normalized = family != "olmoe" or fields.get("norm_topk_prob", FLAG, False)
        return ExpertsConfig(
            count=count, top_k=top_k, normalized=normalized, has_bias=family == "gpt_oss"
        )
    return _qwen(fields, family, layers, count, top_k)


def _qwen(fields: Fields, family: str, layers: int, count: int, top_k: int) -> ExpertsConfig:
    """Read which layers are without experts, and the MLP beside these with its share."""
    named = fields.get("mlp_only_layers", list_of(whole(0, 10_000), "layers"), [])
    step = fields.get("decoder_sparse_step", LAYERS, 1)
    dense = tuple(i for i in range(layers) if i in named or (i + 1) % step)
    has_shared = family == "qwen2_moe"
    return ExpertsConfig(
        count=count, top_k=top_k, normalized=fields.get("norm_topk_prob", FLAG, False),
        shared_size=fields.get("shared_expert_intermediate_size", SIZE) if has_shared else 0,
        shared_gated=has_shared, dense_layers=dense,
        dense_size=fields.get("intermediate_size", SIZE) if dense else 0,
    )  # fmt: skip


def _deepseek(fields: Fields, family: str, layers: int, count: int, top_k: int) -> ExpertsConfig:
    """Read groups and scores of experts, the MLP beside them, and the layers without."""
    is_second = family == "deepseek_v2"
    scoring = fields.get(
        "scoring_func", one_of("softmax", "sigmoid"), "softmax" if is_second else "sigmoid"
    )
    if is_second != (scoring == "softmax"):
        raise fields.fail(f"{scoring} is not supported for {family}", "scoring_func")
    methods = ("greedy", "group_limited_greedy") if is_second else ("noaux_tc",)
    method = fields.get("topk_method", one_of(*methods), methods[0])
    normalized = fields.get("norm_topk_prob", FLAG, not is_second)
    if is_second and normalized:
        raise fields.fail("true is not supported for deepseek_v2", "norm_topk_prob")
    if fields.get("moe_layer_freq", LAYERS, 1) != 1:
        raise fields.fail(f"{fields.raw['moe_layer_freq']} is not supported", "moe_layer_freq",
                        "all layers behind the first ones have experts")  # fmt: skip
    dense = fields.get("first_k_dense_replace", whole(0, 10_000), 0 if is_second else 3)
    groups, best = 1, 1
    if method != "greedy":
        groups, best = (fields.get(name, EXPERTS, 1) for name in ("n_group", "topk_group"))
    if count % groups or best > groups or top_k > count // groups * best:
        raise fields.fail(
            f"{best} of {groups} groups of {count} experts have no {top_k}", "topk_group"
        )
    size = fields.get("moe_intermediate_size", SIZE)
    return ExpertsConfig(
        count=count, top_k=top_k, normalized=normalized, scoring=scoring, groups=groups,
        top_groups=best, scale=float(fields.get("routed_scaling_factor", POSITIVE, 1.0)),
        is_corrected=not is_second, dense_layers=tuple(range(min(dense, layers))),
        shared_size=size * fields.get("n_shared_experts", whole(0, 64), 0),
        dense_size=fields.get("intermediate_size", SIZE),
    )  # fmt: skip

"""What one of several chips holds of a model when they share its layers, or its experts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import torch

from asterope.errors import ConfigError, ShapeError, UnsupportedError
from asterope.llm.config import ExpertsConfig, ModelConfig
from asterope.llm.latent import LatentParts
from asterope.llm.layers import Layer, Linear, PlainLinear
from asterope.llm.model import Model
from asterope.llm.pieces import Units, fused_pieces
from asterope.llm.router import ExpertShare
from asterope.quant import QuantizedLinear

__all__ = ["shard"]


def shard(model: Model, chips: int, experts: int = 1) -> Model:
    """Return the shapes of one chip's part of a model that `chips` chips share.

    Heads are shared out, with them the rows of qkv and the columns of the output projection; the
    rows of gate and up, the columns of down; the vocabulary of the head. Key and value heads are
    copied where chips are more. Norms and the embedding are on each chip. With `experts` so many
    chips, those and others, share the experts out whole.

    Raises: ConfigError if chips cannot share the heads, the width of the MLP or the experts evenly;
    UnsupportedError for norms over all heads; ShapeError if the blocks of a format do not divide a
    part.
    """
    if chips == 1 and experts == 1:
        return model
    whole = model.config
    columns = whole.intermediate_size if experts == 1 else 0
    for what, size in (("query heads", whole.num_heads), ("MLP columns", columns)):
        if chips < 1 or size % chips:
            raise ConfigError(
                f"{size:,} {what} cannot be shared by {chips} chips", where="tensor_parallel"
            )
    if whole.num_kv_heads % chips and chips % whole.num_kv_heads:
        raise ConfigError(
            f"{whole.num_kv_heads} key heads cannot be shared by {chips} chips",
            where="tensor_parallel",
        )
    if chips > 1 and whole.norm_sizes and whole.norm_sizes[0] != whole.head_dim:
        raise UnsupportedError(
            "norms over all heads need all of them on one chip", where="tensor_parallel",
            hint="use expert_parallel alone",
        )  # fmt: skip
    mixture = _experts(whole, chips, experts)
    config = dataclasses.replace(
        whole, num_heads=whole.num_heads // chips,
        num_kv_heads=max(1, whole.num_kv_heads // chips),
        intermediate_size=columns // chips or whole.intermediate_size,
        vocab_size=-(-whole.vocab_size // chips), experts=mixture,
    )  # fmt: skip
    share = ExpertShare(chips=experts, group=chips) if experts > 1 else None

    def part(of: Mapping[str, Units], place: str, linear: Linear) -> Linear:
        units = of[place]
        rows = sum(rows for unit in units for _, rows, _, _ in unit)
        try:
            return _part(linear, rows, units[0][0][2], len(units))
        except ShapeError as error:
            raise ShapeError(
                error.what, where=f"{place} on one of {chips} chips",
                hint="use fewer chips, or a format without blocks",
            ) from None  # fmt: skip

    on_meta = model.on_meta()
    parts: dict[int, Layer] = {}  # layers of a model without weights are one and the same
    for i, layer in enumerate(on_meta.layers):
        if id(layer) in parts:
            continue
        router = layer.router and dataclasses.replace(layer.router, share=share)
        changed = layer.with_linears(functools.partial(part, fused_pieces(config.at(i))))
        parts[id(layer)] = dataclasses.replace(
            changed, router=router, latent=_latent(changed.latent, config),
            sinks=layer.sinks if layer.sinks is None else layer.sinks.new_empty(config.num_heads),
        )  # fmt: skip
    return dataclasses.replace(
        on_meta, config=config, layers=[parts[id(layer)] for layer in on_meta.layers],
        head=_part(on_meta.head, config.vocab_size, config.hidden_size),
    )  # fmt: skip


def _experts(config: ModelConfig, chips: int, sharing: int) -> ExpertsConfig | None:
    """Return the experts on one of `sharing` chips, `chips` of which share the other layers.

    An MLP beside the experts is shared as a plain one, or whole on each chip if these are.

    Raises: ConfigError if they cannot be shared evenly.
    """
    experts = config.experts
    if experts is None:
        if sharing > 1:
            raise ConfigError(
                f"a model without experts cannot be shared by {sharing} chips",
                where="expert_parallel",
            )
        return None
    if experts.count % sharing:
        raise ConfigError(
            f"{experts.count} experts cannot be shared by {sharing} chips", where="expert_parallel"
        )
    beside = chips if sharing == 1 else 1
    for size, by in ((experts.dense_size, chips), (experts.shared_size, beside)):
        if size % by:
            raise ConfigError(
                f"{size:,} MLP columns cannot be shared by {by} chips", where="tensor_parallel"
            )
    return dataclasses.replace(
        experts, count=experts.count // sharing, dense_size=experts.dense_size // chips,
        shared_size=experts.shared_size // beside,
    )  # fmt: skip


def _latent(latent: LatentParts | None, config: ModelConfig) -> LatentParts | None:
    """Return the part of one chip that has so many heads."""
    if latent is None or config.latent is None:
        return None
    rows = config.num_heads * config.latent.head_size
    return dataclasses.replace(latent, kv_up=latent.kv_up.new_empty((rows, config.latent.rank)))


def _part(linear: Linear, rows: int, columns: int, experts: int = 1) -> Linear:
    """Return a layer of the same kind with so many outputs and inputs."""
    if isinstance(linear, QuantizedLinear):
        bias = linear.bias
        kind = torch.bfloat16 if bias is None else bias.dtype
        return QuantizedLinear.empty(
            rows, columns, linear.scheme, bias=bias is not None, dtype=kind, experts=experts
        )
    assert isinstance(linear, PlainLinear)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=linear.weight.dtype, device="meta")

    return PlainLinear(empty(rows, columns), None if linear.bias is None else empty(rows))

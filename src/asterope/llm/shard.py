"""What one of several chips holds of a model when they share its layers (tensor parallelism)."""

from __future__ import annotations

import dataclasses

import torch

from asterope.errors import ConfigError, ShapeError
from asterope.llm.layers import Layer, Linear, PlainLinear
from asterope.llm.model import Model
from asterope.llm.pieces import projections
from asterope.quant import QuantizedLinear

__all__ = ["shard"]


def shard(model: Model, chips: int) -> Model:
    """Return the shapes of one chip's part of a model that `chips` chips share.

    Heads are shared out, with them the rows of qkv and the columns of the output projection; the
    rows of gate and up, the columns of down; the vocabulary of the head. Key and value heads are
    copied where chips are more. Norms and the embedding are on each chip.

    Raises: ConfigError if chips cannot share the heads or the width of the MLP evenly; ShapeError
    if the blocks of a format do not divide a part.
    """
    if chips == 1:
        return model
    whole = model.config
    for what, size in (("query heads", whole.num_heads), ("MLP columns", whole.intermediate_size)):
        if chips < 1 or size % chips:
            raise ConfigError(
                f"{size:,} {what} cannot be shared by {chips} chips", where="tensor_parallel"
            )
    if whole.num_kv_heads % chips and chips % whole.num_kv_heads:
        raise ConfigError(
            f"{whole.num_kv_heads} key heads cannot be shared by {chips} chips",
            where="tensor_parallel",
        )
    config = dataclasses.replace(
        whole, num_heads=whole.num_heads // chips,
        num_kv_heads=max(1, whole.num_kv_heads // chips),
        intermediate_size=whole.intermediate_size // chips,
        vocab_size=-(-whole.vocab_size // chips),
    )  # fmt: skip
    sizes = {
        place: (sum(rows for _, rows, _, _ in pieces), pieces[0][2])
        for place, pieces in projections(config).items()
    }

    def part(place: str, linear: Linear) -> Linear:
        try:
            return _part(linear, *sizes[place])
        except ShapeError as error:
            raise ShapeError(
                error.what, where=f"{place} on one of {chips} chips",
                hint="use fewer chips, or a format without blocks",
            ) from None  # fmt: skip

    on_meta = model.on_meta()
    parts: dict[int, Layer] = {}  # layers of a model without weights are one and the same
    for layer in on_meta.layers:
        if id(layer) not in parts:
            parts[id(layer)] = layer.with_linears(part)
    return dataclasses.replace(
        on_meta, config=config, layers=[parts[id(layer)] for layer in on_meta.layers],
        head=_part(on_meta.head, config.vocab_size, config.hidden_size),
    )  # fmt: skip


def _part(linear: Linear, rows: int, columns: int) -> Linear:
    """Return a layer of the same kind with so many outputs and inputs."""
    if isinstance(linear, QuantizedLinear):
        bias = linear.bias
        kind = torch.bfloat16 if bias is None else bias.dtype
        return QuantizedLinear.empty(
            rows, columns, linear.scheme, bias=bias is not None, dtype=kind
        )
    assert isinstance(linear, PlainLinear)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=linear.weight.dtype, device="meta")

    return PlainLinear(empty(rows, columns), None if linear.bias is None else empty(rows))

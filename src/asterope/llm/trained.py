"""Between models of ours and torch modules in training: what training starts from and makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from asterope.errors import CheckpointError, ConfigError
from asterope.llm.config import ModelConfig
from asterope.llm.layers import Layer, Linear, PlainLinear
from asterope.llm.model import Model
from asterope.llm.pieces import fused_pieces, projections, routers, torch_name
from asterope.llm.router import Router
from asterope.quant import (
    FakeQuantizedLinear,
    QuantizedLinear,
    Scheme,
    concatenate,
    quantized_layers,
    split,
    stack,
)

__all__ = ["start_from", "trained_model"]


def trained_model(original: Model, module: nn.Module) -> tuple[Model, Scheme]:
    """Return the model that a module in training stands for, and its scheme.

    The module has the layers of `original` under their names in checkpoints or in transformers, and
    `prepare_qat` made it. Codes and scales are those of its forward pass; what is not quantized is
    rounded to the original's type.

    Raises: ConfigError for a layer that is not quantized, or by another scheme; CheckpointError for
    a tensor that is missing, of another shape, or not finite.
    """
    trained = _Trained(original, module)
    layers = [trained.layer(index, layer) for index, layer in enumerate(original.layers)]
    embedding = trained.tensor("model.embed_tokens.weight", original.embedding)
    head: Linear = PlainLinear(embedding)
    if not original.config.tied_embeddings:
        assert isinstance(original.head, PlainLinear)
        head = PlainLinear(trained.tensor("lm_head.weight", original.head.weight))
    norm = trained.tensor("model.norm.weight", original.norm)
    model = dataclasses.replace(
        original, embedding=embedding, layers=layers, norm=norm, head=head,
        scheme=f"{trained.scheme.describe()}, trained",
    )  # fmt: skip
    return model, trained.scheme


def start_from(module: nn.Module, model: Model) -> None:
    """Let a module in training go on from a quantized model: norms, codes, scales and branches.

    The module is as in `trained_model`. Layers that `prepare_qat` has not replaced get the values.

    Raises: ConfigError for a layer that is not quantized by the module's scheme.
    """
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for index, layer in enumerate(model.layers):
            prefix, config = f"model.layers.{index}", model.config.at(index)
            for name, tensor in _unrounded(config, layer, prefix).items():
                own = _own_name(config, parameters, name)
                parameters[f"{own}.weight"].copy_(tensor)
            linears = layer.linears
            for place, pieces in projections(config).items():
                linear = linears[place]
                if not isinstance(linear, QuantizedLinear):
                    raise ConfigError(
                        "is not quantized, and training would start from it",
                        where=f"{prefix}.{pieces[0][0]}",
                    )
                parts = split(linear, [rows for _, rows, _, _ in pieces])
                for (name, *_), part in zip(pieces, parts, strict=True):
                    own = _own_name(config, parameters, f"{prefix}.{name}")
                    new = module.get_submodule(own)
                    if isinstance(new, FakeQuantizedLinear):
                        new.start(part)
                        continue
                    parameters[f"{own}.weight"].copy_(part.dequantize())
                    if part.bias is not None:
                        parameters[f"{own}.bias"].copy_(part.bias)


def _unrounded(config: ModelConfig, layer: Layer, prefix: str) -> dict[str, torch.Tensor]:
    """Return the norms of a layer, and the router, whose inputs may have been equalized."""
    found = {
        name.removesuffix(".weight"): getattr(layer, place)
        for place, name in _norm_names(prefix).items()
        if getattr(layer, place) is not None
    }
    if layer.router is None:
        return found
    assert isinstance(layer.router.linear, PlainLinear)
    rows = routers(config)
    weights = torch.split(layer.router.linear.weight, list(rows.values()))
    return found | {f"{prefix}.{name}": w for name, w in zip(rows, weights, strict=True)}


def _own_name(config: ModelConfig, tensors: Collection[str], name: str) -> str:
    """Return what a module calls one of a checkpoint."""
    return name if f"{name}.weight" in tensors else torch_name(config, name)


def _norm_names(prefix: str) -> dict[str, str]:
    return {
        "attention_norm": f"{prefix}.input_layernorm.weight",
        "mlp_norm": f"{prefix}.post_attention_layernorm.weight",
        "q_norm": f"{prefix}.self_attn.q_norm.weight",
        "k_norm": f"{prefix}.self_attn.k_norm.weight",
    }


class _Trained:
    """The tensors and quantized layers of a module, checked when taken."""

    def __init__(self, original: Model, module: nn.Module) -> None:
        self.config, self.dtype = original.config, original.dtype
        self.linears, self.tensors = quantized_layers(module), module.state_dict()
        self.scheme = next(iter(self.linears.values())).scheme

    def tensor(self, name: str, like: torch.Tensor) -> torch.Tensor:
        found = self.tensors.get(name)
        if found is None or found.shape != like.shape:
            what = "is missing" if found is None else f"has shape {list(found.shape)}"
            raise CheckpointError(f"{what}; the original has {list(like.shape)}", where=name)
        converted: torch.Tensor = found.detach().to(like.dtype).contiguous()
        if not bool(torch.isfinite(converted).all()):
            raise CheckpointError(
                "is not finite", where=name, hint="training diverged; use a smaller rate"
            )
        return converted

    def layer(self, index: int, original: Layer) -> Layer:
        prefix, config = f"model.layers.{index}", self.config.at(index)
        units = {
            place: [[self.own(f"{prefix}.{name}") for name, *_ in unit] for unit in parts]
            for place, parts in fused_pieces(config).items()
        }
        made = original.with_linears(lambda place, _: self.units(units[place]))
        found: dict[str, Any] = {
            place: self.tensor(name, getattr(original, place))
            for place, name in _norm_names(prefix).items()
            if getattr(original, place) is not None
        }
        if original.router is not None:
            rows = {f"{prefix}.{name}": count for name, count in routers(config).items()}
            found["router"] = self.router(rows, original.router)
        return dataclasses.replace(made, **found)

    def own(self, name: str) -> str:
        return _own_name(self.config, self.tensors, name)

    def router(self, rows: dict[str, int], original: Router) -> Router:
        """Return the router of parts that have so many rows each."""
        assert isinstance(original.linear, PlainLinear)
        weights = torch.split(original.linear.weight, list(rows.values()))
        weight = torch.cat([
            self.tensor(f"{self.own(name)}.weight", each)
            for name, each in zip(rows, weights, strict=True)
        ])  # fmt: skip
        return dataclasses.replace(
            original, linear=dataclasses.replace(original.linear, weight=weight)
        )

    def units(self, units: list[list[str]]) -> QuantizedLinear:
        """Return the layer of a place: one that engines fuse, or those of experts."""
        made = [self.linear(unit) for unit in units]
        return stack(made) if len(made) > 1 else made[0]

    def linear(self, names: list[str]) -> QuantizedLinear:
        parts: list[QuantizedLinear] = []
        for name in names:
            part = self.linears.get(name)
            if part is None or part.scheme != self.scheme:
                raise ConfigError(
                    "is not quantized" if part is None else "has another scheme than the first",
                    where=name,
                    hint="call prepare_qat once, on the whole model",
                )
            first = part if not parts else parts[0]
            if part.lora_a is not None and not torch.equal(part.lora_a, first.tensors["lora_a"]):
                raise ConfigError(
                    f"does not share the first factor of its branch with {names[0]}", where=name,
                    hint="leave `fused` of prepare_qat as it is",
                )  # fmt: skip
            bias = None if part.bias is None else part.bias.to(self.dtype)
            parts.append(dataclasses.replace(part, bias=bias))
        return concatenate(parts)

"""A layer that computes the same from inputs that round better.

What a norm gives is divided by one scale for all that read it: with experts these are the router
and all of them. What an expert's down projection reads is divided by a scale of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch

from asterope.llm.layers import Layer
from asterope.llm.linears import Linear, PlainLinear
from asterope.llm.rounded_units import Unit, round_units
from asterope.quant import BranchFitting, InputSums, Scheme, equalizing_scale
from asterope.quant import algorithm as named_algorithm

__all__ = ["equalized"]

_Sums = dict[str, Sequence[InputSums]]


def equalized(
    layer: Layer, schemes: Mapping[str, Scheme | None], units: Mapping[str, Sequence[Unit]],
    sums: Mapping[str, Sequence[InputSums]],
) -> tuple[Layer, _Sums]:  # fmt: skip
    """Return a layer that computes the same, to the bit before it is quantized, and its sums.

    The attention's outputs stay as they are: their scales would have to be one for several heads.
    """
    down, gate_up, qkv = _plain(layer.down), _plain(layer.gate_up), _plain(layer.qkv)
    count = len(units["down"])
    weights = down.weight.chunk(count)
    of_down = [
        _scale(weight, [unit], inputs, schemes["down"])
        for weight, unit, inputs in zip(weights, units["down"], sums["down"], strict=True)
    ]
    weight = torch.cat([_times(w, s) for w, s in zip(weights, of_down, strict=True)])
    down = PlainLinear(weight, down.bias)
    # Each expert's gate is above its up projection, whose outputs the down projection reads.
    gate_up = _rows_divided(
        gate_up, torch.cat([torch.cat([torch.ones_like(s), s]) for s in of_down])
    )
    inputs = InputSums.total(sums["gate_up"]) if count > 1 else sums["gate_up"][0]
    of_mlp = _scale(gate_up.weight, units["gate_up"], inputs, schemes["gate_up"])
    of_qkv = _scale(qkv.weight, units["qkv"], sums["qkv"][0], schemes["qkv"])
    router = layer.router
    if router is not None:
        read = _plain(router.linear)
        router = dataclasses.replace(
            router, linear=PlainLinear(_times(read.weight, of_mlp), read.bias)
        )
    made = dataclasses.replace(
        layer, down=down, gate_up=PlainLinear(_times(gate_up.weight, of_mlp), gate_up.bias),
        qkv=PlainLinear(_times(qkv.weight, of_qkv), qkv.bias), router=router,
        mlp_norm=(layer.mlp_norm / of_mlp).to(layer.mlp_norm.dtype),
        attention_norm=(layer.attention_norm / of_qkv).to(layer.attention_norm.dtype),
    )  # fmt: skip
    changed: _Sums = {
        **sums,
        "down": [s.divided(scale) for s, scale in zip(sums["down"], of_down, strict=True)],
        "gate_up": [s.divided(of_mlp) for s in sums["gate_up"]],
        "qkv": [sums["qkv"][0].divided(of_qkv)],
    }
    return made, changed


def _scale(
    weight: torch.Tensor, units: Sequence[Unit], inputs: InputSums, scheme: Scheme | None
) -> torch.Tensor:
    """Return what to divide the inputs of a weight by; ones where it is not quantized."""
    if scheme is None:
        return torch.ones(weight.shape[1])
    nearest, beside = named_algorithm("rtn"), scheme.without_branch
    unread = [inputs] * len(units)

    def made(weight: torch.Tensor, scale: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        if scheme.rank is None:
            return round_units(PlainLinear(weight), units, beside, nearest, unread).apply
        read = inputs.divided(scale)
        parts = torch.split(weight, [sum(unit.values()) for unit in units])
        branches = [BranchFitting(part, read, scheme).first() for part in parts]
        rest = torch.cat([b.taken_from(part) for b, part in zip(branches, parts, strict=True)])
        rounded = round_units(PlainLinear(rest), units, beside, nearest, unread)
        taken = torch.sub(weight, rest, out=rest)
        return lambda x: rounded.apply(x).addmm_(x, taken.T)

    return equalizing_scale(weight, inputs, made)


def _times(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (weight * scale).to(weight.dtype)


def _rows_divided(linear: PlainLinear, scale: torch.Tensor) -> PlainLinear:
    bias = None if linear.bias is None else (linear.bias / scale).to(linear.bias.dtype)
    return PlainLinear((linear.weight / scale[:, None]).to(linear.weight.dtype), bias)


def _plain(linear: Linear) -> PlainLinear:
    assert isinstance(linear, PlainLinear)
    return linear

"""A layer that computes the same from inputs that round better.

What a norm gives is divided by one scale for all that read it: with experts these are the router,
all of them, and those beside them; over latents, what makes queries may have a norm of its own.
What an expert's down projection reads is divided by a scale of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch

from asterope.llm.layers import Layer
from asterope.llm.linears import Linear, PlainLinear
from asterope.llm.pieces import scheme_place
from asterope.llm.rounded_units import Unit, round_units
from asterope.quant import BranchFitting, InputSums, Scheme, equalizing_scale
from asterope.quant import algorithm as named_algorithm

__all__ = ["equalized"]

_Sums = dict[str, Sequence[InputSums]]
_MLPS = (("gate_up", "down"), ("shared_gate_up", "shared_down"))


def equalized(
    layer: Layer, schemes: Mapping[str, Scheme | None], units: Mapping[str, Sequence[Unit]],
    sums: Mapping[str, Sequence[InputSums]],
) -> tuple[Layer, _Sums]:  # fmt: skip
    """Return a layer that computes the same, to the bit before it is quantized, and its sums.

    The attention's outputs stay as they are: their scales would have to be one for several heads.
    """
    made = _Equalized(layer, schemes, units, sums)
    for gate_up, down in _MLPS:
        if down in made.linears and layer.clamp is None:  # which knows how large its inputs are
            made.equalize_inner(gate_up, down)
    of_mlp = made.equalize([gate_up for gate_up, _ in _MLPS if gate_up in made.linears])
    latent, router, first = layer.latent, layer.router, ["qkv"]
    if latent is not None and latent.q_norm is None:
        first.append("q_up")
    elif latent is not None:
        latent = dataclasses.replace(
            latent, q_norm=_divided(latent.q_norm, made.equalize(["q_up"]))
        )
    of_attention = made.equalize(first)
    if router is not None:
        read = _plain(router.linear)
        router = dataclasses.replace(
            router, linear=PlainLinear(_times(read.weight, of_mlp), read.bias, read.out_dtype)
        )
    changed = dataclasses.replace(
        layer, router=router, latent=latent, mlp_norm=_divided(layer.mlp_norm, of_mlp),
        attention_norm=_divided(layer.attention_norm, of_attention),
    )  # fmt: skip
    return changed.with_linears(lambda place, _: made.linears[place]), made.sums


class _Equalized:
    """The linear layers by their places, and the sums over their inputs, as they are so far."""

    def __init__(
        self, layer: Layer, schemes: Mapping[str, Scheme | None],
        units: Mapping[str, Sequence[Unit]], sums: Mapping[str, Sequence[InputSums]],
    ) -> None:  # fmt: skip
        self.linears = {place: _plain(linear) for place, linear in layer.linears.items()}
        self.sums = dict(sums)
        self._schemes, self._units = schemes, units

    def equalize(self, places: Sequence[str]) -> torch.Tensor:
        """Divide the inputs that places share; return the scale, for the norm that gives them."""
        first = places[0]
        weights = [self.linears[place].weight for place in places]
        sums = self.sums[first]
        scale = _scale(
            torch.cat(weights) if len(weights) > 1 else weights[0],
            [self._units[place] for place in places],
            InputSums.total(sums) if len(sums) > 1 else sums[0], self._scheme(first),
        )  # fmt: skip
        for place in places:
            linear = self.linears[place]
            self.linears[place] = PlainLinear(_times(linear.weight, scale), linear.bias)
            self.sums[place] = [each.divided(scale) for each in self.sums[place]]
        return scale

    def equalize_inner(self, gate_up: str, down: str) -> None:
        """Divide what each down projection reads, and the outputs of the up projection before."""
        linear, units, sums = self.linears[down], self._units[down], self.sums[down]
        weights = linear.weight.chunk(len(units))
        scales = [
            _scale(weight, [[unit]], inputs, self._scheme(down))
            for weight, unit, inputs in zip(weights, units, sums, strict=True)
        ]
        weight = torch.cat([_times(w, s) for w, s in zip(weights, scales, strict=True)])
        self.linears[down] = PlainLinear(weight, linear.bias)
        self.sums[down] = [s.divided(scale) for s, scale in zip(sums, scales, strict=True)]
        # Each expert's gate is above its up projection, whose outputs the down projection reads.
        rows = torch.cat([torch.cat([torch.ones_like(s), s]) for s in scales])
        self.linears[gate_up] = _rows_divided(self.linears[gate_up], rows)

    def _scheme(self, place: str) -> Scheme | None:
        return self._schemes[scheme_place(place)]


def _scale(
    weight: torch.Tensor, units: Sequence[Sequence[Unit]], inputs: InputSums,
    scheme: Scheme | None,
) -> torch.Tensor:  # fmt: skip
    """Return what to divide the inputs of a weight by; ones where it is not quantized.

    The weight is that of several places, one below another; `units` are those of each.
    """
    if scheme is None:
        return torch.ones(weight.shape[1])
    rows = [[sum(unit.values()) for unit in place] for place in units]

    def rounded(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        made = [
            round_units(
                PlainLinear(part), place, scheme.without_branch, named_algorithm("rtn"),
                [inputs] * len(place),
            )
            for part, place in zip(torch.split(weight, list(map(sum, rows))), units, strict=True)
        ]  # fmt: skip
        return lambda x: torch.cat([each.apply(x) for each in made], 1)

    def made(weight: torch.Tensor, scale: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        if scheme.rank is None:
            return rounded(weight)
        read = inputs.divided(scale)
        parts = torch.split(weight, [n for place in rows for n in place])
        branches = [BranchFitting(part, read, scheme).first() for part in parts]
        rest = torch.cat([b.taken_from(part) for b, part in zip(branches, parts, strict=True)])
        apply = rounded(rest)
        taken = torch.sub(weight, rest, out=rest)
        return lambda x: apply(x).addmm_(x, taken.T)

    return equalizing_scale(weight, inputs, made)


def _divided(norm: torch.Tensor | None, scale: torch.Tensor) -> torch.Tensor:
    assert norm is not None
    return (norm / scale).to(norm.dtype)


def _times(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (weight * scale).to(weight.dtype)


def _rows_divided(linear: PlainLinear, scale: torch.Tensor) -> PlainLinear:
    bias = None if linear.bias is None else (linear.bias / scale).to(linear.bias.dtype)
    return PlainLinear((linear.weight / scale[:, None]).to(linear.weight.dtype), bias)


def _plain(linear: Linear) -> PlainLinear:
    assert isinstance(linear, PlainLinear)
    return linear

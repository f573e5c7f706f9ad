"""Tune the rounding of a layer until it gives what the original gives.

Shapes: B sequences of T tokens, H hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from asterope.llm.differentiable import layer_output
from asterope.llm.layers import Layer, Linear, PlainLinear
from asterope.llm.model import Model
from asterope.llm.sent_rows import SentRows
from asterope.llm.states import States
from asterope.quant import LearnedRounding, QuantizedLinear, fake_inputs

__all__ = ["TuningPlan", "tune_layer"]

_NORMS = ("attention_norm", "mlp_norm")
_OF_EXPERTS = ("gate_up", "down")
_BETAS = (0.9, 0.95)
_LEAST = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningPlan:
    """How long a layer is tuned, and how fast: Adam, whose rates fall to zero.

    `rate` is in units of a weight's scale, `norm_rate` a share of the root mean square of a norm or
    a factor of a branch.
    """

    steps: int = 200
    rate: float = 0.003
    norm_rate: float = 0.001
    seed: int = 0


@torch.inference_mode(mode=False)
def tune_layer(
    model: Model, index: int, plain: Layer, quantized: Layer, inputs: Sequence[States],
    wanted: Sequence[States], plan: TuningPlan | None = None,
) -> Layer:  # fmt: skip
    """Return a layer moved, codes, norms and branches, until it gives what the original gives.

    `plain` is what `quantized` rounds; `inputs` are where text is before the layer in the quantized
    model, `wanted` where it is behind that layer in the original. The loss is the mean over tokens
    of the squared error as a share of the token's square, since the norms that follow divide by
    that. Inputs of linear layers are rounded as they will be. Experts get the tokens that the
    router sends them in that step.

    Cost: a step computes the layer forward and backward on one of the batches of states.
    """
    plan = plan or TuningPlan()
    tuned = _TunedLayer(plain, quantized)
    optimizer = torch.optim.Adam(tuned.groups(plan), betas=_BETAS)
    pick = torch.Generator().manual_seed(plan.seed + index)
    order: list[int] = []
    for step in range(plan.steps):
        order = order or torch.randperm(len(inputs), generator=pick).tolist()
        batch = order.pop()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * (1 - step / plan.steps)
        optimizer.zero_grad()
        made = layer_output(model.config, index, _reached(inputs[batch]), tuned.linear, tuned.norm)
        _loss(made, _reached(wanted[batch])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return tuned.result(model.dtype)


def _reached(states: States) -> torch.Tensor:
    """Return where text is, in float32. Shapes: result [B, T, H]."""
    x = states.residual.float()
    if states.branch is not None:
        x = x + states.branch.float()
    batch, _, length, _ = states.cache.keys[0].shape
    return x.view(batch, length, -1).clone()


def _loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    sizes = wanted.square().mean(-1).clamp_min(_LEAST)
    return ((made - wanted).square().mean(-1) / sizes).mean()


class _TunedLinear(nn.Module):
    """A linear layer of the layer that is tuned; one that is not quantized stays as it is.

    Those of experts are one below another; each has the next of the rows, so many as `counts` says.
    """

    def __init__(self, plain: Linear, quantized: Linear) -> None:
        super().__init__()
        assert isinstance(plain, PlainLinear)
        self.quantized = quantized
        assert isinstance(quantized, (PlainLinear, QuantizedLinear))
        self.bias = None if quantized.bias is None else quantized.bias.float().clone()
        self.rounding, self.branch = None, nn.ParameterList()
        if isinstance(quantized, QuantizedLinear):
            self.rounding = LearnedRounding(plain.weight, quantized)
            factors = (quantized.lora_a, quantized.lora_b)
            self.branch.extend(nn.Parameter(f.float()) for f in factors if f is not None)
        else:
            self.fixed = plain.weight.float().clone()

    def forward(self, x: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        if self.rounding is None:
            return _products(x, self.fixed, counts, self.bias)
        inputs = fake_inputs(x, self.rounding.start.scheme)
        made = _products(inputs, self.rounding(), counts, self.bias)
        inner = x
        for factor in self.branch:
            inner = _products(inner, factor, counts)
        return made + inner if len(self.branch) else made

    def result(self) -> Linear:
        """Return the layer that the runtime has."""
        if self.rounding is None:
            return self.quantized
        made = self.rounding.quantized()
        if not len(self.branch):
            return made
        first, second = (factor.detach().to(torch.bfloat16) for factor in self.branch)
        return dataclasses.replace(made, lora_a=first, lora_b=second)


def _products(
    x: torch.Tensor, weight: torch.Tensor, counts: Sequence[int], bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the product of the rows of each expert with its weight, one below another."""
    parts, weights = torch.split(x, list(counts)), weight.chunk(len(counts))
    biases = [None] * len(counts) if bias is None else bias.chunk(len(counts))
    made = [functional.linear(*each) for each in zip(parts, weights, biases, strict=True)]
    return made[0] if len(made) == 1 else torch.cat(made)


class _TunedLayer(nn.Module):
    """The linear layers and norms of a layer that is tuned."""

    def __init__(self, plain: Layer, quantized: Layer) -> None:
        super().__init__()
        self.quantized = quantized
        self.sent: SentRows | None = None
        self.linears = nn.ModuleDict({
            place: _TunedLinear(linear, quantized.linears[place])
            for place, linear in plain.linears.items()
        })  # fmt: skip
        self.norms = nn.ParameterDict({
            name: nn.Parameter(getattr(quantized, name).float().clone()) for name in _NORMS
        })  # fmt: skip

    def linear(self, place: str, x: torch.Tensor) -> torch.Tensor:
        """Return what the linear layer of a place makes of x.

        The first of experts takes tokens and gives rows, the last takes rows and gives tokens.
        """
        router, sent = self.quantized.router, self.sent
        if router is None or place not in _OF_EXPERTS:
            made: torch.Tensor = self.linears[place](x, [len(x)])
            if place == "shared_down" and sent is not None and sent.beside.shape[1]:
                return made * sent.beside
            return made
        if place == _OF_EXPERTS[0]:
            sent = self.sent = SentRows.of(router, x)
            return self.linears[place](sent.rows, sent.counts)  # type: ignore[no-any-return]
        assert sent is not None
        return sent.returned(self.linears[place](x, sent.counts))

    def norm(self, name: str) -> torch.Tensor | None:
        """Return the weight of a norm, None if there is none of that name."""
        weight: torch.Tensor | None = {**self.quantized.named_vectors, **self.norms}[name]
        return None if weight is None else weight.float()

    def groups(self, plan: TuningPlan) -> list[dict[str, Any]]:
        """Return what is tuned, and how fast at most."""
        linears = [linear for linear in self.linears.values() if isinstance(linear, _TunedLinear)]
        roundings = [linear.rounding for linear in linears if linear.rounding is not None]
        latents = [latent for rounding in roundings for latent in rounding.parameters()]
        groups: list[dict[str, Any]] = [{"params": latents, "peak": plan.rate}]
        branches = (factor for linear in linears for factor in linear.branch)
        for other in (*self.norms.values(), *branches):
            size = float(other.detach().square().mean().sqrt())
            groups.append({"params": [other], "peak": plan.norm_rate * size})
        return groups

    def result(self, dtype: torch.dtype) -> Layer:
        """Return the layer that the runtime has."""
        changed: dict[str, Any] = {n: w.detach().to(dtype) for n, w in self.norms.items()}

        def result(place: str, _: Linear) -> Linear:
            linear = self.linears[place]
            assert isinstance(linear, _TunedLinear)
            return linear.result()

        return dataclasses.replace(self.quantized.with_linears(result), **changed)

"""Train what will be rounded: linear layers of a torch model that compute as quantized ones do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from asterope.errors import ConfigError, FormatError, UnsupportedError
from asterope.quant.fake_quant import fake_inputs, fake_weight, quantize_latent
from asterope.quant.learned_scales import scales_shape
from asterope.quant.linear import QuantizedLinear
from asterope.quant.rtn import common_amax
from asterope.quant.scheme import UNQUANTIZED, Scheme
from asterope.quant.scheme import scheme as parse_scheme

__all__ = ["FUSED", "FakeQuantizedLinear", "prepare_qat", "quantized_layers"]

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections of the same input, which engines fuse: they share what a global scale follows from.
"""


class FakeQuantizedLinear(nn.Module):
    """A linear layer in training that computes what its quantized form will.

    `weight` and `bias` are those of the layer it replaces, the same parameters, and are what is
    trained. The output is the product of the rounded inputs and the rounded weight, in float32 if
    autocast does not say otherwise, in the type of the inputs; `QuantizedLinear.apply` has the same
    operands, bit for bit, and adds their products up in another order. `log2_scale`, if scales are
    learned, moves each block's; it starts at zero.

    Shapes: weight [N, K]; bias [N]; log2_scale [N, blocks].
    """

    def __init__(
        self, layer: nn.Linear, scheme: Scheme, *, name: str, learn_scales: bool = False
    ) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.scheme, self.name = scheme, name
        self.fused: tuple[FakeQuantizedLinear, ...] = ()
        self.log2_scale: nn.Parameter | None = None
        if learn_scales:
            zeros = torch.zeros(scales_shape((layer.out_features, layer.in_features), scheme))
            self.log2_scale = nn.Parameter(zeros)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + bias of rounded operands. Shapes: x [..., K]; result [..., N].

        Raises: CheckpointError if the weight is not finite any more; UnsupportedError if it is not
        on the CPU, where the codec runs. Both name the layer.
        """
        if self.weight.device.type != "cpu":
            raise UnsupportedError(
                f"its weight is on {self.weight.device.type}; layers are rounded on the CPU",
                where=self.name, hint="call model.cpu(); with Trainer, use_cpu=True",
            )  # fmt: skip
        values = fake_weight(
            self.weight, self.scheme, name=self.name, amax=self._amax(), log2_scale=self.log2_scale
        )
        inputs = fake_inputs(x.reshape(-1, self.in_features), self.scheme)
        bias = None if self.bias is None else self.bias.float()
        y = nn.functional.linear(inputs, values, bias)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def quantized(self) -> QuantizedLinear:
        """Return the layer that the runtime has: the codes and scales of a forward pass now."""
        bias = None if self.bias is None else self.bias.detach()
        with torch.no_grad():
            made = quantize_latent(
                self.weight, self.scheme, name=self.name, amax=self._amax(),
                log2_scale=self.log2_scale,
            )  # fmt: skip
        return dataclasses.replace(made, bias=bias)

    def extra_repr(self) -> str:
        """Say the shape and the scheme when the model is printed."""
        return f"{self.in_features}, {self.out_features}, {self.scheme.describe()}"

    def _amax(self) -> float | None:
        if not self.fused:
            return None
        with torch.no_grad():
            return common_amax([layer.weight for layer in self.fused], self.scheme)


def prepare_qat(
    model: nn.Module,
    scheme: Scheme | str,
    *,
    ignore: Sequence[str] = ("lm_head",),
    fused: Sequence[Sequence[str]] = FUSED,
    learn_scales: bool = False,
) -> nn.Module:
    """Replace the linear layers of a model by ones that compute as quantized; return the model.

    Parameters stay the same objects under the same names. `ignore` names layers that stay, by their
    whole name or its last part. Those that `fused` lists, where they are parts of one module, share
    what NVFP4's global scale follows from. `scheme` is as in `quant.scheme`: `mxfp4/same`.

    Raises: FormatError for a scheme that does not exist, or whose scales are of several rows;
    ShapeError, naming the layer, if a block does not divide it; ConfigError if there is nothing to
    replace. The model is then as it was.
    """
    plan = parse_scheme(scheme) if isinstance(scheme, str) else scheme
    if plan.weights == UNQUANTIZED:
        raise ConfigError("has nothing to train for", where=f"scheme {plan.name}")
    if plan.format is not None and isinstance(plan.format.granularity, tuple):
        raise FormatError(
            f"{plan.weights} is not trained for", where=f"scheme {plan.name}", hint="use fp8_row"
        )
    kept = set(ignore)
    layers = {
        name: layer
        for name, layer in model.named_modules()
        # Subclasses compute something else, or are never called.
        if type(layer) is nn.Linear and kept.isdisjoint((name, name.rpartition(".")[2])) and name
    }
    if not layers:
        raise ConfigError(
            "there is no linear layer to quantize", where=type(model).__name__,
            hint="give the whole model, before any other quantization",
        )  # fmt: skip
    for name, layer in layers.items():
        plan.check_shape(layer.weight.shape, name)
    made = {
        name: FakeQuantizedLinear(layer, plan, name=name, learn_scales=learn_scales)
        for name, layer in layers.items()
    }
    for name, new in made.items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, new)
        for group in fused:
            siblings = [f"{parent}.{part}" if parent else part for part in group]
            if own in group:
                new.fused = tuple(made[sibling] for sibling in siblings if sibling in made)
    return model


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLinear]:
    """Return the quantized form of each layer that `prepare_qat` replaced, by name.

    Raises: ConfigError if there is none; CheckpointError for a weight that is not finite.
    """
    found = {
        name: layer.quantized()
        for name, layer in model.named_modules()
        if isinstance(layer, FakeQuantizedLinear)
    }
    if not found:
        raise ConfigError(
            "has no layer in training", where=type(model).__name__,
            hint="call prepare_qat(model, scheme) before training",
        )  # fmt: skip
    return found

"""Train what will be rounded: linear layers of a torch model that compute as quantized ones do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from asterope.errors import CheckpointError, ConfigError, FormatError, UnsupportedError
from asterope.quant.branch_training import add_branch
from asterope.quant.fake_quant import fake_inputs, fake_weight, quantize_latent
from asterope.quant.held_scales import HeldScales
from asterope.quant.learned_scales import scales_shape
from asterope.quant.linear import QuantizedLinear
from asterope.quant.low_rank import Branch, static_input_scale
from asterope.quant.rtn import check_weight, common_amax
from asterope.quant.scheme import UNQUANTIZED, Scheme
from asterope.quant.scheme import scheme as parse_scheme
from asterope.quant.unpacked_experts import UnpackedExperts, take_places, unpacked

__all__ = ["FUSED", "IGNORED", "FakeQuantizedLinear", "prepare_qat", "quantized_layers"]

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Projections of the same input, which engines fuse: they share what a global scale follows from,
and the first factor of a branch.
"""
IGNORED = ("lm_head", "gate", "router", "shared_expert_gate")
"""The head, and what routes tokens to experts."""
_HELD = ("scales", "row_scale")


class FakeQuantizedLinear(nn.Module):
    """A linear layer in training that computes what its quantized form will.

    `weight` and `bias` are those of the layer it replaces, the same parameters, and are what is
    trained. The output is the product of the rounded inputs and the rounded weight, in float32 if
    autocast does not say otherwise, in the type of the inputs; `QuantizedLinear.apply` has the same
    operands, bit for bit, and adds their products up in another order. `log2_scale`, if scales are
    learned, moves each block's; it starts at zero.

    After `start` it computes what that layer does, and the scales stay as they are there; otherwise
    they follow from the weight by the scheme's rule. Where the scheme has a rank, `weight` is what
    is left beside the branch of `lora_a` and `lora_b`, which is trained with it. Fused layers share
    `lora_a`, which the first of them has. Where inputs have a static scale (nvfp4 beside a branch),
    `input_scale` is that of the largest that was seen: in a first batch, and in training.

    Shapes: weight [N, K]; bias [N]; log2_scale [N, blocks]; lora_a [rank, K]; lora_b [N, rank].
    """

    scales: torch.Tensor | None
    row_scale: torch.Tensor | None
    input_scale: torch.Tensor | None
    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None

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
        for factor in ("lora_a", "lora_b"):
            self.register_parameter(factor, None)
        is_static = static_input_scale(1.0, scheme) is not None
        self.register_buffer("input_scale", torch.zeros(()) if is_static else None)
        for held in _HELD:
            self.register_buffer(held, None)

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
        rows = x.reshape(-1, self.in_features)
        inputs = fake_inputs(rows, self.scheme, scale=self._seen(rows))
        values = fake_weight(
            self.weight, self.scheme.without_branch, name=self.name, amax=self._amax(),
            log2_scale=self.log2_scale, held=self._held(),
        )  # fmt: skip
        bias = None if self.bias is None else self.bias.float()
        y = nn.functional.linear(inputs, values, bias)
        if self.lora_b is not None:
            y = add_branch(y.to(x.dtype), rows, self._shared(), self.lora_b)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def quantized(self) -> QuantizedLinear:
        """Return the layer that the runtime has: the codes and scales of a forward pass now.

        Raises: ConfigError if its inputs have a static scale and it has seen none; CheckpointError
        for a weight or a factor of a branch that is not finite.
        """
        bias = None if self.bias is None else self.bias.detach()
        with torch.no_grad():
            made = quantize_latent(
                self.weight, self.scheme.without_branch, name=self.name, amax=self._amax(),
                log2_scale=self.log2_scale, held=self._held(),
            )  # fmt: skip
        made = dataclasses.replace(made, bias=bias, scheme=self.scheme)
        if self.input_scale is not None:
            made = dataclasses.replace(made, input_scale=self._input_scale())
        if self.lora_b is None:
            return made
        first, second = (f.detach().to(torch.bfloat16) for f in (self._shared(), self.lora_b))
        for factor, name in ((first, "lora_a"), (second, "lora_b")):
            if not bool(torch.isfinite(factor).all()):
                raise CheckpointError(
                    "is not finite", where=f"{self.name}.{name}",
                    hint="training diverged; use a smaller rate",
                )  # fmt: skip
        return dataclasses.replace(made, lora_a=first, lora_b=second)

    @torch.no_grad()
    def start(self, layer: QuantizedLinear) -> None:
        """Compute what a quantized layer does from now on, under its scales and beside its branch.

        Where scales are learned, they follow from the layer's values by the rule.

        Raises: ConfigError for a layer of another scheme.
        """
        if layer.scheme != self.scheme:
            raise ConfigError(
                f"is {layer.scheme.name}, not {self.scheme.name}", where=self.name,
                hint="start from the same format",
            )  # fmt: skip
        self.weight.copy_(layer.without_branch.dequantize())
        if self.bias is not None and layer.bias is not None:
            self.bias.copy_(layer.bias)
        if self.log2_scale is None:
            self.scales = None if layer.scales is None else layer.scales.view(torch.uint8).clone()
            self.row_scale = None if layer.row_scale is None else layer.row_scale.clone()
        if self.input_scale is not None and layer.input_scale is not None:
            self.input_scale.fill_(layer.input_scale)
        if self.lora_b is not None and layer.lora_a is not None and layer.lora_b is not None:
            self._shared().copy_(layer.lora_a)
            self.lora_b.copy_(layer.lora_b)

    def extra_repr(self) -> str:
        """Say the shape and the scheme when the model is printed."""
        return f"{self.in_features}, {self.out_features}, {self.scheme.describe()}"

    def _held(self) -> HeldScales | None:
        if self.scales is None and self.row_scale is None:
            return None
        scales, fmt = self.scales, self.scheme.format
        if scales is not None and fmt is not None and fmt.scale.name == "e4m3":
            scales = scales.view(torch.float8_e4m3fn)
        return HeldScales(
            scheme=self.scheme.without_branch, scales=scales, row_scale=self.row_scale
        )

    def _shared(self) -> torch.Tensor:
        """Return the first factor of the branch, that of all fused layers."""
        first = (self.fused[0] if self.fused else self).lora_a
        assert first is not None
        return first

    def _seen(self, x: torch.Tensor) -> float | None:
        """Return the static scale of inputs, which these are seen by, None if there is none."""
        if self.input_scale is None:
            return None
        if torch.is_grad_enabled() or not self.input_scale:
            found = static_input_scale(float(x.detach().abs().max()), self.scheme)
            assert found is not None
            self.input_scale.clamp_(min=found)
        return self._input_scale()

    def _input_scale(self) -> float:
        assert self.input_scale is not None
        scale = float(self.input_scale)
        if not scale:
            raise ConfigError(
                "has seen no inputs, which its static scale follows from", where=self.name,
                hint="run the model on some text before",
            )  # fmt: skip
        return scale

    def _load_from_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], prefix: str, *args: Any
    ) -> None:
        for name in _HELD:  # a layer that has not started can go on where another was
            found = state_dict.get(prefix + name)
            if found is not None and getattr(self, name) is None:
                setattr(self, name, torch.empty_like(found))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _amax(self) -> float | None:
        if not self.fused:
            return None
        with torch.no_grad():
            return common_amax([layer.weight for layer in self.fused], self.scheme)


def prepare_qat(
    model: nn.Module,
    scheme: Scheme | str,
    *,
    ignore: Sequence[str] = IGNORED,
    fused: Sequence[Sequence[str]] = FUSED,
    learn_scales: bool = False,
) -> nn.Module:
    """Replace the linear layers of a model by ones that compute as quantized; return the model.

    Parameters stay the same objects under the same names, but for those of experts that are stored
    in one tensor: each expert gets layers of its own (`unpack_experts`), and all of a layer share a
    static scale of inputs. `ignore` names layers that stay, by their whole name or its last part.
    Those that `fused` lists, where they are parts of one module, share what NVFP4's global scale
    follows from. `scheme` is as in `quant.scheme`: `mxfp4/same`. One with a rank adds parameters,
    and takes out of each weight the branch that is nearest to it; `start` of each layer, or
    `llm.start_from`, gives it one that was fitted to inputs.

    Raises: FormatError for a scheme that does not exist, or whose scales are of several rows;
    ShapeError, naming the layer, if a block does not divide it; ConfigError if there is nothing to
    replace; CheckpointError for a weight that is not finite; UnsupportedError for experts that are
    laid out in another way. The model is then as it was.
    """
    plan = _trainable(scheme)
    experts = unpacked(model)
    kept = set(ignore)
    layers = {
        name: layer
        for prefix, module in {"": model, **experts}.items()
        for name, layer in module.named_modules(prefix=prefix)
        # Subclasses compute something else, or are never called.
        if type(layer) is nn.Linear and kept.isdisjoint((name, name.rpartition(".")[2])) and name
    }
    if not layers:
        raise ConfigError(
            "there is no linear layer to quantize", where=type(model).__name__,
            hint="give the whole model, before any other quantization",
        )  # fmt: skip
    _check_layers(layers, plan)
    take_places(model, experts)
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
    if plan.rank:
        for new in made.values():
            if not new.fused or new.fused[0] is new:
                _add_branch(new.fused or (new,), plan.rank)
    _share_input_scales(model)
    return model


def _check_layers(layers: Mapping[str, nn.Linear], plan: Scheme) -> None:
    for name, layer in layers.items():
        plan.check_shape(layer.weight.shape, name)
        if plan.rank:
            check_weight(layer.weight.detach(), name)


def _share_input_scales(model: nn.Module) -> None:
    """Let all experts of a layer see their inputs by one static scale, as far as they have one."""
    for experts in model.modules():
        if isinstance(experts, UnpackedExperts):
            for place in experts.places:
                new = [layer for layer in place if isinstance(layer, FakeQuantizedLinear)]
                for layer in new:
                    layer.input_scale = new[0].input_scale


def _trainable(scheme: Scheme | str) -> Scheme:
    plan = parse_scheme(scheme) if isinstance(scheme, str) else scheme
    if plan.weights == UNQUANTIZED:
        raise ConfigError("has nothing to train for", where=f"scheme {plan.name}")
    if plan.format is not None and isinstance(plan.format.granularity, tuple):
        raise FormatError(
            f"{plan.weights} is not trained for", where=f"scheme {plan.name}", hint="use fp8_row"
        )
    return plan


@torch.no_grad()
def _add_branch(layers: Sequence[FakeQuantizedLinear], rank: int) -> None:
    """Give layers that are fused a branch, and take what it computes out of their weights."""
    whole = torch.cat([layer.weight for layer in layers])
    branch = Branch.nearest(whole, rank)
    sizes = [layer.out_features for layer in layers]
    rests, factors = (t.split(sizes) for t in (branch.taken_from(whole), branch.second.float()))  # type: ignore[no-untyped-call]
    layers[0].lora_a = nn.Parameter(branch.first.float())
    for layer, rest, factor in zip(layers, rests, factors, strict=True):
        layer.weight.copy_(rest)
        layer.lora_b = nn.Parameter(factor.clone())


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

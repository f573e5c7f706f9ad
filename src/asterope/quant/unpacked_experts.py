"""Experts of a torch model one by one, as checkpoints have them, instead of in two tensors.

transformers (5 and later) keeps the experts of a layer in a module with `gate_up_proj`
[E, 2 x I, H] and `down_proj` [E, H, I], for whatever family.

Shapes: M tokens of width H, E experts of inner width I, k of them for each token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from asterope.errors import UnsupportedError

__all__ = ["UnpackedExperts", "take_places", "unpack_experts", "unpacked"]

_Function = Callable[[torch.Tensor], torch.Tensor]
_PACKED = ("gate_up_proj", "down_proj")
_PARTS = ("gate_proj", "up_proj", "down_proj")
# What else such a module may say of itself, and what it says where it is as above.
_PLAIN = {
    "has_gate": True, "has_bias": False, "has_post_expert_norm": False, "is_transposed": False,
    "is_concatenated": True,
}  # fmt: skip


class UnpackedExperts(nn.Module):
    """The experts of a layer, each of three linear layers on the memory that they had.

    They are submodules `0`, `1` and so on, with `gate_proj`, `up_proj` and `down_proj`.
    """

    def __init__(self, packed: nn.Module) -> None:
        super().__init__()
        gate_up, down = (cast("nn.Parameter", getattr(packed, name)) for name in _PACKED)
        for i, (both, last) in enumerate(zip(gate_up, down, strict=True)):
            weights = dict(zip(_PARTS, (*both.chunk(2), last), strict=True))
            self.add_module(str(i), nn.ModuleDict({n: _linear(w) for n, w in weights.items()}))
        self._gate: _Function = getattr(
            packed, "_apply_gate", partial(_gated, cast("_Function", packed.act_fn))
        )

    @property
    def places(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The layers of all experts that the runtime has as one: gate and up, and down."""
        first, second, last = (
            [cast("nn.Module", getattr(expert, name)) for expert in self.children()]
            for name in _PARTS
        )
        return [*first, *second], last

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum of what experts make of each token, times their shares.

        Shapes: hidden_states and result [M, H]; top_k_index and top_k_weights [M, k].
        """
        experts = list(self.children())
        places = top_k_index.flatten().argsort(stable=True)
        counts = torch.bincount(top_k_index.flatten(), minlength=len(experts)).tolist()
        tokens, shares = places // top_k_index.shape[-1], top_k_weights.flatten()[places]
        made = [
            self._made(expert, hidden_states[own])
            for expert, own in zip(experts, torch.split(tokens, counts), strict=True)
            if len(own)
        ]
        rows = torch.cat(made) * shares[:, None]
        return torch.zeros_like(hidden_states).index_add(0, tokens, rows.to(hidden_states.dtype))

    def _made(self, expert: nn.Module, x: torch.Tensor) -> torch.Tensor:
        gate, up, down = (cast("nn.Module", getattr(expert, name)) for name in _PARTS)
        return cast("torch.Tensor", down(self._gate(torch.cat([gate(x), up(x)], -1))))


def _gated(activation: _Function, gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, -1)
    return activation(gate) * up


def unpack_experts(model: nn.Module) -> nn.Module:
    """Replace the modules of a model that hold experts in two tensors; return the model.

    The parameters are new ones, `experts.0.gate_proj.weight` and so on, as in checkpoints.

    Raises: UnsupportedError, naming it, for a module with such tensors laid out in another way. The
    model is then as it was.
    """
    take_places(model, unpacked(model))
    return model


def unpacked(model: nn.Module) -> dict[str, UnpackedExperts]:
    """Return what would replace such modules, by their names, and leave the model as it is.

    Raises: as `unpack_experts`.
    """
    packed = {
        name: module
        for name, module in model.named_modules()
        if name and getattr(getattr(module, _PACKED[0], None), "ndim", 0) == 3
    }
    for name, module in packed.items():
        _check_plain(module, name)
    return {name: UnpackedExperts(module) for name, module in packed.items()}


def take_places(model: nn.Module, experts: Mapping[str, UnpackedExperts]) -> None:
    """Put what `unpacked` returned into the model."""
    for name, made in experts.items():
        packed = model.get_submodule(name)
        for tensor in _PACKED:
            delattr(packed, tensor)  # the gate may hold on to the module
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, made)


def _check_plain(module: nn.Module, name: str) -> None:
    gate_up, down = (getattr(module, name, None) for name in _PACKED)
    shapes = [list(getattr(each, "shape", ())) for each in (gate_up, down)]
    says: dict[str, Any] = {key: getattr(module, key, value) for key, value in _PLAIN.items()}
    num, both, hidden = shapes[0]
    if shapes[1] != [num, hidden, both // 2] or says != _PLAIN or both % 2:
        raise UnsupportedError(
            f"has experts in {' and '.join(_PACKED)} of shapes {shapes[0]} and {shapes[1]}, laid"
            " out as no other family's", where=name,
            hint="quantize them without training: asterope quantize",
        )  # fmt: skip


def _linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=True)
    return layer

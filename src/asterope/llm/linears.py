"""Linear layers, whatever their weights are stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from asterope.kernels import ExpertRows
from asterope.kernels.linear import linear

__all__ = ["Linear", "PlainLinear"]


class Linear(Protocol):
    """A linear layer, or those of several experts, one below another."""

    @property
    def num_bytes(self) -> int:
        """Bytes that one use of all weights reads."""

    def apply(self, x: torch.Tensor, *, experts: ExpertRows | None = None) -> torch.Tensor:
        """Return x W^T + bias for x [M, K]; of experts, each row with those of its expert."""


@dataclass(frozen=True, slots=True, eq=False)
class PlainLinear:
    """Weights in the model's own type; what it gives may have another, `out_dtype`.

    Shapes: weight [out, in]; bias [out].
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    out_dtype: torch.dtype | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the weight and the bias."""
        bias = 0 if self.bias is None else self.bias.numel() * self.bias.element_size()
        return self.weight.numel() * self.weight.element_size() + bias

    def apply(self, x: torch.Tensor, *, experts: ExpertRows | None = None) -> torch.Tensor:
        """Return x W^T + bias for x [M, K]; of experts, each row with those of its expert."""
        return linear(x, self.weight, bias=self.bias, out_dtype=self.out_dtype, experts=experts)

"""A low-rank branch in training: it computes what the runtime's does."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

__all__ = ["add_branch"]


class _Rounded(torch.autograd.Function):
    """Round to bf16, in float32, and hand gradients on as they come."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16).float()

    @staticmethod
    def backward(_: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]


def _rounded(x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = _Rounded.apply(x)  # type: ignore[no-untyped-call]
    return found


def add_branch(
    made: torch.Tensor, x: torch.Tensor, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    """Return what a layer makes beside a branch, and the branch, as `QuantizedLinear.apply` does.

    x, both factors and what is between them are rounded to bf16.

    Shapes: made [M, N], of the type of x; x [M, K]; first [rank, K]; second [N, rank]; result
    [M, N] float32.
    """
    inner = functional.linear(_rounded(x.float()), _rounded(first))
    return made.float() + functional.linear(_rounded(inner.float()), _rounded(second))

"""The rows that a router sends to experts, through which gradients flow.

Shapes: M tokens of width H, E experts, k of them for each token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from asterope.kernels import route_reference
from asterope.llm.linears import PlainLinear
from asterope.llm.router import Router

__all__ = ["SentRows"]


@dataclass(frozen=True, slots=True, eq=False)
class SentRows:
    """Rows sorted by expert, so many for each, and the token and share of each row.

    Shapes: rows [M x k, H]; counts E; tokens and shares [M x k].
    """

    rows: torch.Tensor
    counts: list[int]
    tokens: torch.Tensor
    shares: torch.Tensor
    num_tokens: int

    @classmethod
    def of(cls, router: Router, x: torch.Tensor) -> SentRows:
        """Return what a router in training sends: whom it chooses is fixed, their shares are not.

        Shapes: x [M, H] float32.
        """
        assert isinstance(router.linear, PlainLinear)
        bias = router.linear.bias
        logits = functional.linear(
            x, router.linear.weight.float(), None if bias is None else bias.float()
        )
        routes = route_reference(logits, router.routing, router.bias)
        order = routes.experts.flatten().argsort(stable=True)
        tokens = order // router.top_k
        counts = torch.bincount(routes.experts.flatten(), minlength=router.num_experts).tolist()
        return cls(x[tokens], counts, tokens, routes.shares.float().flatten()[order], len(x))

    def returned(self, made: torch.Tensor) -> torch.Tensor:
        """Return the sum of what experts made of each token, times their shares.

        Shapes: made [M x k, H]; result [M, H].
        """
        result = made.new_zeros(self.num_tokens, made.shape[1])
        return result.index_add(0, self.tokens, made * self.shares[:, None])

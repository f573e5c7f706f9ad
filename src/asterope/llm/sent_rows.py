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

    `beside` is the share of each token of what is beside the experts, where it has one.

    Shapes: rows [M x k, H]; counts E; tokens and shares [M x k]; beside [M, 1] or [M, 0].
    """

    rows: torch.Tensor
    counts: list[int]
    tokens: torch.Tensor
    shares: torch.Tensor
    num_tokens: int
    beside: torch.Tensor

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
        count = router.num_experts
        routes = route_reference(logits[:, :count], router.routing, router.bias)
        order = routes.experts.flatten().argsort(stable=True)
        tokens = order // router.top_k
        counts = torch.bincount(routes.experts.flatten(), minlength=count).tolist()
        shares, beside = routes.shares.float().flatten()[order], logits[:, count:].sigmoid()
        return cls(x[tokens], counts, tokens, shares, len(x), beside)

    def returned(self, made: torch.Tensor) -> torch.Tensor:
        """Return the sum of what experts made of each token, times their shares.

        Shapes: made [M x k, H]; result [M, H].
        """
        result = made.new_zeros(self.num_tokens, made.shape[1])
        return result.index_add(0, self.tokens, made * self.shares[:, None])

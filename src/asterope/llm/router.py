"""The router of a layer of experts: which tokens go to whom, and what comes back of it.

Shapes: M tokens of width H, E experts, k of them for each token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from asterope.errors import ConfigError
from asterope.kernels import (
    ExpertRows,
    Grouping,
    Routes,
    combine_rows,
    group_by_expert,
    group_by_expert_reference,
    route,
    take_rows,
)
from asterope.llm.linears import Linear

__all__ = ["EXPERT_LOADS", "ExpertLoads", "Router", "assumed_experts"]

ExpertLoads = Literal["random", "even"]
"""How tokens are spread over experts where nothing is computed.

`random`: each token picks its experts at random, all sets of them alike, as an untrained router
would. `even`: all experts get the same number of tokens, as far as it goes.
"""
EXPERT_LOADS = get_args(ExpertLoads)
_SEED = 200
_TOKENS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Router:
    """Sends each token to `top_k` experts and adds up what they give, by their shares.

    With `normalized` the shares of a token add up to 1. On shapes without values tokens are spread
    as `loads` says. `after` is told each result.
    """

    linear: Linear
    num_experts: int
    top_k: int
    normalized: bool
    loads: ExpertLoads = "random"
    after: Callable[[torch.Tensor], object] = lambda _: None

    def run(
        self, x_MH: torch.Tensor, experts: Callable[[torch.Tensor, ExpertRows], torch.Tensor]
    ) -> torch.Tensor:
        """Return what experts make of each token, who get rows that are sorted by expert.

        Shapes: rows [M x k, H], and so is what experts return; result [M, H].
        """
        routes = route(self.linear.apply(x_MH), self.top_k, normalized=self.normalized)
        grouping = self._grouping(routes)
        made = experts(take_rows(x_MH, grouping.tokens), grouping.rows)
        result = combine_rows(made, grouping.places, routes.shares)
        self.after(result)
        return result

    def assumed_loads(self, num_tokens: int) -> torch.Tensor:
        """Return how many of so many tokens each expert is taken to see. Shapes: result [E]."""
        chosen = assumed_experts(num_tokens, self.top_k, self.num_experts, self.loads)
        return torch.bincount(chosen.flatten(), minlength=self.num_experts)

    def _grouping(self, routes: Routes) -> Grouping:
        if not routes.experts.is_meta:
            return group_by_expert(routes.experts, self.num_experts)
        chosen = assumed_experts(len(routes.experts), self.top_k, self.num_experts, self.loads)
        group_by_expert(chosen, self.num_experts)  # to be timed: it computes nothing now
        return group_by_expert_reference(chosen, self.num_experts)


@functools.lru_cache(maxsize=16)
def assumed_experts(
    num_tokens: int, top_k: int, num_experts: int, loads: ExpertLoads
) -> torch.Tensor:
    """Return the experts of tokens that nobody computes, always the same ones.

    Shapes: result [T, k] int32.
    Raises: ConfigError if there is no such spread.
    """
    if loads not in EXPERT_LOADS:
        raise ConfigError(
            f"there is no {loads!r}", where="expert_loads", hint=f"use {' or '.join(EXPERT_LOADS)}"
        )
    if loads == "even":
        return (torch.arange(num_tokens * top_k, dtype=torch.int32) % num_experts).view(-1, top_k)
    generator = torch.Generator().manual_seed(_SEED)
    parts = [
        torch.rand((min(_TOKENS_AT_ONCE, num_tokens - at), num_experts), generator=generator)
        .topk(top_k)
        .indices.int()
        for at in range(0, num_tokens, _TOKENS_AT_ONCE)
    ]
    return torch.cat(parts)

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
    Routing,
    combine_rows,
    group_by_expert,
    group_by_expert_reference,
    route,
    take_rows,
)
from asterope.llm.linears import Linear

__all__ = ["EXPERT_LOADS", "ExpertLoads", "ExpertShare", "Router", "assumed_experts"]

ExpertLoads = Literal["random", "even"]
"""How tokens are spread over experts where nothing is computed.

`random`: each token picks its experts at random, all sets of them alike, as an untrained router
would. `even`: all experts get the same number of tokens, as far as it goes.
"""
EXPERT_LOADS = get_args(ExpertLoads)
_SEED = 200
_TOKENS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertShare:
    """What one of `chips` does that share out the experts of a layer, the busiest of them.

    Chips of a group have the same tokens, and each routes its part of them; a step has `tokens` on
    all chips. Rows are sent to the chip of their expert, once for each, and come back.
    """

    chips: int
    group: int
    tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Router:
    """Sends each token to some experts and adds up what they give, by their shares.

    Which ones `routing` says, with `bias` added to the scores that they are chosen by. Where the
    linear layer has a row more than there are experts, its sigmoid is the share of what is beside
    them. On shapes without values tokens are spread as `loads` says, and experts may be on several
    chips: `sends` is told the name of a collective, the bytes, and how many chips take part, 0 for
    those that share the rest of the layer.
    """

    linear: Linear
    num_experts: int
    routing: Routing
    bias: torch.Tensor | None = None
    loads: ExpertLoads = "random"
    share: ExpertShare | None = None
    sends: Callable[[str, int, int], object] = lambda _name, _bytes, _chips: None

    @property
    def top_k(self) -> int:
        """How many experts see a token."""
        return self.routing.top_k

    def run(
        self, x_MH: torch.Tensor, experts: Callable[[torch.Tensor, ExpertRows], torch.Tensor],
        shared: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Return what experts make of each token, who get rows that are sorted by expert.

        What `shared` makes of each is added. Where experts are on several chips, each chip does
        that for its part of the tokens.

        Shapes: rows [M x k, H], and so is what experts return; result [M, H].
        """
        mine = x_MH if self.share is None else x_MH[: -(-len(x_MH) // self.share.group)]
        logits = self.linear.apply(mine)
        own, beside = logits[:, : self.num_experts], logits[:, self.num_experts :]
        routes = route(own, self.routing, self.bias)
        grouping = self._grouping(routes)
        rows = take_rows(mine, grouping.tokens)
        if self.share is None:
            made = experts(rows, grouping.rows)
        else:
            made = self._elsewhere(rows, experts, self.share)
        added = None if shared is None else shared(mine)
        gate = beside if beside.shape[1] else None
        result = combine_rows(made, grouping.places, routes.shares, added, gate)
        if self.share is None:
            self.sends("all_reduce", _num_bytes(result), 0)
            return result
        self.sends("all_gather", _num_bytes(x_MH), self.share.group)
        return torch.empty_like(x_MH)

    def _elsewhere(
        self, rows: torch.Tensor, experts: Callable[[torch.Tensor, ExpertRows], torch.Tensor],
        share: ExpertShare,
    ) -> torch.Tensor:  # fmt: skip
        """Send rows to where their experts are, run those that are here, and send back."""
        loads = self.assumed_loads(share.tokens)
        starts = torch.cat([loads.new_zeros(1), loads.cumsum(0)]).int()
        here = rows.new_empty((int(starts[-1]), rows.shape[1]))
        num_bytes = max(_num_bytes(rows), _num_bytes(here))
        self.sends("all_to_all", num_bytes, share.chips)
        experts(here, ExpertRows(starts))
        self.sends("all_to_all", num_bytes, share.chips)
        return torch.empty_like(rows)

    def assumed_loads(self, num_tokens: int) -> torch.Tensor:
        """Return how many of so many tokens each expert is taken to see, of the busiest chip.

        Shapes: result [E], of experts on several chips [E / chips].
        """
        chosen = assumed_experts(num_tokens, self.top_k, self.num_experts, self.loads)
        counts = torch.bincount(chosen.flatten(), minlength=self.num_experts)
        on_chips = counts.view(1 if self.share is None else self.share.chips, -1)
        return on_chips[int(on_chips.sum(1).argmax())]

    def _grouping(self, routes: Routes) -> Grouping:
        if not routes.experts.is_meta:
            return group_by_expert(routes.experts, self.num_experts)
        chosen = assumed_experts(len(routes.experts), self.top_k, self.num_experts, self.loads)
        group_by_expert(chosen, self.num_experts)  # to be timed: it computes nothing now
        return group_by_expert_reference(chosen, self.num_experts)


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


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

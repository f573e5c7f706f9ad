"""Which experts a token goes to, and the share of each in its result.

Shapes: T tokens, E experts, k of them for each token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.operands import check_rows, check_vectors

__all__ = ["Routes", "Routing", "Scoring", "route", "route_reference"]

Scoring = Literal["softmax", "sigmoid"]
_TOKENS = 8
_LEAST = 1e-20
"""What is added to a sum of sigmoids before shares are divided by it, as DeepSeek-V3 does."""


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """The experts of each token, the likeliest first, and their shares in its result.

    Shapes: experts [T, k] int32; shares [T, k] float32.
    """

    experts: torch.Tensor
    shares: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """How experts are chosen: by scores, made of logits by softmax or each by a sigmoid.

    With `groups` the experts are in so many, one after another, and only those of the `top_groups`
    best ones are chosen: a group is as good as its best expert, or where scores are sigmoids as
    its best two together. With `normalized` the shares of a token add up to 1; then they are
    multiplied by `scale`.

    Source: DeepSeek-V2 (arXiv 2405.04434), section 2.2.2; DeepSeek-V3 (arXiv 2412.19437), 2.1.2.
    """

    top_k: int
    normalized: bool
    scoring: Scoring = "softmax"
    groups: int = 1
    top_groups: int = 1
    scale: float = 1.0

    def check(self, num_experts: int) -> None:
        """Refuse what cannot be chosen of so many experts.

        Raises: ShapeError.
        """
        size = num_experts // max(self.groups, 1)
        most = size * self.top_groups
        whole = self.groups * size == num_experts and 1 <= self.top_groups <= self.groups
        if not whole or (self.groups > 1 and self.scoring == "sigmoid" and size < 2):
            raise ShapeError(
                f"{self.top_groups} of {self.groups} groups of {num_experts} experts cannot be "
                "chosen", where="route",
            )  # fmt: skip
        if not 1 <= self.top_k <= most:
            raise ShapeError(f"{self.top_k} of {most} experts cannot be chosen", where="route")
        if self.scoring not in get_args(Scoring):
            raise ShapeError(f"there is no score {self.scoring!r}", where="route")


@triton.jit
def _in_best_groups(
    rank, each, EXPERTS: tl.constexpr, GROUPS: tl.constexpr, TOP_GROUPS: tl.constexpr,
    SLOTS: tl.constexpr, BLOCK: tl.constexpr, TWO: tl.constexpr,
):  # fmt: skip
    """Return the ranks of the experts of the best groups, and of others minus infinity."""
    SIZE: tl.constexpr = EXPERTS // GROUPS
    slots = tl.arange(0, SLOTS)
    goodness = tl.full((BLOCK, SLOTS), float("-inf"), dtype=tl.float32)
    for group in tl.static_range(GROUPS):
        mine = tl.where((each // SIZE == group)[None, :], rank, float("-inf"))
        good = tl.max(mine, 1)
        if TWO:
            first = tl.min(tl.where(mine == good[:, None], each[None, :], EXPERTS - 1), 1)
            good += tl.max(tl.where(each[None, :] == first[:, None], float("-inf"), mine), 1)
        goodness = tl.where(slots[None, :] == group, good[:, None], goodness)
    kept = tl.full(rank.shape, float("-inf"), dtype=tl.float32)
    for _ in tl.static_range(TOP_GROUPS):
        most = tl.max(goodness, 1)
        best = tl.min(tl.where(goodness == most[:, None], slots[None, :], GROUPS - 1), 1)
        kept = tl.where((each // SIZE)[None, :] == best[:, None], rank, kept)
        goodness = tl.where(slots[None, :] == best[:, None], float("-inf"), goodness)
    return kept


@triton.jit
def _route_kernel(
    logits, bias, experts, shares, T, stride, scale, least,
    EXPERTS: tl.constexpr, WIDTH: tl.constexpr, TOP_K: tl.constexpr, SLOTS: tl.constexpr,
    NORMALIZED: tl.constexpr, SIGMOID: tl.constexpr, BIAS: tl.constexpr, GROUPS: tl.constexpr,
    TOP_GROUPS: tl.constexpr, GROUP_SLOTS: tl.constexpr, SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    each, slots = tl.arange(0, WIDTH), tl.arange(0, SLOTS)
    at = logits + offs[:, None].to(tl.int64) * stride + each[None, :]
    there = each[None, :] < EXPERTS
    x = tl.load(at, mask=(offs[:, None] < T) & there, other=-float("inf")).to(tl.float32)
    if SIGMOID:
        score = 1.0 / (1.0 + tl.exp(-x))
        whole = tl.sum(tl.where(there, x, 0.0), 1)
    else:
        x = tl.exp(x - tl.max(x, 1)[:, None])
        whole = tl.sum(x, 1)
        score = x / whole[:, None]
    rank = score
    if BIAS:
        rank += tl.load(bias + each, mask=each < EXPERTS, other=0.0)[None, :]
    left = tl.where(there, rank, float("-inf"))
    if GROUPS > 1:
        left = _in_best_groups(left, each, EXPERTS, GROUPS, TOP_GROUPS, GROUP_SLOTS, BLOCK, SIGMOID)
    chosen = tl.zeros((BLOCK, SLOTS), dtype=tl.int32)
    share = tl.zeros((BLOCK, SLOTS), dtype=tl.float32)
    for slot in tl.static_range(TOP_K):
        most = tl.max(left, 1)
        first = tl.min(tl.where(left == most[:, None], each[None, :], EXPERTS - 1), 1)
        is_it = each[None, :] == first[:, None]
        if BIAS:
            most = tl.sum(tl.where(is_it, score, 0.0), 1)
        chosen = tl.where(slots[None, :] == slot, first[:, None], chosen)
        share = tl.where(slots[None, :] == slot, most[:, None], share)
        left = tl.where(is_it, float("-inf"), left)
    share += (whole - whole)[:, None]  # a logit that is not finite shows in all shares
    if NORMALIZED:
        share = share / (tl.sum(share, 1)[:, None] + least)
    if SCALED:
        share *= scale
    to = offs[:, None] * TOP_K + slots[None, :]
    on = (offs[:, None] < T) & (slots[None, :] < TOP_K)
    tl.store(experts + to, chosen, mask=on)
    tl.store(shares + to, share, mask=on)


def route(logits: torch.Tensor, routing: Routing, bias: torch.Tensor | None = None) -> Routes:
    """Choose the experts of each token by their scores in fp32, as `Routing` says.

    A `bias` is added to the scores that experts are chosen by, but not to their shares. Of equal
    ones the first is taken. A logit that is not finite makes all shares of its token NaN.

    Shapes: logits [T, E]; bias [E] float32.
    Raises: ShapeError if so many experts or groups are not there.
    """
    check_rows("route", logits=logits)
    count, num_experts = logits.shape
    routing.check(num_experts)
    check_vectors("route", num_experts, bias=bias)
    top_k, is_sigmoid = routing.top_k, routing.scoring == "sigmoid"
    experts = torch.empty((count, top_k), dtype=torch.int32, device=logits.device)
    shares = torch.empty((count, top_k), dtype=torch.float32, device=logits.device)
    block = min(_TOKENS, triton.next_power_of_2(count))
    if count:
        _route_kernel[(triton.cdiv(count, block),)](
            logits, bias, experts, shares, count, logits.stride(0), routing.scale,
            _LEAST if is_sigmoid else 0.0, EXPERTS=num_experts,
            WIDTH=triton.next_power_of_2(num_experts), TOP_K=top_k,
            SLOTS=triton.next_power_of_2(top_k), NORMALIZED=routing.normalized,
            SIGMOID=is_sigmoid, BIAS=bias is not None, GROUPS=routing.groups,
            TOP_GROUPS=routing.top_groups, GROUP_SLOTS=triton.next_power_of_2(routing.groups),
            SCALED=routing.scale != 1, BLOCK=block,
        )  # fmt: skip
    return Routes(experts, shares)


def route_reference(
    logits: torch.Tensor, routing: Routing, bias: torch.Tensor | None = None
) -> Routes:
    """Return what `route` computes, in float64."""
    wide = logits.double()
    scores = wide.sigmoid() if routing.scoring == "sigmoid" else wide.softmax(-1)
    rank = scores if bias is None else scores + bias.double()
    if routing.groups > 1:
        by_group = rank.unflatten(1, (routing.groups, -1))
        best = by_group.topk(2 if routing.scoring == "sigmoid" else 1, -1).values.sum(-1)
        order = best.argsort(dim=-1, descending=True, stable=True)
        is_out = torch.ones_like(best, dtype=torch.bool)
        is_out.scatter_(1, order[:, : routing.top_groups], value=False)
        rank = by_group.masked_fill(is_out[:, :, None], float("-inf")).flatten(1)
    order = rank.argsort(dim=-1, descending=True, stable=True)[:, : routing.top_k]
    shares = scores.gather(1, order)
    if routing.normalized:
        least = _LEAST if routing.scoring == "sigmoid" else 0.0
        shares = shares / (shares.sum(-1, keepdim=True) + least)
    return Routes(order.int(), shares * routing.scale)

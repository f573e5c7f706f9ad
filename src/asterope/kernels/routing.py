"""Which experts a token goes to, the sorting of rows by expert, and the way back.

Shapes: T tokens, E experts, k of them for each token; A = T x k assignments, token by token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from asterope.errors import ShapeError
from asterope.kernels.experts import ExpertRows
from asterope.kernels.operands import check_rows

__all__ = [
    "Grouping",
    "Routes",
    "combine_rows",
    "combine_rows_reference",
    "group_by_expert",
    "group_by_expert_reference",
    "route",
    "route_reference",
    "take_rows",
]

_TOKENS = 8
_ASSIGNMENTS = 1024
_ROWS = 8
_COLUMNS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """The experts of each token, the likeliest first, and their shares in its result.

    Shapes: experts [T, k] int32; shares [T, k] float32.
    """

    experts: torch.Tensor
    shares: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Assignments sorted by expert, those of one expert in the order of their tokens.

    Shapes: tokens [A] int32, the token of each row; places [T, k] int32, the row of each
    assignment.
    """

    rows: ExpertRows
    tokens: torch.Tensor
    places: torch.Tensor


@triton.jit
def _route_kernel(
    logits, experts, shares, T, stride, EXPERTS: tl.constexpr, WIDTH: tl.constexpr,
    TOP_K: tl.constexpr, SLOTS: tl.constexpr, NORMALIZED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    each, slots = tl.arange(0, WIDTH), tl.arange(0, SLOTS)
    at = logits + offs[:, None].to(tl.int64) * stride + each[None, :]
    on = (offs[:, None] < T) & (each[None, :] < EXPERTS)
    x = tl.load(at, mask=on, other=-float("inf")).to(tl.float32)
    x = tl.exp(x - tl.max(x, 1)[:, None])
    whole = tl.sum(x, 1)
    left = tl.where(each[None, :] < EXPERTS, x / whole[:, None], -1.0)
    chosen = tl.zeros((BLOCK, SLOTS), dtype=tl.int32)
    share = tl.zeros((BLOCK, SLOTS), dtype=tl.float32)
    for slot in tl.static_range(TOP_K):
        most = tl.max(left, 1)
        first = tl.min(tl.where(left == most[:, None], each[None, :], EXPERTS - 1), 1)
        chosen = tl.where(slots[None, :] == slot, first[:, None], chosen)
        share = tl.where(slots[None, :] == slot, most[:, None], share)
        left = tl.where(each[None, :] == first[:, None], -1.0, left)
    share += (whole - whole)[:, None]  # a logit that is not finite shows in all shares
    if NORMALIZED:
        share = share / tl.sum(share, 1)[:, None]
    to = offs[:, None] * TOP_K + slots[None, :]
    there = (offs[:, None] < T) & (slots[None, :] < TOP_K)
    tl.store(experts + to, chosen, mask=there)
    tl.store(shares + to, share, mask=there)


def route(logits: torch.Tensor, top_k: int, *, normalized: bool) -> Routes:
    """Choose the experts of each token: softmax in fp32, then the `top_k` likeliest.

    Of equal ones the first is taken. With `normalized` the shares of a token add up to 1. A logit
    that is not finite makes all shares of its token NaN.

    Shapes: logits [T, E].
    Raises: ShapeError if there are fewer experts.
    """
    check_rows("route", logits=logits)
    count, num_experts = logits.shape
    if not 1 <= top_k <= num_experts:
        raise ShapeError(f"{top_k} of {num_experts} experts cannot be chosen", where="route")
    experts = torch.empty((count, top_k), dtype=torch.int32, device=logits.device)
    shares = torch.empty((count, top_k), dtype=torch.float32, device=logits.device)
    block = min(_TOKENS, triton.next_power_of_2(count))
    if count:
        _route_kernel[(triton.cdiv(count, block),)](
            logits, experts, shares, count, logits.stride(0), EXPERTS=num_experts,
            WIDTH=triton.next_power_of_2(num_experts), TOP_K=top_k,
            SLOTS=triton.next_power_of_2(top_k), NORMALIZED=normalized, BLOCK=block,
        )  # fmt: skip
    return Routes(experts, shares)


def route_reference(logits: torch.Tensor, top_k: int, *, normalized: bool) -> Routes:
    """Return what `route` computes, in float64."""
    order = logits.double().argsort(dim=-1, descending=True, stable=True)[:, :top_k]
    shares = logits.double().softmax(-1).gather(1, order)
    if normalized:
        shares = shares / shares.sum(-1, keepdim=True)
    return Routes(order.int(), shares)


@triton.jit
def _group_kernel(experts, starts, tokens, places, A, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    expert = tl.program_id(0)
    offs = tl.arange(0, BLOCK)
    before = tl.zeros((BLOCK,), dtype=tl.int32)
    for at in range(0, A, BLOCK):
        each = tl.load(experts + at + offs, mask=at + offs < A, other=expert)
        before += (each < expert).to(tl.int32)
    place = tl.sum(before, 0)
    tl.store(starts + expert, place)
    for at in range(0, A, BLOCK):
        each = tl.load(experts + at + offs, mask=at + offs < A, other=-1)
        mine = each == expert
        row = place + tl.cumsum(mine.to(tl.int32), 0) - 1
        tl.store(tokens + row, (at + offs) // TOP_K, mask=mine)
        tl.store(places + at + offs, row, mask=mine)
        place += tl.sum(mine.to(tl.int32), 0)


def group_by_expert(experts: torch.Tensor, num_experts: int) -> Grouping:
    """Sort assignments by expert, each expert's by token: one program an expert.

    Shapes: experts [T, k] int32, each below `num_experts`.
    Raises: ShapeError if it is not a contiguous matrix, or names an expert that there is not.
    """
    check_rows("group_by_expert", experts=experts)
    if not experts.is_contiguous():
        raise ShapeError("experts of tokens are not contiguous", where="group_by_expert")
    if experts.numel() and not experts.is_meta:
        low, high = (int(end) for end in torch.aminmax(experts))
        if not 0 <= low <= high < num_experts:
            raise ShapeError(
                f"experts {low} to {high} are not among {num_experts}", where="group_by_expert"
            )
    count, top_k = experts.shape
    starts = torch.empty(num_experts + 1, dtype=torch.int32, device=experts.device)
    tokens = torch.empty(count * top_k, dtype=torch.int32, device=experts.device)
    places = torch.empty_like(experts)
    block = min(_ASSIGNMENTS, triton.next_power_of_2(max(count * top_k, 1)))
    # The program behind the last expert finds all assignments before it, and none of its own.
    _group_kernel[(num_experts + 1,)](
        experts, starts, tokens, places, count * top_k, TOP_K=top_k, BLOCK=block
    )
    return Grouping(ExpertRows(starts), tokens, places)


def group_by_expert_reference(experts: torch.Tensor, num_experts: int) -> Grouping:
    """Return what `group_by_expert` does, by a stable sort."""
    flat = experts.flatten().long()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    tokens = (order // experts.shape[1]).int()
    return Grouping(ExpertRows(starts), tokens, places.view(experts.shape).int())


@triton.jit
def _take_rows_kernel(
    x, tokens, y, A, width, stride_x, stride_y, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    offs = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.load(tokens + rows, mask=rows < A, other=0)
    on = (rows[:, None] < A) & (offs[None, :] < width)
    taken = tl.load(x + token[:, None].to(tl.int64) * stride_x + offs[None, :], mask=on)
    tl.store(y + rows[:, None].to(tl.int64) * stride_y + offs[None, :], taken, mask=on)


def take_rows(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the rows of tokens, x[tokens].

    Shapes: x [T, H]; tokens [A] int32, each below T; result [A, H].
    Raises: ShapeError if rows are not contiguous.
    """
    check_rows("take_rows", x=x)
    count, width = len(tokens), x.shape[1]
    y = torch.empty((count, width), dtype=x.dtype, device=x.device)
    rows = min(_ROWS, triton.next_power_of_2(max(count, 1)))
    columns = min(_COLUMNS, triton.next_power_of_2(max(width, 1)))
    if count and width:
        _take_rows_kernel[triton.cdiv(count, rows), triton.cdiv(width, columns)](
            x, tokens, y, count, width, x.stride(0), y.stride(0), ROWS=rows, COLUMNS=columns
        )
    return y


@triton.jit
def _combine_kernel(
    rows, places, shares, y, width, stride_rows, stride_y,
    TOP_K: tl.constexpr, SLOTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    offs = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    slots = tl.arange(0, SLOTS)
    on = slots < TOP_K
    place = tl.load(places + token * TOP_K + slots, mask=on, other=0)
    share = tl.load(shares + token * TOP_K + slots, mask=on, other=0.0)
    at = rows + place[:, None].to(tl.int64) * stride_rows + offs[None, :]
    given = tl.load(at, mask=on[:, None] & (offs[None, :] < width), other=0.0).to(tl.float32)
    total = tl.sum(given * share[:, None], 0)
    to = y + token.to(tl.int64) * stride_y + offs
    tl.store(to, total.to(y.dtype.element_ty), mask=offs < width)


def combine_rows(rows: torch.Tensor, places: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return what a token's experts gave, times their shares, added up.

    Products and sums are fp32; sums are those of the tile IR's `reduce` along a token's experts,
    the likeliest first, which halves them: (p0 + p2) + (p1 + p3) for four.

    Shapes: rows [A, H]; places [T, k] int32; shares [T, k] float32; result [T, H].
    Raises: ShapeError if they do not fit.
    """
    check_rows("combine_rows", rows=rows, places=places, shares=shares)
    count, top_k = places.shape
    if shares.shape != places.shape or len(rows) != count * top_k:
        raise ShapeError(
            f"rows {list(rows.shape)}, places {list(places.shape)} and shares "
            f"{list(shares.shape)} do not fit",
            where="combine_rows",
        )
    width = rows.shape[1]
    y = torch.empty((count, width), dtype=rows.dtype, device=rows.device)
    columns = min(_COLUMNS, triton.next_power_of_2(max(width, 1)))
    if count and width:
        _combine_kernel[count, triton.cdiv(width, columns)](
            rows, places, shares, y, width, rows.stride(0), y.stride(0), TOP_K=top_k,
            SLOTS=triton.next_power_of_2(top_k), COLUMNS=columns,
        )  # fmt: skip
    return y


def combine_rows_reference(
    rows: torch.Tensor, places: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """Return what `combine_rows` computes, in float64."""
    return (rows.double()[places.long()] * shares.double()[:, :, None]).sum(1)

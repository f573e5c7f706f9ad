"""The sorting of rows by the experts they go to, and the way back.

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
    "combine_rows",
    "combine_rows_reference",
    "group_by_expert",
    "group_by_expert_reference",
    "take_rows",
]

_ASSIGNMENTS = 1024
_ROWS = 8
_COLUMNS = 1024


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
    rows, places, shares, added, gate, y, width, stride_rows, stride_added, stride_gate, stride_y,
    TOP_K: tl.constexpr, SLOTS: tl.constexpr, COLUMNS: tl.constexpr, ADDED: tl.constexpr,
    GATED: tl.constexpr,
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
    if ADDED:
        more = tl.load(added + token.to(tl.int64) * stride_added + offs, mask=offs < width)
        more = more.to(tl.float32)
        if GATED:
            more *= 1.0 / (1.0 + tl.exp(-tl.load(gate + token * stride_gate).to(tl.float32)))
        total += more
    to = y + token.to(tl.int64) * stride_y + offs
    tl.store(to, total.to(y.dtype.element_ty), mask=offs < width)


def combine_rows(
    rows: torch.Tensor, places: torch.Tensor, shares: torch.Tensor,
    added: torch.Tensor | None = None, gate: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return what a token's experts gave, times their shares, added up, and last what is `added`.

    With a `gate` what is added is multiplied by its sigmoid first.

    Products and sums are fp32; sums are those of the tile IR's `reduce` along a token's experts,
    the likeliest first, which halves them: (p0 + p2) + (p1 + p3) for four.

    Shapes: rows [A, H]; places [T, k] int32; shares [T, k] float32; added and result [T, H]; gate
    [T, 1].
    Raises: ShapeError if they do not fit.
    """
    more = rows if added is None else added
    check_rows("combine_rows", rows=rows, places=places, shares=shares, added=more)
    count, top_k = places.shape
    if added is not None and added.shape != (count, rows.shape[1]):
        raise ShapeError(f"what is added is {list(added.shape)}", where="combine_rows")
    if gate is not None and (added is None or gate.shape != (count, 1)):
        raise ShapeError(f"a gate of {list(gate.shape)} gates nothing", where="combine_rows")
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
            rows, places, shares, added, gate, y, width, rows.stride(0), more.stride(0),
            0 if gate is None else gate.stride(0), y.stride(0),
            TOP_K=top_k, SLOTS=triton.next_power_of_2(top_k), COLUMNS=columns,
            ADDED=added is not None, GATED=gate is not None,
        )  # fmt: skip
    return y


def combine_rows_reference(
    rows: torch.Tensor, places: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """Return what `combine_rows` computes, in float64."""
    return (rows.double()[places.long()] * shares.double()[:, :, None]).sum(1)

"""Ask early for the memory that comes after what a costly loop computes on.

A core fetches ahead along what it is reading. While it computes on a row that it has read it
fetches nothing, and then waits for the lines it writes and for those of the next row. So the loop
of a costly reduction asks for both: the target of the store that follows, and as many elements
behind those it reads. The loop of a costly store of a row asks for the latter. A prefetch changes
no value and cannot fail, wherever it points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from asterope.host.access import tile_address
from asterope.host.arithmetic import ARITHMETIC
from asterope.host.chunks import Chunks
from asterope.host.values import At, storage_kind
from asterope.host.walk import masks_along, visits
from asterope.ir import Op, Value
from asterope.native import BITS, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["Ask", "asks_of", "next_store", "scalars_first"]

# Asks for what belongs to one chunk.
Ask = Callable[[At], None]


def scalars_first(ops: Sequence[Op]) -> list[Op]:
    """Move a block's arithmetic on scalars as far up as its operands allow.

    So the address of a store is known while the reduction before it runs.
    """
    if not any(op.name == "reduce" for op in ops):
        return list(ops)
    late: set[Value] = set()
    for op in ops:
        is_scalar = op.results and not any(r.type.shape for r in op.results)
        is_arithmetic = op.name == "const" or op.name in ARITHMETIC
        if not (is_scalar and is_arithmetic) or any(v in late for v in op.operands):
            late.update(op.results)
    moved = [op for op in ops if op.results and op.results[0] not in late]
    return [*moved, *(op for op in ops if not op.results or op.results[0] in late)]


def asks_of(
    low: Lowering, roots: Sequence[Value], plan: Chunks, target: Op | None = None
) -> list[Ask]:
    """Return what a loop that computes the roots should ask for, nothing for a cheap one.

    That is the target of a store, and what lies behind the tiles that the loop reads.
    """
    if not plan.is_costly:
        return []
    shape = roots[0].type.shape
    own = tuple(range(len(shape)))
    asks = []
    if target is not None:
        asks.append(_ask(low, target.operands[1 : 2 + len(shape)], target.operands[0], None))
    for visit in visits(low, [(v, own) for v in roots]):
        where = visit.op.operands[: 1 + len(shape)]
        if visit.op.name == "load_tile" and visit.dims == own and _is_own(low, where[0]):
            masks = [mask for mask, dim in masks_along(visit.op, own) if dim == plan.lane]
            asks.append(_ask(low, where, visit.value, plan.reached(masks)))
    return asks


def _is_own(low: Lowering, pointer: Value) -> bool:
    """Whether a tile is the program's own: what is the same for all of them is in caches anyway."""
    seen: set[Value] = set()
    stack = [pointer]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.op is not None and value.op.name == "program_id":
            return True
        stack += low.roots.sources(value)
    return False


def next_store(low: Lowering, shape: tuple[int, ...]) -> Op | None:
    """Return the next store of a tile of a shape in the block that is being translated."""
    stores = (op for op in low.later if op.name == "store_tile")
    return next((op for op in stores if op.operands[0].type.shape == shape), None)


def _ask(low: Lowering, where: Sequence[Value], tile: Value, ahead: Val | None) -> Ask:
    """Ask for the elements of a tile, or for those `ahead` elements further on."""
    fn, size = low.fn, BITS[storage_kind(tile.type)] // 8

    def ask(at: At) -> None:
        if any(v not in low.env for v in where):
            return
        address = tile_address(low, where, tile.type, at)
        if address is not None:
            fn.prefetch(address if ahead is None else address.offset(ahead * size))

    return ask

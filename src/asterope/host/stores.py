"""Stores: one loop nest each, through whatever is delayed behind what they store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.host.access import store_chunk, store_tile_chunk
from asterope.host.evaluate import unit_dimension
from asterope.host.sharing import settle_shared, sharing
from asterope.host.values import NARROW_FLOATS, At, Lazy
from asterope.ir import Op, Value

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["fusible", "is_quick_load", "store"]


def store(low: Lowering, op: Op) -> None:
    """Translate a store, in one loop nest with what it stores."""
    is_tile = op.name == "store_tile"
    value, pointer = op.operands[:2] if is_tile else (op.operands[1], op.operands[0])
    low.settle_loads(pointer)
    for operand in op.operands:
        state = low.env[operand]
        if isinstance(state, Lazy) and state.has_load and not fusible(low, operand, pointer):
            low.materialise(operand)
    put = store_tile_chunk if is_tile else store_chunk
    if not value.type.shape:
        put(low, op, low.scalar(value), At(()))
        return
    shape, lane = value.type.shape, _store_lane(op, value)
    roots = [v for v in op.operands if v.type.shape == shape]
    settle_shared(low, (v for v in op.operands if v not in roots))
    with sharing(low, roots, shape, lane, is_whole=False):
        for at in low.chunks(shape, roots, lane, store=op):
            put(low, op, low.evaluate(value, at).vector(at.lanes), at)


def is_quick_load(low: Lowering, op: Op) -> bool:
    """Whether to load again is as fast as to read a buffer: neighbours that need no decoding."""
    type_ = op.results[0].type
    is_plain = type_.elem not in NARROW_FLOATS or type_.elem == "bf16"
    if op.name != "load_tile" or not (is_plain or (type_.elem == "fp16" and low.fn.isa.has_half)):
        return False
    return unit_dimension(op.operands[1 : 1 + len(type_.shape)]) == len(type_.shape) - 1


def fusible(low: Lowering, delayed: Value, target: Value) -> bool:
    """Whether loads inside a delayed block may run chunk by chunk with a store to `target`."""
    if not low.disjoint:
        return False
    written = low.roots.root(target)
    stack, seen = [delayed], {delayed}
    while stack:
        state = low.env.get(stack.pop())
        if not isinstance(state, Lazy):
            continue  # its loads are done
        op = state.op
        if op.name in ("load", "load_tile"):
            read = low.roots.root(op.operands[0])
            if written is None or read is None or read is written:
                return False
        inner = [v for v in op.operands if v not in seen]
        seen.update(inner)
        stack += inner
    return True


def _store_lane(op: Op, value: Value) -> int:
    """Walk along the dimension that is contiguous in memory, if that is known."""
    if op.name == "store_tile":
        return unit_dimension(op.operands[2 : 2 + len(value.type.shape)])
    return -1

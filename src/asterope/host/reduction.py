"""Reductions, in the order the IR states: 16 partials in ascending order, then halving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.errors import UnsupportedError
from asterope.host.by_element import Combine, combine_of
from asterope.host.chunks import Chunks, chunks_of
from asterope.host.evaluate import lane_preference
from asterope.host.sharing import sharing
from asterope.host.values import At
from asterope.ir import REDUCE_PARTIALS, Op
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["popcount", "reduce"]


def reduce(low: Lowering, op: Op) -> None:
    """Translate a reduction along one axis."""
    axis, shape = op.attrs["axis"], op.operands[0].type.shape
    size = shape[axis]
    if size & (size - 1):
        raise UnsupportedError(
            f"a reduction over {size} elements is not supported yet",
            where=op.loc,
            hint="use a block size that is a power of two",
        )
    rest = tuple(n for d, n in enumerate(shape) if d != axis)
    combine = combine_of(low, op)
    if not rest:
        with sharing(low, op.operands, shape, 0), low.scope():
            totals = _along_lanes(low, op, combine, (), _chunks(low, op))
        low.env.update(zip(op.results, totals, strict=True))
        return
    results = [low.new_buffer(r.type) for r in op.results]
    known = (lane_preference(low, v) for v in op.operands)
    if axis == next((d for d in known if d >= 0), len(shape) - 1):
        plan = _chunks(low, op)
        with sharing(low, op.operands, shape, axis), low.loops(rest) as index, low.scope():
            totals = _along_lanes(low, op, combine, index, plan)
            for buffer, value in zip(results, totals, strict=True):
                low.fn.store(value, buffer.address(index))
    else:
        lane = len(rest) - (axis == len(rest))
        with sharing(low, op.operands, shape, lane), low.nest(rest) as at:
            for buffer, value in zip(results, _across_lanes(low, op, combine, at), strict=True):
                low.fn.store(value, buffer.address(at.index))
    low.env.update(zip(op.results, results, strict=True))


def _chunks(low: Lowering, op: Op) -> Chunks:
    """Plan the loop along the axis."""
    axis, shape = op.attrs["axis"], op.operands[0].type.shape
    lanes = min(REDUCE_PARTIALS, shape[axis])
    return chunks_of(low, shape, op.operands, lane=axis, lanes=lanes)


def _slots(values: list[Val]) -> list[Val]:
    """Put values into stack slots that a loop can change."""
    slots = [v.fn.slot(v.kind, v.lanes) for v in values]
    for slot, value in zip(slots, values, strict=True):
        value.fn.store(value, slot)
    return slots


def _loaded(slots: list[Val], like: list[Val]) -> list[Val]:
    return [v.fn.load(slot, v.kind, v.lanes) for slot, v in zip(slots, like, strict=True)]


def _along_lanes(
    low: Lowering, op: Op, combine: Combine, index: tuple[Val, ...], plan: Chunks
) -> list[Val]:
    """Reduce a row with its elements along the lanes."""
    fn = low.fn
    axis, size = op.attrs["axis"], op.operands[0].type.shape[op.attrs["axis"]]
    lanes = min(REDUCE_PARTIALS, size)

    def chunk(at: At) -> list[Val]:
        return [low.evaluate(v, at).vector(lanes) for v in op.operands]

    totals = chunk(At((*index[:axis], fn.const("i64", 0), *index[axis:]), axis, lanes))
    if size > lanes:
        slots = _slots(totals)
        for at in plan.each(index, lanes):
            after = combine(_loaded(slots, totals), chunk(at))
            for slot, value in zip(slots, after, strict=True):
                fn.store(value, slot)
        totals = _loaded(slots, totals)
    while lanes > 1:
        lanes //= 2
        halves = [[t.shuffle(range(s, s + lanes)) for t in totals] for s in (0, lanes)]
        totals = combine(*halves)
    return [t.lane(0) for t in totals]


def _across_lanes(low: Lowering, op: Op, combine: Combine, at: At) -> list[Val]:
    """Reduce with another dimension along the lanes: each partial is a vector."""
    fn = low.fn
    axis, size = op.attrs["axis"], op.operands[0].type.shape[op.attrs["axis"]]
    count = min(REDUCE_PARTIALS, size)
    lane = at.lane + (at.lane >= axis)

    def element(k: Val) -> list[Val]:
        where = At((*at.index[:axis], k, *at.index[axis:]), lane, at.lanes)
        return [low.evaluate(v, where).vector(at.lanes) for v in op.operands]

    partials = [element(fn.const("i64", i)) for i in range(count)]
    if size > count:
        slots = [_slots(p) for p in partials]
        with fn.loop(count, size, count) as start, low.scope():
            for i, mine in enumerate(slots):
                after = combine(_loaded(mine, partials[0]), element(start + i))
                for slot, value in zip(mine, after, strict=True):
                    fn.store(value, slot)
        partials = [_loaded(mine, partials[0]) for mine in slots]
    while len(partials) > 1:
        half = len(partials) // 2
        partials = [combine(partials[i], partials[i + half]) for i in range(half)]
    return partials[0]


def popcount(low: Lowering, op: Op) -> None:
    """Count the set elements of a mask."""
    fn, source = low.fn, op.operands[0]
    state = low.env[source]
    if isinstance(state, Val):
        low.env[op.result] = state.zext("i32")
        return
    total = fn.slot("i32")
    fn.store(fn.const("i32", 0), total)
    with low.nest(source.type.shape) as at:
        on = low.evaluate(source, at).vector(at.lanes)
        count = fn.call(f"llvm.vector.reduce.add.v{at.lanes}i32", (on.zext("i32"),), "i32")
        fn.store(fn.load(total, "i32") + count, total)
    low.env[op.result] = fn.load(total, "i32")

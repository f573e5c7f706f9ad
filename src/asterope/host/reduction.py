"""Reductions, in the order the IR states: 64 partials in ascending order, then halving.

Four vectors of 16 partials are four sums that a core adds to at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from asterope.errors import UnsupportedError
from asterope.host.by_element import Combine, combine_of
from asterope.host.chunks import Chunks, chunks_of
from asterope.host.evaluate import lane_preference
from asterope.host.prefetch import asks_of, next_store
from asterope.host.sharing import sharing
from asterope.host.values import At, lanes_for, register_kind
from asterope.ir import REDUCE_PARTIALS, Op
from asterope.native import BITS, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["popcount", "reduce"]

_MOST_IN_REGISTERS = 16
_LEAST_BITS = 128
# A row that costs more is written as a loop: it keeps a core busy, and LLVM long enough.
_MAX_COST_AT_ONCE = 200


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
    lanes, count = _vectors(shape[axis])
    return chunks_of(low, shape, op.operands, lane=axis, lanes=lanes, copies=count)


def _vectors(size: int) -> tuple[int, int]:
    """Return how the partials lie in vectors: lanes, and how many vectors."""
    partials = min(REDUCE_PARTIALS, size)
    lanes = lanes_for(partials)
    return lanes, partials // lanes


class _Partials:
    """Vectors of partials on the stack, for each operand; loops may choose one at run time."""

    def __init__(self, low: Lowering, op: Op, lanes: int, count: int) -> None:
        self._kinds = [register_kind(v.type) for v in op.operands]
        self._slots = [low.fn.slot(kind, lanes * count) for kind in self._kinds]
        self._fn, self._lanes = low.fn, lanes

    def _places(self, i: Val | int) -> Iterator[tuple[str, Val]]:
        for kind, slot in zip(self._kinds, self._slots, strict=True):
            yield kind, slot.offset(i * (self._lanes * max(1, BITS[kind] // 8)))

    def load(self, i: Val | int) -> list[Val]:
        """Return vector `i` of each operand."""
        return [self._fn.load(place, kind, self._lanes) for kind, place in self._places(i)]

    def store(self, i: Val | int, values: list[Val]) -> None:
        """Replace vector `i` of each operand."""
        for (_, place), value in zip(self._places(i), values, strict=True):
            self._fn.store(value, place)


def _along_lanes(
    low: Lowering, op: Op, combine: Combine, index: tuple[Val, ...], plan: Chunks
) -> list[Val]:
    """Reduce a row with its elements along the lanes."""
    fn, axis = low.fn, op.attrs["axis"]
    size = op.operands[0].type.shape[axis]
    lanes, count = _vectors(size)
    partials = _Partials(low, op, lanes, count)
    asks = asks_of(low, op.operands, plan, next_store(low, op.operands[0].type.shape))

    def chunk(at: At) -> list[Val]:
        for ask in asks:
            ask(at)
        return [low.evaluate(v, at).vector(lanes) for v in op.operands]

    begin = lanes * count
    # Vectors that no loop chooses at run time stay in registers.
    in_registers = plan.copies > 1 or size == begin
    if in_registers and plan.cost * count <= _MAX_COST_AT_ONCE:
        with low.scope():  # what belongs to the row is computed once
            for i in range(count):
                start = fn.const("i64", i * lanes)
                at = At((*index[:axis], start, *index[axis:]), axis, lanes)
                partials.store(i, chunk(at))
    else:
        with fn.loop(0, count) as vector, low.scope():
            at = At((*index[:axis], vector * lanes, *index[axis:]), axis, lanes)
            partials.store(vector, chunk(at))
    if size > begin and in_registers:
        full = plan.full_end(index, begin)
        for loop in (plan.full(index, begin, full), plan.rest(index, begin, full)):
            for i, at in enumerate(loop):
                partials.store(i, combine(partials.load(i), chunk(at)))
    elif size > begin:
        for at in plan.each(index, begin):
            vector = (at.index[axis] & (begin - 1)) >> (lanes.bit_length() - 1)
            partials.store(vector, combine(partials.load(vector), chunk(at)))
    return _total(_halved([partials.load(i) for i in range(count)], combine), lanes, combine)


def _total(totals: list[Val], lanes: int, combine: Combine) -> list[Val]:
    """Combine the lanes of a vector of each operand, halving."""
    # Vectors that do not fill a register are repeated, so that they stay vectors.
    least = max(_LEAST_BITS // BITS[t.kind] for t in totals)
    while lanes > 1:
        lanes //= 2
        held = min(totals[0].lanes, max(lanes, least))
        parts = [[first + i % lanes for i in range(held)] for first in (0, lanes)]
        totals = combine(*([t.shuffle(part) for t in totals] for part in parts))
    return [t.lane(0) for t in totals]


def _halved(rows: list[list[Val]], combine: Combine) -> list[Val]:
    """Combine the first half with the second until one is left."""
    while len(rows) > 1:
        half = len(rows) // 2
        rows = [combine(rows[i], rows[i + half]) for i in range(half)]
    return rows[0]


def _across_lanes(low: Lowering, op: Op, combine: Combine, at: At) -> list[Val]:
    """Reduce with another dimension along the lanes: each partial is a vector."""
    fn = low.fn
    axis, size = op.attrs["axis"], op.operands[0].type.shape[op.attrs["axis"]]
    count = min(REDUCE_PARTIALS, size)
    lane = at.lane + (at.lane >= axis)

    def element(k: Val) -> list[Val]:
        where = At((*at.index[:axis], k, *at.index[axis:]), lane, at.lanes)
        return [low.evaluate(v, where).vector(at.lanes) for v in op.operands]

    if size <= _MOST_IN_REGISTERS:
        return _halved([element(fn.const("i64", i)) for i in range(size)], combine)
    partials = _Partials(low, op, at.lanes, count)
    with fn.loop(0, count) as i, low.scope():
        partials.store(i, element(i))
    if size > count:
        with fn.loop(count, size, count) as start, fn.loop(0, count) as i, low.scope():
            partials.store(i, combine(partials.load(i), element(start + i)))
    left = fn.slot("i64")
    fn.store(fn.const("i64", count // 2), left)
    with fn.while_(lambda: fn.load(left, "i64").gt(0)):
        half = fn.load(left, "i64")
        with fn.loop(0, half) as i:
            partials.store(i, combine(partials.load(i), partials.load(i + half)))
        fn.store(half >> 1, left)
    return partials.load(0)


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

"""Loops over the chunks of a block, cut where its masks change.

A loop nest whose masks are bounded is written twice: over chunks where all masks are on, as plain
loads and stores, and over those where they have to be looked at. A store ends with its own masks.
A costly nest that has to go over the whole block is written a third time, for where no mask is on:
what it computes there is mostly the same for every chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asterope.host.bounds import Reach, reach_of
from asterope.host.evaluate import cost_of
from asterope.host.values import At, Lane
from asterope.host.walk import masks_along, visits
from asterope.ir import Op, Value
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["Chunks", "chunks_of"]

# A body that costs more than this an element is written once: masks are the least of it.
_MAX_COST = 48
# One that costs less is not written for elements that are all off: the masked one will do. Nor does
# it take so long that memory could be asked for meanwhile. One that costs so much keeps a core busy
# without a second chunk at the same time.
_MIN_COST = 14

Masks = list[tuple[Value, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """How to go over one dimension of a block in chunks, once per value of the other indices.

    `on` are the masks along the dimension whose reach is known and `rows` those along others.
    Nothing has an effect from `stop` on, nor where one of `stop_rows` is off. Bodies are written
    for `copies` chunks at once. `cost` is that of an element.
    """

    low: Lowering
    lane: int
    lanes: int
    size: int
    on: dict[Value, Reach] = field(default_factory=dict)
    rows: Masks = field(default_factory=list)
    stop: Val | None = None
    stop_rows: Masks = field(default_factory=list)
    cost: int = 0
    is_cut: bool = False
    skips_rest: bool = False
    copies: int = 1

    @property
    def is_costly(self) -> bool:
        """Whether a chunk takes long."""
        return self.cost >= _MIN_COST

    def each(
        self, index: Sequence[Val], begin: int = 0, *, beside: Sequence[Val] = ()
    ) -> Iterator[At]:
        """Open the loops, from element `begin` on; yields once for each copy of the body.

        `index` holds the other dimensions' indices; where the body goes over a second row as well,
        `beside` holds that one's.
        """
        full = self.full_end(index, begin, beside)
        yield from self.full(index, begin, full, beside)
        yield from self.rest(index, begin, full)

    def full_end(self, index: Sequence[Val], begin: int, beside: Sequence[Val] = ()) -> Val:
        """Return where `full` ends."""
        first = self.low.fn.const("i64", begin)
        if not self.is_cut:
            return self._end(index, first)
        return self._full([row for row in (index, beside) if row]).minimum("smax", first)

    def full(
        self, index: Sequence[Val], begin: int, full: Val, beside: Sequence[Val] = ()
    ) -> Iterator[At]:
        """Open the loop where all masks are on, or that goes over everything."""
        first = self.low.fn.const("i64", begin)
        masks = [*((mask, self.lane) for mask in self.on), *self.rows] if self.is_cut else []
        known = dict.fromkeys(masks, True)
        yield from self._loop(first, full, index, known, copies=self.copies, beside=beside)

    def rest(self, index: Sequence[Val], begin: int, full: Val) -> Iterator[At]:
        """Open the loops behind `full`: one of copies, or several of one chunk at a time."""
        if not self.is_cut:
            return
        end = self._end(index, self.low.fn.const("i64", begin))
        if not self.skips_rest:
            yield from self._loop(full, end, index, copies=self.copies)
            return
        edge = self._rounded_up(self._edge(), full)
        yield from self._loop(full, edge, index)
        off = dict.fromkeys([(mask, self.lane) for mask in self.on], False)
        yield from self._loop(edge, end, index, off)

    def _end(self, index: Sequence[Val], first: Val) -> Val:
        """Return from where on nothing has an effect."""
        last = self.low.fn.const("i64", self.size)
        end = last if self.stop is None else self._rounded_up(self.stop, first)
        return self._rows_on(self.stop_rows, index).where(end, first) if self.stop_rows else end

    def _loop(
        self,
        begin: Val,
        end: Val,
        index: Sequence[Val],
        known: Mapping[tuple[Value, int], bool] | None = None,
        copies: int = 1,
        beside: Sequence[Val] = (),
    ) -> Iterator[At]:
        """Open one loop, in whose body some masks are known; yields for each copy of the body."""
        low = self.low
        rows = (index, beside) if beside else (index,)
        with low.fn.loop(begin, end, copies * self.lanes) as first, low.scope():
            for start in (first + i * self.lanes if i else first for i in range(copies)):
                for (mask, dim), is_on in (known or {}).items():
                    for row in rows:
                        where = start if dim == self.lane else self._index(row, dim)
                        at = At((where,), 0 if dim == self.lane else -1)
                        low.memos[-1][id(mask), *at.key()] = Lane(low.fn.const("i1", is_on))
                yield At((*index[: self.lane], start, *index[self.lane :]), self.lane, self.lanes)

    def _index(self, index: Sequence[Val], dim: int) -> Val:
        return index[dim - (dim > self.lane)]

    def _rows_on(self, masks: Masks, index: Sequence[Val]) -> Val:
        on = self.low.fn.const("i1", 1)
        with self.low.scope():
            for mask, dim in masks:
                on = on & self.low.evaluate(mask, At((self._index(index, dim),))).val
        return on

    def _full(self, rows: Sequence[Sequence[Val]]) -> Val:
        """Return where the chunks of these rows end in which every known mask is on."""
        full = self.low.fn.const("i64", self.size)
        for reach in self.on.values():
            full = full.minimum("smin", reach.full)
        full = full.minimum("smax", 0) & -(self.copies * self.lanes)
        for row in rows if self.rows else ():
            full = self._rows_on(self.rows, row).where(full, 0)
        return full

    def _edge(self) -> Val:
        """Return from where on every known mask along the lanes is off."""
        first, *others = (reach.edge for reach in self.on.values())
        for edge in others:
            first = first.minimum("smax", edge)
        return first

    def reached(self, masks: Sequence[Value]) -> Val:
        """Return how many elements some masks along the dimension leave on, at most."""
        least = self.low.fn.const("i64", self.size)
        for mask in masks:
            if mask in self.on:
                least = least.minimum("smin", self.on[mask].edge)
        return least.minimum("smax", 0)

    def _rounded_up(self, edge: Val, least: Val) -> Val:
        """Return where the chunk ends that holds the last element before `edge`."""
        inside = edge.minimum("smax", 0).minimum("smin", self.size)
        return ((inside + (self.lanes - 1)) & -self.lanes).minimum("smax", least)


def chunks_of(
    low: Lowering,
    shape: tuple[int, ...],
    roots: Sequence[Value],
    *,
    lane: int,
    lanes: int,
    store: Op | None = None,
    copies: int = 1,
) -> Chunks:
    """Plan the loop over one dimension of a nest that computes blocks of this shape.

    With a `store` the nest does nothing but that, so it ends where the store's own masks do. A
    cheap body is written for `copies` chunks at once, of which the dimension holds a multiple.
    """
    dims = tuple(range(len(shape)))
    delayed = [v for v in roots if v.type.shape == shape]
    own = masks_along(store, dims) if store else []
    visited = list(visits(low, [(v, dims) for v in delayed]))
    found = [m for visit in visited for m in masks_along(visit.op, visit.dims)]
    masks = list(dict.fromkeys(own + found))
    reaches = {mask: reach_of(low, mask) for mask, dim in masks if dim == lane}
    on = {mask: reach for mask, reach in reaches.items() if reach is not None}
    rows = [(mask, dim) for mask, dim in masks if dim != lane]
    stops = [on[mask].edge for mask, dim in own if dim == lane and mask in on]
    cost = sum(cost_of(op) for op in {visit.op for visit in visited})
    return Chunks(
        low=low, lane=lane, lanes=lanes, size=shape[lane], on=on, rows=rows,
        stop=_least(low, stops, shape[lane]) if store else None,
        stop_rows=[(mask, dim) for mask, dim in own if dim != lane],
        is_cut=bool(on or rows) and cost <= _MAX_COST,
        skips_rest=bool(on) and store is None and cost >= _MIN_COST,
        copies=1 if cost >= _MIN_COST else copies,
        cost=cost,
    )  # fmt: skip


def _least(low: Lowering, ends: Sequence[Val], size: int) -> Val:
    least = low.fn.const("i64", size)
    for end in ends:
        least = least.minimum("smin", end)
    return least

"""Scans: strictly one element after the other, over other dimensions in vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.host.by_element import Combine, combine_of, goes_straight
from asterope.host.layout import transposed
from asterope.host.values import At, Buffer, lanes_for, register_kind
from asterope.ir import Op
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["scan"]

_MIN_SQUARE = 4


def scan(low: Lowering, op: Op) -> None:
    """Translate a scan along one axis."""
    axis, shape = op.attrs["axis"], op.operands[0].type.shape
    results = [low.new_buffer(r.type) for r in op.results]
    combine = combine_of(low, op)
    others = [d for d, size in enumerate(shape) if d != axis and size > 1]
    lane = max(others, key=lambda d: (lanes_for(shape[d]), d), default=-1)
    straight = all(map(goes_straight, op.blocks))
    square = min(lanes_for(shape[lane]), lanes_for(shape[axis])) if others else 1
    if straight and not others:
        _row(low, op, combine, results)
    elif straight and axis == len(shape) - 1 and square >= _MIN_SQUARE:
        _squares(low, op, combine, results, lane, square)
    else:
        _across(low, op, combine, results, lane)
    low.env.update(zip(op.results, results, strict=True))


def _elements(low: Lowering, op: Op, at: At) -> list[Val]:
    return [low.evaluate(v, at).vector(at.lanes) for v in op.operands]


def _store_all(results: list[Buffer], values: list[Val], at: At) -> None:
    for buffer, value in zip(results, values, strict=True):
        fn, address = value.fn, buffer.address(at.index)
        stride = buffer.strides[at.lane] if at.lanes else 1
        if stride == 1:
            fn.store(value, address)
            continue
        raw = value.zext("i8") if value.kind == "i1" else value
        offsets = fn.iota("i64", at.lanes) * (stride * buffer.element_bytes)
        fn.scatter(raw, address.offset(offsets), fn.const("i1", 1, at.lanes))


def _across(low: Lowering, op: Op, combine: Combine, results: list[Buffer], lane: int) -> None:
    """Go along the axis with another dimension, if there is one, along the lanes."""
    fn, axis, shape = low.fn, op.attrs["axis"], op.operands[0].type.shape
    size = shape[axis]
    lanes = lanes_for(shape[lane]) if lane >= 0 else 0
    rest = tuple(1 if d in (axis, lane) else n for d, n in enumerate(shape))
    stop = shape[lane] if lane >= 0 else 1

    with low.loops(rest) as outer, fn.loop(0, stop, max(1, lanes)) as row:

        def at(step: Val | int) -> At:
            index = list(outer)
            if lane >= 0:
                index[lane] = row
            step = step if isinstance(step, Val) else fn.const("i64", step)
            index[axis] = fn.const("i64", size - 1) - step if op.attrs["reverse"] else step
            return At(tuple(index), lane, lanes)

        with low.scope():
            total = _elements(low, op, at(0))
            _store_all(results, total, at(0))
        slots = [fn.slot(t.kind, lanes) for t in total]
        for slot, value in zip(slots, total, strict=True):
            fn.store(value, slot)
        with fn.loop(1, size) as step, low.scope():
            before = [fn.load(s, t.kind, lanes) for s, t in zip(slots, total, strict=True)]
            after = combine(before, _elements(low, op, at(step)))
            _store_all(results, after, at(step))
            for slot, value in zip(slots, after, strict=True):
                fn.store(value, slot)


class _Totals:
    """The totals so far, carried over a loop; at its start they are taken over from elements."""

    def __init__(self, low: Lowering, op: Op, combine: Combine, lanes: int) -> None:
        self.fn, self.combine, self.lanes = low.fn, combine, lanes
        self.kinds = [register_kind(v.type) for v in op.operands]
        self.slots = [self.fn.slot(kind, lanes) for kind in self.kinds]
        self.values: list[Val] = []

    def reset(self) -> None:
        """Begin a row: what is combined with the first element is not used."""
        for slot, kind in zip(self.slots, self.kinds, strict=True):
            self.fn.store(self.fn.const(kind, 0, self.lanes), slot)

    def load(self) -> None:
        """Take the totals at the start of a loop's body."""
        pairs = zip(self.slots, self.kinds, strict=True)
        self.values = [self.fn.load(slot, kind, self.lanes) for slot, kind in pairs]

    def add(self, elements: list[Val], is_first: Val | None) -> list[Val]:
        """Combine with the next elements and return the totals."""
        after = self.combine(self.values, elements)
        if is_first is not None:
            after = [is_first.where(e, a) for e, a in zip(elements, after, strict=True)]
        self.values = after
        return after

    def store(self) -> None:
        """Leave the totals to the next run of the body."""
        for slot, value in zip(self.slots, self.values, strict=True):
            self.fn.store(value, slot)


def _row(low: Lowering, op: Op, combine: Combine, results: list[Buffer]) -> None:
    """Scan a single row: load and store vectors, combine lane after lane."""
    fn, axis, shape = low.fn, op.attrs["axis"], op.operands[0].type.shape
    size, lanes = shape[axis], lanes_for(shape[axis])
    totals = _Totals(low, op, combine, 0)
    totals.reset()
    zero = fn.const("i64", 0)
    with fn.loop(0, size, lanes) as step, low.scope():
        totals.load()
        start = fn.const("i64", size - lanes) - step if op.attrs["reverse"] else step
        at = At(tuple(start if d == axis else zero for d in range(len(shape))), axis, lanes)
        elements = _elements(low, op, at)
        kept = list(elements)
        for k in _order(op, lanes):
            is_first = step.eq(0) if k == _order(op, lanes)[0] else None
            done = totals.add([e.lane(k) for e in elements], is_first)
            kept = [v.with_lane(k, t) for v, t in zip(kept, done, strict=True)]
        _store_all(results, kept, at)
        totals.store()


def _squares(
    low: Lowering, op: Op, combine: Combine, results: list[Buffer], lane: int, width: int
) -> None:
    """Scan rows that are contiguous: turn squares so that rows lie along the lanes, and back."""
    fn, axis, shape = low.fn, op.attrs["axis"], op.operands[0].type.shape
    rest = tuple(1 if d in (axis, lane) else n for d, n in enumerate(shape))
    totals = _Totals(low, op, combine, width)
    with low.loops(rest) as outer, fn.loop(0, shape[lane], width) as row:
        totals.reset()
        with fn.loop(0, shape[axis], width) as step, low.scope():
            totals.load()
            last = fn.const("i64", shape[axis] - width)
            start = last - step if op.attrs["reverse"] else step
            places = []
            for i in range(width):
                index = [*outer]
                index[lane], index[axis] = row + i, start
                places.append(At(tuple(index), axis, width))
            rows = [_elements(low, op, at) for at in places]
            columns = [transposed([r[k] for r in rows]) for k in range(len(op.operands))]
            for k in _order(op, width):
                is_first = step.eq(0) if k == _order(op, width)[0] else None
                done = totals.add([c[k] for c in columns], is_first)
                for column, value in zip(columns, done, strict=True):
                    column[k] = value
            totals.store()
            turned = [transposed(column) for column in columns]
            for i, at in enumerate(places):
                _store_all(results, [t[i] for t in turned], at)


def _order(op: Op, lanes: int) -> range:
    return range(lanes - 1, -1, -1) if op.attrs["reverse"] else range(lanes)

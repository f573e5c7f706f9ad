"""Loads and stores of chunks: contiguous where addresses allow it, masked, gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asterope.host.runs import is_run
from asterope.host.values import At, Lane, from_storage, storage_kind, to_storage
from asterope.ir import Op, Type, Value
from asterope.native import BITS, Function, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = [
    "load_chunk",
    "load_tile_chunk",
    "store_chunk",
    "store_tile_chunk",
    "tile_address",
    "tile_addresses",
]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a chunk of a tile lies: a scalar address, offsets along the lanes, and what is on.

    `offsets` are bytes from the address, None where lanes are neighbours; `is_run` says whether
    they turned out to be, if that is known. `row` is the part of the mask that holds for the whole
    chunk, `lanes_on` the part that differs; None means all on.
    """

    address: Val
    offsets: Lane | None
    is_run: Val | None
    row: Val | None
    lanes_on: Val | None

    def consecutive(self, lanes: int, size: int) -> tuple[Val, Val]:
        """Return whether offsets computed at run time are consecutive after all, and the first."""
        assert self.offsets is not None
        offsets = self.offsets.val
        first = offsets.lane(0)
        if self.is_run is not None:
            return self.is_run, first
        run = first.splat(lanes) + first.fn.iota("i64", lanes) * size
        return offsets.eq(run).all_lanes(), first


def _address(
    low: Lowering, rest: Sequence[Value], type_: Type, at: At
) -> tuple[Val, Lane | None, Val | None]:
    """Return where a chunk of a tile begins, offsets of lanes apart, and whether they run."""
    size = BITS[storage_kind(type_)] // 8
    address = low.evaluate(rest[0], at).val
    offsets: Lane | None = None
    run: Val | None = None
    for d in range(len(type_.shape)):
        where = At((at.index[d],), 0 if d == at.lane else -1, at.lanes if d == at.lane else 0)
        offset = low.evaluate(rest[1 + d], where)
        if d == at.lane and offset.val.lanes:
            offsets = Lane(offset.val.sext("i64") * size)
            run = is_run(low, rest[1 + d], where)
        else:
            address = address.offset(offset.val.sext("i64") * size)
            if d == at.lane and offset.step != 1:
                offsets = Lane(low.fn.const("i64", 0), offset.step * size)
    return address, offsets, run


def _place(low: Lowering, op: Op, rest: list[Value], type_: Type, at: At) -> _Place:
    rank = len(type_.shape)
    address, offsets, run = _address(low, rest, type_, at)
    row: Val | None = None
    lanes_on: Val | None = None
    for d, mask in zip(op.attrs.get("mask_dims", ()), rest[1 + rank :], strict=False):
        where = At((at.index[d],), 0 if d == at.lane else -1, at.lanes if d == at.lane else 0)
        on = low.evaluate(mask, where)
        if on.val.ref == "true":
            continue
        if on.val.lanes:
            lanes_on = on.val
        else:
            row = on.val if row is None else row & on.val
    return _Place(address, offsets, run, row, lanes_on)


def load_tile_chunk(low: Lowering, op: Op, at: At) -> Lane:
    """Load a chunk of a tile."""
    type_ = op.result.type
    place = _place(low, op, op.operands, type_, at)
    fn = low.fn
    kind = storage_kind(type_)
    other = fn.const(kind, 0)
    if op.attrs.get("other"):
        other = to_storage(low.scalar(op.operands[-1]), type_)
    if not at.lanes:
        mask = _both(place.row, place.lanes_on)
        return Lane(from_storage(_load_one(fn, place.address, mask, other), type_))
    if place.offsets is not None and not place.offsets.val.lanes and not place.offsets.step:
        if place.lanes_on is None:
            one = _load_one(fn, place.address, place.row, other)
            return Lane(from_storage(one, type_))
        on = _both(place.row, place.lanes_on.any_lane())
        one = _load_one(fn, place.address, on, other)
        return Lane(from_storage(place.lanes_on.where(one, other), type_))
    step = low.steps.get(op.operands[0])
    raw = _load_lanes(fn, place, kind, at.lanes, other, step if len(type_.shape) > 1 else None)
    return Lane(from_storage(raw, type_))


def _both(a: Val | None, b: Val | None) -> Val | None:
    if a is None or b is None:
        return a if b is None else b
    return a & b


def _load_one(fn: Function, address: Val, on: Val | None, other: Val) -> Val:
    """Load one element, or `other` where it is off."""
    if on is None:
        return fn.load(address, other.kind)
    slot = fn.slot(other.kind)
    fn.store(other, slot)
    with fn.if_(on):
        fn.store(fn.load(address, other.kind), slot)
    return fn.load(slot, other.kind)


def _mask(fn: Function, place: _Place, lanes: int) -> Val | None:
    if place.row is None:
        return place.lanes_on
    row = place.row.splat(lanes)
    return row if place.lanes_on is None else row & place.lanes_on


def _load_lanes(
    fn: Function, place: _Place, kind: str, lanes: int, other: Val, step: Val | None
) -> Val:
    """Load a chunk; where rows of a tile lie apart, ask for what is a loop's `step` ahead."""
    mask = _mask(fn, place, lanes)
    if place.offsets is None:
        if step is not None:
            fn.prefetch(place.address.offset(step))
        return _load_run(fn, place.address, kind, lanes, mask, other)
    offsets = place.offsets.vector(lanes)
    if not place.offsets.val.lanes:
        return _gather(fn, place.address.offset(offsets), lanes, mask, other)
    is_consecutive, first = place.consecutive(lanes, BITS[kind] // 8)
    slot = fn.slot(kind, lanes)
    with fn.if_else(is_consecutive) as otherwise:
        if step is not None:
            fn.prefetch(place.address.offset(first).offset(step))
        fn.store(_load_run(fn, place.address.offset(first), kind, lanes, mask, other), slot)
        otherwise()
        fn.store(_gather(fn, place.address.offset(offsets), lanes, mask, other), slot)
    return fn.load(slot, kind, lanes)


def _load_run(
    fn: Function, address: Val, kind: str, lanes: int, mask: Val | None, other: Val
) -> Val:
    """Load neighbours in memory."""
    if mask is None:
        return fn.load(address, kind, lanes)
    filler = other.splat(lanes)
    if fn.isa.has_wide_masks or BITS[kind] >= 32:
        return fn.masked_load(address, mask, filler)
    # Without byte masks a masked load is a branch an element: take it only at the edge.
    slot = fn.slot(kind, lanes)
    with fn.if_else(mask.all_lanes()) as otherwise:
        fn.store(fn.load(address, kind, lanes), slot)
        otherwise()
        fn.store(fn.masked_load(address, mask, filler), slot)
    return fn.load(slot, kind, lanes)


def _known_mask(low: Lowering, mask: Value, at: At) -> Lane | None:
    """Return a mask, None where it is known to be on."""
    on = low.evaluate(mask, at)
    return None if on.val.ref == "true" else on


def _gather(fn: Function, addresses: Val, lanes: int, mask: Val | None, other: Val) -> Val:
    on = mask if mask is not None else fn.const("i1", 1, lanes)
    return fn.gather(addresses, on, other.splat(lanes))


def load_chunk(low: Lowering, op: Op, at: At) -> Lane:
    """Gather a chunk through a block of pointers."""
    fn, type_ = low.fn, op.result.type
    pointers = low.evaluate(op.operands[0], at)
    mask = _known_mask(low, op.operands[1], at) if op.attrs.get("mask") else None
    if op.attrs.get("other"):
        other = to_storage(low.evaluate(op.operands[-1], at).vector(at.lanes), type_)
    else:
        other = fn.const(storage_kind(type_), 0, at.lanes)
    if not at.lanes:
        on = mask.val if mask else None
        return Lane(from_storage(_load_one(fn, pointers.val, on, other), type_))
    on = mask.vector(at.lanes) if mask else None
    raw = _gather(fn, pointers.vector(at.lanes), at.lanes, on, other)
    return Lane(from_storage(raw, type_))


def tile_address(low: Lowering, rest: Sequence[Value], type_: Type, at: At) -> Val | None:
    """Return where a chunk of a tile lies, None where its elements are no neighbours."""
    address, offsets, _ = _address(low, rest, type_, at)
    return address if offsets is None else None


def tile_addresses(
    low: Lowering, op: Op, rest: list[Value], type_: Type, at: At
) -> tuple[Val, Val | None]:
    """Return the addresses of a chunk of a tile, and which elements are on."""
    place = _place(low, op, rest, type_, at)
    if place.offsets is None:
        size = BITS[storage_kind(type_)] // 8
        offsets = low.fn.iota("i64", at.lanes) * size
    else:
        offsets = place.offsets.vector(at.lanes)
    return place.address.offset(offsets), _mask(low.fn, place, at.lanes)


# -- stores ---------------------------------------------------------------------------------------
def store_tile_chunk(low: Lowering, op: Op, value: Val, at: At) -> None:
    """Store a chunk of a tile."""
    type_ = op.operands[0].type
    place = _place(low, op, op.operands[1:], type_, at)
    fn = low.fn
    raw = to_storage(value, type_)
    if not at.lanes:
        _store_one(fn, raw, place.address, _both(place.row, place.lanes_on))
        return
    mask = _mask(fn, place, at.lanes)
    if place.offsets is None:
        _store_run(fn, raw, place.address, mask)
        return
    addresses = place.address.offset(place.offsets.vector(at.lanes))
    if not place.offsets.val.lanes:
        _scatter(fn, raw, addresses, mask)
        return
    is_consecutive, first = place.consecutive(at.lanes, BITS[raw.kind] // 8)
    with fn.if_else(is_consecutive) as otherwise:
        _store_run(fn, raw, place.address.offset(first), mask)
        otherwise()
        _scatter(fn, raw, addresses, mask)


def _store_one(fn: Function, raw: Val, address: Val, on: Val | None) -> None:
    if on is None:
        fn.store(raw, address)
        return
    with fn.if_(on):
        fn.store(raw, address)


def _store_run(fn: Function, raw: Val, address: Val, mask: Val | None) -> None:
    if mask is None:
        fn.store(raw, address)
    elif fn.isa.has_wide_masks or BITS[raw.kind] >= 32:
        fn.masked_store(raw, address, mask)
    else:
        with fn.if_else(mask.all_lanes()) as otherwise:
            fn.store(raw, address)
            otherwise()
            fn.masked_store(raw, address, mask)


def _scatter(fn: Function, raw: Val, addresses: Val, mask: Val | None) -> None:
    on = mask if mask is not None else fn.const("i1", 1, raw.lanes)
    fn.scatter(raw, addresses, on)


def store_chunk(low: Lowering, op: Op, value: Val, at: At) -> None:
    """Scatter a chunk through a block of pointers, or store one scalar."""
    fn, type_ = low.fn, op.operands[1].type
    raw = to_storage(value, type_)
    pointers = low.evaluate(op.operands[0], at)
    mask = _known_mask(low, op.operands[2], at) if op.attrs.get("mask") else None
    if not at.lanes:
        _store_one(fn, raw, pointers.val, mask.val if mask else None)
        return
    on = mask.vector(at.lanes) if mask else None
    _scatter(fn, raw, pointers.vector(at.lanes), on)

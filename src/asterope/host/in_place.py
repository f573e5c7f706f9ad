"""Tiles that lie in memory as a buffer would hold them: a product reads them where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asterope.host.bounds import no_wrap, reach_of, spacing
from asterope.host.evaluate import lane_preference
from asterope.host.layout import strides_of
from asterope.host.values import At, Buffer, Lazy, register_kind, storage_kind
from asterope.ir import Op, Type, Value, masks_of
from asterope.native import BITS, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["read_in_place"]


def read_in_place(low: Lowering, value: Value, temporary: Callable[..., Buffer]) -> Buffer | None:
    """Return a delayed tile where it lies, or as a copy where a mask turns out to be off.

    None if its elements never lie as in a buffer. What is returned is valid for the current op.
    """
    return _read(low, value, temporary, compact=value in low.compact)


def _read(
    low: Lowering, value: Value, temporary: Callable[..., Buffer], *, compact: bool
) -> Buffer | None:
    state = low.env[value]
    if not isinstance(state, Lazy) or low.uses[value] > 1:
        return None
    if state.op.name == "transpose" and tuple(state.op.attrs["order"]) == (1, 0):
        found = _read(low, state.op.operands[0], temporary, compact=compact)
        if found is None:
            return None
        strides = found.strides[::-1]
        return Buffer(found.memory, found.pointer, value.type, strides, compact)
    if state.op.name != "load_tile":
        return None
    if not _is_stored_as_held(value.type, compact=compact):
        return None
    lane = lane_preference(low, value)
    if lane < 0 or (compact and lane < len(value.type.shape) - 2):
        return None
    is_there = _lies(low, state.op, strides_of(value.type.shape, lane))
    if is_there is None:
        return None
    fn, place = low.fn, low.fn.slot("ptr")
    copy = temporary(value.type, lane, compact=compact)
    fn.store(_start(low, state.op), place)
    with fn.if_(~is_there), low.inner():
        low.fill(copy, value)
        fn.store(copy.pointer, place)
    return Buffer(copy.memory, fn.load(place, "ptr"), copy.type, copy.strides, compact)


def _is_stored_as_held(type_: Type, *, compact: bool) -> bool:
    if compact:
        return type_.elem == "bf16"
    return storage_kind(type_) == register_kind(type_) and type_.elem != "i1"


def _lies(low: Lowering, op: Op, strides: tuple[int, ...]) -> Val | None:
    """Whether all elements are on and lie at such distances, None if that is never so."""
    shape = op.result.type.shape
    there = low.fn.const("i1", 1)
    for offset, stride, size in zip(op.operands[1:], strides, shape, strict=False):
        rises = no_wrap(low, offset, size) if size > 1 else there
        if rises is None or (size > 1 and spacing(low, offset) != stride):
            return None
        there = there & rises
    for dim, mask in masks_of(op).items():
        reach = reach_of(low, mask)
        if reach is None:
            return None
        there = there & reach.full.ge(shape[dim])
    return there


def _start(low: Lowering, op: Op) -> Val:
    """Return the address of the first element."""
    zero = low.fn.const("i64", 0)
    address = low.scalar(op.operands[0])
    size = BITS[storage_kind(op.result.type)] // 8
    with low.scope():
        for offset in op.operands[1 : 1 + len(op.result.type.shape)]:
            first = low.evaluate(offset, At((zero,))).val
            address = address.offset(first.sext("i64") * size)
    return address

"""Ops whose elements come from, or go to, places that other elements name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.host.values import At
from asterope.ir import Op
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["gather", "histogram"]


def gather(low: Lowering, op: Op) -> None:
    """Pick elements of a buffer along one dimension."""
    fn, (source, index), axis = low.fn, op.operands, op.attrs["axis"]
    buffer = low.materialise(source)
    result = low.new_buffer(op.result.type)
    last = source.type.shape[axis] - 1
    with low.nest(op.result.type.shape) as at:
        picked = low.evaluate(index, at).vector(at.lanes).zext("i64").minimum("umin", last)
        places = [_along(at, d) if d != axis else picked for d in range(len(at.index))]
        address = buffer.address(tuple(places))
        everywhere = fn.const("i1", 1, at.lanes)
        raw = fn.gather(address, everywhere, fn.undef(buffer.kind, at.lanes))
        fn.store(raw, result.address(at.index))
    low.env[op.result] = result


def _along(at: At, dim: int) -> Val:
    """Return the index along a dimension, a vector if the lanes go along it."""
    start = at.index[dim]
    return start.splat(at.lanes) + start.fn.iota("i64", at.lanes) if dim == at.lane else start


def histogram(low: Lowering, op: Op) -> None:
    """Count values into bins; those that are not counted go to a bin behind the last."""
    fn, source = low.fn, op.operands[0]
    (bins,) = op.result.type.shape
    result = low.new_buffer(op.result.type)  # a buffer has room for a vector behind its end
    with low.nest(op.result.type.shape) as at:
        fn.store(fn.const("i32", 0, at.lanes), result.address(at.index))
    with low.nest(source.type.shape) as at:
        value = low.evaluate(source, at).vector(at.lanes)
        value = value.zext("i64") if value.kind == "i1" else value.sext("i64")
        counted = value.cmp("ult", bins)
        if op.attrs.get("mask"):
            counted = counted & low.evaluate(op.operands[1], at).vector(at.lanes)
        bin_ = counted.where(value, bins)
        for lane in range(at.lanes):
            place = result.address((bin_.lane(lane),))
            fn.store(fn.load(place, "i32") + 1, place)
    low.env[op.result] = result

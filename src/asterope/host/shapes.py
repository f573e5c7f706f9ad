"""Ops that rearrange: as views of buffers where they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.host.evaluate import read_buffer
from asterope.host.values import At, Buffer
from asterope.ir import Op

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["join", "reshape", "split"]


def reshape(low: Lowering, op: Op) -> None:
    """Look at a row-major buffer in another shape."""
    source, target = op.operands[0], op.result.type
    if not source.type.shape:
        if not target.shape:
            low.env[op.result] = low.scalar(source)
            return
        buffer = low.new_buffer(target)
        low.fn.store(low.scalar(source), buffer.pointer)
        low.env[op.result] = buffer
        return
    buffer = low.materialise(source, row_major=True)
    strides, stride = [], 1
    for size in reversed(target.shape):
        strides.append(stride)
        stride *= size
    view = Buffer(buffer.memory, buffer.pointer, target, tuple(reversed(strides)))
    low.env[op.result] = view if target.shape else read_buffer(view, At(()))


def join(low: Lowering, op: Op) -> None:
    """Interleave two blocks."""
    a, b = op.operands
    buffer = low.new_buffer(op.result.type)
    if not a.type.shape:
        for i, v in enumerate((a, b)):
            low.fn.store(low.scalar(v), buffer.pointer.offset(i * buffer.element_bytes))
        low.env[op.result] = buffer
        return
    zero = low.fn.const("i64", 0)
    with low.nest(a.type.shape) as at:
        left, right = (low.evaluate(v, at).vector(at.lanes) for v in (a, b))
        if left.kind == "i1":
            left, right = left.zext("i8"), right.zext("i8")
        order = [i // 2 + (i % 2) * at.lanes for i in range(2 * at.lanes)]
        both = left.shuffle(order, right)
        low.fn.store(both, buffer.address((*at.index, zero)))
    low.env[op.result] = buffer


def split(low: Lowering, op: Op) -> None:
    """Look at the even and the odd elements of a row-major buffer."""
    buffer = low.materialise(op.operands[0], row_major=True)
    for i, result in enumerate(op.results):
        pointer = buffer.pointer.offset(i * buffer.element_bytes)
        view = Buffer(buffer.memory, pointer, result.type, buffer.strides[:-1])
        low.env[result] = view if result.type.shape else read_buffer(view, At(()))

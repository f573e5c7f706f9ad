"""Compute one chunk of a block, and through it whatever the block is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from asterope.host.access import load_chunk, load_tile_chunk
from asterope.host.arithmetic import ARITHMETIC
from asterope.host.values import At, Buffer, Lane, Lazy, index_const, register_kind
from asterope.ir import OPS, Op, Value, dtype_of, grows_by_one
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = [
    "LAZY",
    "constant_value",
    "cost_of",
    "evaluate",
    "lane_preference",
    "read_buffer",
    "unit_dimension",
]

_FUNCTION_COST, _DIVISION_COST, _LOAD_COST = 20, 8, 4
_COSTS = {
    **dict.fromkeys(("divs", "divu", "rems", "remu", "fdiv", "frem"), _DIVISION_COST),
    **{name: _FUNCTION_COST for name, spec in OPS.items() if spec.cost == "function"},
    "directed": _FUNCTION_COST,
    **dict.fromkeys(("sqrt", "rsqrt"), _DIVISION_COST),
    **dict.fromkeys(("load", "load_tile"), _LOAD_COST),
    **dict.fromkeys(("const", "iota", "broadcast", "expand", "transpose"), 0),
}


def cost_of(op: Op) -> int:
    """Estimate the instructions for one element of an op."""
    return _COSTS.get(op.name, 1)


def evaluate(low: Lowering, value: Value, at: At) -> Lane:
    """Return a chunk of a block; within one loop body nothing is computed twice."""
    state = low.env[value]
    if isinstance(state, Val):
        return Lane(state)
    key = (id(value), *at.key())
    for memo in reversed(low.memos):
        if key in memo:
            return memo[key]
    if isinstance(state, Buffer):
        result = Lane(read_buffer(state, at))
    else:
        result = LAZY[state.op.name](low, state.op, at)
    low.memos[-1][key] = result
    if isinstance(state, Lazy) and value in low.through:
        kept, buffer = low.through[value]
        chunk = evaluate(low, kept, at).vector(at.lanes)
        low.fn.store(buffer.encoded(chunk), buffer.address(at.index))
    return result


# -- buffers --------------------------------------------------------------------------------------
def read_buffer(buffer: Buffer, at: At) -> Val:
    """Load a chunk of a buffer."""
    fn = buffer.pointer.fn
    address = buffer.address(at.index)
    raw = _read_lanes(buffer, address, at) if at.lanes else fn.load(address, buffer.kind)
    return buffer.decoded(raw)


def _read_lanes(buffer: Buffer, address: Val, at: At) -> Val:
    fn, stride = address.fn, buffer.strides[at.lane]
    if stride == 1 or buffer.type.shape[at.lane] == 1:
        return fn.load(address, buffer.kind, at.lanes)
    if stride == 2:
        both = fn.load(address, buffer.kind, 2 * at.lanes)
        return both.shuffle(range(0, 2 * at.lanes, 2))
    offsets = fn.iota("i64", at.lanes) * (stride * buffer.element_bytes)
    everywhere = fn.const("i1", 1, at.lanes)
    return fn.gather(address.offset(offsets), everywhere, fn.undef(buffer.kind, at.lanes))


# -- ops ------------------------------------------------------------------------------------------
def _const(low: Lowering, op: Op, at: At) -> Lane:
    return Lane(constant_value(low, op))


def _iota(low: Lowering, op: Op, at: At) -> Lane:
    start = at.index[0].narrowed("i32") + op.attrs["start"]
    return Lane(start, 1 if at.lane == 0 else 0)


def _broadcast(low: Lowering, op: Op, at: At) -> Lane:
    source = op.operands[0]
    if not source.type.shape:
        return evaluate(low, source, at)
    zero = index_const(low.fn, 0)
    index = tuple(
        zero if size == 1 else i for i, size in zip(at.index, source.type.shape, strict=True)
    )
    if at.lane >= 0 and source.type.shape[at.lane] == 1:
        return evaluate(low, source, At(index))
    return evaluate(low, source, At(index, at.lane, at.lanes))


def _expand(low: Lowering, op: Op, at: At) -> Lane:
    return evaluate(low, op.operands[0], at.without(op.attrs["axis"]))


def _transpose(low: Lowering, op: Op, at: At) -> Lane:
    order = op.attrs["order"]
    index = tuple(at.index[order.index(d)] for d in range(len(order)))
    lane = order[at.lane] if at.lane >= 0 else -1
    return evaluate(low, op.operands[0], At(index, lane, at.lanes))


def _exchange(low: Lowering, op: Op, at: At) -> Lane:
    """Take the chunk that changes places with this one, and exchange lanes within."""
    source, axis, mask = op.operands[0], op.attrs["axis"], op.attrs["mask"]
    # Chunks of a size that is a power of two begin at multiples of their lanes.
    inside = mask & (at.lanes - 1) if at.lane == axis and at.lanes else 0
    index = (*at.index[:axis], at.index[axis] ^ (mask - inside), *at.index[axis + 1 :])
    found = evaluate(low, source, At(index, at.lane, at.lanes))
    if not inside:
        return found
    return Lane(found.vector(at.lanes).shuffle([i ^ inside for i in range(at.lanes)]))


def _elementwise(low: Lowering, op: Op, at: At) -> Lane:
    parts = [evaluate(low, v, at) for v in op.operands]
    if op.name in ("add", "sub", "mul") and not any(p.val.lanes for p in parts):
        run = _run(op.name, parts)
        if run is not None:
            return run
    if all(p.step == 0 and not p.val.lanes for p in parts):
        return Lane(ARITHMETIC[op.name](op, [p.val for p in parts]))
    operands = [p.vector(at.lanes) for p in parts]
    if op.name == "fdiv" and not parts[1].val.lanes:
        operands[1] = parts[1].val
    return Lane(ARITHMETIC[op.name](op, operands))


def _run(name: str, parts: list[Lane]) -> Lane | None:
    """Combine scalars that grow from lane to lane without making vectors of them."""
    a, b = parts
    if name == "add":
        return Lane(a.val + b.val, a.step + b.step)
    if name == "sub":
        return Lane(a.val - b.val, a.step - b.step)
    if not a.step and not b.step:
        return Lane(a.val * b.val)
    many, factor = (a, b) if a.step else (b, a)
    if factor.step or not factor.val.ref.lstrip("-").isdigit():
        return None
    return Lane(many.val * factor.val, many.step * int(factor.val.ref))


LAZY: dict[str, Callable[[Lowering, Op, At], Lane]] = {
    "const": _const,
    "iota": _iota,
    "broadcast": _broadcast,
    "expand": _expand,
    "transpose": _transpose,
    "exchange": _exchange,
    "load": load_chunk,
    "load_tile": load_tile_chunk,
    **dict.fromkeys(ARITHMETIC, _elementwise),
}


# -- layout ---------------------------------------------------------------------------------------
def lane_preference(low: Lowering, value: Value) -> int:
    """Return the dimension along which neighbours of a block are neighbours in memory, or -1."""
    state = low.env.get(value)
    shape = value.type.shape
    if isinstance(state, Buffer):
        return next((d for d, s in enumerate(state.strides) if s == 1 and shape[d] > 1), -1)
    if not isinstance(state, Lazy):
        return -1
    op = state.op
    if op.name == "load_tile":
        return unit_dimension(op.operands[1 : 1 + len(shape)])
    if op.name == "transpose":
        inner = lane_preference(low, op.operands[0])
        return op.attrs["order"].index(inner) if inner >= 0 else -1
    if op.name == "exchange":
        return lane_preference(low, op.operands[0])
    if op.name in ("broadcast", "expand", "iota", "const", "load"):
        return -1
    found = (lane_preference(low, v) for v in op.operands if v.type.shape == shape)
    return next((d for d in found if d >= 0), -1)


def unit_dimension(offsets: list[Value]) -> int:
    """Return the last dimension whose offsets are known to be consecutive, or -1."""
    units = [d for d, offset in enumerate(offsets) if grows_by_one(offset)]
    return units[-1] if units else -1


def constant_value(low: Lowering, op: Op) -> Val:
    """Make the number of a `const` op, rounded to its element."""
    type_ = op.result.type
    kind = register_kind(type_)
    number = op.attrs["value"]
    if type_.is_float:
        number = float(np.array(number, np.float64).astype(dtype_of(type_)).astype(np.float64))
    return low.fn.const(kind, number)

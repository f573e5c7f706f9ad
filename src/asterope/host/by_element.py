"""Blocks of scalars that an op runs for every element: in vectors where they go straight on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asterope.host.arithmetic import ARITHMETIC, combine
from asterope.host.evaluate import constant_value
from asterope.host.values import Buffer, lanes_for, register_kind
from asterope.ir import Block, Op, Type, Value
from asterope.native import BITS, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["Combine", "combine_of", "goes_straight", "map_"]

Combine = Callable[[list[Val], list[Val]], list[Val]]


def combine_of(low: Lowering, op: Op) -> Combine:
    """Return how a reduction or scan combines two lists of values, one an operand."""
    if op.blocks:
        (block,) = op.blocks
        return lambda a, b: apply_block(low, block, [*a, *b])
    name, type_ = str(op.attrs["combine"]), Type(op.operands[0].type.elem)
    return lambda a, b: [combine(name, type_, a[0], b[0])]


def goes_straight(block: Block) -> bool:
    """Whether vectors can go through a block: branches choose, nothing loops or reports."""
    return all(q.name in ARITHMETIC or q.name in ("const", "if", "yield") for q in block.walk())


def apply_block(low: Lowering, block: Block, args: list[Val]) -> list[Val]:
    """Run a block on scalars, or on vectors of as many lanes each."""
    lanes = max(a.lanes for a in args)
    if goes_straight(block):
        known = {b: a.splat(lanes) for b, a in zip(block.args, args, strict=True)}
        return _straight(low, block, known, lanes)
    return _lane_by_lane(low, block, args, lanes) if lanes else _scalars(low, block, args)


def _straight(low: Lowering, block: Block, known: dict[Value, Val], lanes: int) -> list[Val]:
    """Compute both sides of every branch and choose: no op here has an effect or can fail."""

    def of(value: Value) -> Val:
        return known[value] if value in known else low.scalar(value).splat(lanes)

    for op in block.ops[:-1]:
        if op.name == "const":
            known[op.result] = constant_value(low, op).splat(lanes)
        elif op.name == "if":
            then, other = (_straight(low, side, known, lanes) for side in op.blocks)
            condition = of(op.operands[0])
            for result, a, b in zip(op.results, then, other, strict=True):
                known[result] = condition.where(a, b)
        else:
            known[op.result] = ARITHMETIC[op.name](op, [of(v) for v in op.operands])
    return [of(v) for v in block.terminator.operands]


def _scalars(low: Lowering, block: Block, args: list[Val]) -> list[Val]:
    with low.inner():
        low.env.update(zip(block.args, args, strict=True))
        low.block(block)
        return [low.scalar(v) for v in block.terminator.operands]


def _lane_by_lane(low: Lowering, block: Block, args: list[Val], lanes: int) -> list[Val]:
    fn = low.fn
    kinds = [register_kind(v.type) for v in block.terminator.operands]
    given = [fn.slot(a.kind, lanes) for a in args]
    found = [fn.slot(kind, lanes) for kind in kinds]
    for slot, value in zip(given, args, strict=True):
        fn.store(value.splat(lanes), slot)

    def lane(slot: Val, kind: str, i: Val) -> Val:
        return slot.offset(i * max(1, BITS[kind] // 8))

    with fn.loop(0, lanes) as i:
        scalars = [fn.load(lane(s, a.kind, i), a.kind) for s, a in zip(given, args, strict=True)]
        results = _scalars(low, block, scalars)
        for slot, value in zip(found, results, strict=True):
            fn.store(value, lane(slot, value.kind, i))
    return [fn.load(slot, kind, lanes) for slot, kind in zip(found, kinds, strict=True)]


# -- map ------------------------------------------------------------------------------------------
def map_(low: Lowering, op: Op) -> None:
    """Run the block over whole blocks."""
    (block,) = op.blocks
    results = [low.new_buffer(r.type) for r in op.results]
    if op.attrs["pack"] > 1:
        _map_packed(low, op, results)
    else:
        with low.nest(op.operands[0].type.shape) as at:
            args = [low.evaluate(v, at).vector(at.lanes) for v in op.operands]
            for buffer, value in zip(results, apply_block(low, block, args), strict=True):
                low.fn.store(value, buffer.address(at.index))
    low.env.update(zip(op.results, results, strict=True))


def _map_packed(low: Lowering, op: Op, results: list[Buffer]) -> None:
    """Run the block on vectors of every `pack`-th element of row-major buffers."""
    fn, pack = low.fn, op.attrs["pack"]
    sources = [low.materialise(v, row_major=True) for v in op.operands]
    groups = op.operands[0].type.num_elements // pack
    lanes = lanes_for(groups)
    everywhere = fn.const("i1", 1, lanes)

    def places(buffer: Buffer, first: Val, member: int) -> Val:
        index = (fn.iota("i64", lanes) + first) * pack + member
        return buffer.pointer.offset(index * buffer.element_bytes)

    with fn.loop(0, groups, lanes) as first, low.scope():
        args = []
        for source in sources:
            for member in range(pack):
                filler = fn.undef(source.kind, lanes)
                raw = fn.gather(places(source, first, member), everywhere, filler)
                args.append(raw.cmp("ne", 0) if source.type.elem == "i1" else raw)
        values = iter(apply_block(low, op.blocks[0], args))
        for buffer in results:
            for member in range(pack):
                raw = next(values).zext("i8") if buffer.kind == "i8" else next(values)
                fn.scatter(raw, places(buffer, first, member), everywhere)

"""Loops and branches: scalars are carried in registers, blocks in buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asterope.host.layout import is_row_major
from asterope.host.tile_choice import finish_sums, start_panels, start_sums
from asterope.host.timing import conditional_loops, stop_if_stuck
from asterope.host.values import Buffer, Lazy, Memory, register_kind
from asterope.ir import ATOMICS, READS, WRITES, Block, Op, Type, Value, is_volatile
from asterope.native import Function, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["for_", "if_", "reads", "reads_elsewhere", "while_"]

_IN_PLACE = ("broadcast", "expand", "transpose", "exchange", "iota", "load", "load_tile")

Place = Val | Buffer


def _places(low: Lowering, values: list[Value]) -> list[Place]:
    """Reserve where carried values live: a stack slot for a scalar, a buffer for a block."""
    return [
        low.new_buffer(v.type) if v.type.shape else low.fn.slot(register_kind(v.type))
        for v in values
    ]


def _put(low: Lowering, places: list[Place], values: list[Value]) -> None:
    for place, value in zip(places, values, strict=True):
        if isinstance(place, Buffer):
            low.fill(place, value)
        else:
            low.fn.store(low.scalar(value), place)


def _bind(low: Lowering, values: list[Value], places: list[Place]) -> None:
    for value, place in zip(values, places, strict=True):
        if isinstance(place, Buffer):
            low.env[value] = place
        else:
            low.env[value] = low.fn.load(place, register_kind(value.type))


def _settle_before(low: Lowering, op: Op) -> None:
    """Put what the blocks use from outside, and would compute again and again, into buffers."""
    inner = {v for b in op.blocks for q in b.walk() for v in q.operands}
    low.settle(inner | set(op.operands))
    if any(q.name in WRITES or is_volatile(q) for b in op.blocks for q in b.walk()):
        low.settle_loads()


def for_(low: Lowering, op: Op) -> None:
    """Translate a counted loop."""
    fn, (body,) = low.fn, op.blocks
    lo, hi, step = (low.scalar(v) for v in op.operands[:3])
    start_sums(low, op)
    _settle_before(low, op)
    start_panels(low, op)
    places = _places(low, op.operands[3:])
    _put(low, places, op.operands[3:])
    with low.pinned(places):
        with _counted(fn, lo, hi, step) as counter, low.inner():
            low.env[body.args[0]] = counter
            _bind(low, body.args[1:], places)
            _note_steps(low, body)
            low.block(body)
            _assign(low, places, body)
        finish_sums(low, op, places)
        _bind(low, op.results, places)


def _note_steps(low: Lowering, body: Block) -> None:
    """Note how far the next round moves the pointers that a loop carries."""
    for pointer, following in zip(body.args[1:], body.terminator.operands, strict=True):
        op = following.op
        if op is None or op.name != "addptr" or op.operands[0] is not pointer:
            continue
        step = low.env.get(op.operands[1])
        if isinstance(step, Val) and not pointer.type.shape:
            size = max(1, Type(str(pointer.type.pointee)).bits // 8)
            low.steps[pointer] = step.sext("i64") * size


@contextmanager
def _counted(fn: Function, lo: Val, hi: Val, step: Val) -> Iterator[Val]:
    """Run the body for lo, lo + step, ... below hi, however near they are to the widest number."""
    if step.ref == "1":  # cannot step over hi
        with fn.loop(lo, hi, step, lo.kind) as counter:
            yield counter
        return
    rounds = (hi - lo - 1).op("udiv", step.minimum("umax", 1)) + 1
    with fn.loop(0, lo.lt(hi).where(rounds, 0).zext("i64")) as i:
        yield lo + i.zext(lo.kind) * step


def while_(low: Lowering, op: Op) -> None:
    """Translate a loop with a condition."""
    fn, (before, after) = low.fn, op.blocks
    _settle_before(low, op)
    places = _places(low, op.operands)
    passed = _places(low, op.results)
    _put(low, places, op.operands)

    inside = [q for b in op.blocks for q in b.walk()]
    reads_memory = any(q.name in READS for q in inside)

    def condition() -> Val:
        if reads_memory:
            # Another program may change what the loop waits for: read it anew each time.
            fn.compiler_fence()
        with low.inner():
            _bind(low, before.args, places)
            low.block(before)
            again, *values = before.terminator.operands
            _put(low, passed, values)
            return low.scalar(again)

    rounds = fn.slot("i64") if low.stream is not None else None
    if rounds is not None:
        fn.store(fn.const("i64", 0), rounds)
    with low.pinned([*places, *passed]):
        with fn.while_(condition), low.inner():
            if rounds is not None:
                stop_if_stuck(low, rounds, conditional_loops(low.kernel).index(op))
            if rounds is None and _only_waits(op):
                fn.call("sched_yield", (), "i32")
            _bind(low, after.args, passed)
            low.block(after)
            _assign(low, places, after)
        if reads_memory:
            # What comes later may read what the loop waited for.
            fn.compiler_fence()
        _bind(low, op.results, passed)
    for place in places:
        if isinstance(place, Buffer):
            low.scratch.release(place.memory)


def _only_waits(op: Op) -> bool:
    """Whether a loop does nothing but wait for another program, which may need this very core."""
    before, after = op.blocks
    inside = [*before.walk(), *after.walk()]
    if any(v.type.shape for q in inside for v in q.results):
        return False
    if any(q.name in WRITES - ATOMICS for q in inside):
        return False
    if any(q.name in ATOMICS or is_volatile(q) for q in inside):
        return True
    return len(after.ops) == 1 and any(q.name in READS for q in inside)


def if_(low: Lowering, op: Op) -> None:
    """Translate a branch."""
    condition = low.scalar(op.operands[0])
    _settle_before(low, op)
    places = _places(low, op.results)
    with low.pinned(places):
        with low.fn.if_else(condition) as otherwise:
            for i, block in enumerate(op.blocks):
                if i:
                    otherwise()
                with low.inner():
                    low.block(block)
                    _put(low, places, block.terminator.operands)
        _bind(low, op.results, places)


# -- the next values of a loop --------------------------------------------------------------------
def _assign(low: Lowering, places: list[Place], body: Block) -> None:
    """Write the yielded values over the carried ones, each before what it reads is overwritten."""
    values = body.terminator.operands
    scalars = [
        (low.scalar(v), p) for v, p in zip(values, places, strict=True) if not isinstance(p, Buffer)
    ]
    pending = [(p, v) for p, v in zip(places, values, strict=True) if isinstance(p, Buffer)]
    pending = [(p, v) for p, v in pending if not _is_there(low, p, v)]
    carried = {p.memory for p in places if isinstance(p, Buffer)}
    while pending:
        ready = next((i for i in range(len(pending)) if _may_write(low, i, pending)), None)
        if ready is None:
            # A cycle (two blocks swap): take a value that reads a carried one out of the way.
            value = next(v for _, v in pending if reads(low, v) & carried)
            low.env[value] = _copied(low, value)
        else:
            low.fill(*pending.pop(ready))
    for scalar, slot in scalars:
        low.fn.store(scalar, slot)


def _is_there(low: Lowering, place: Buffer, value: Value) -> bool:
    state = low.env[value]
    return (
        isinstance(state, Buffer)
        and state.memory is place.memory
        and state.strides == place.strides
    )


def _copied(low: Lowering, value: Value) -> Buffer:
    buffer = low.new_buffer(value.type)
    low.fill(buffer, value)
    return buffer


def _may_write(low: Lowering, index: int, pending: list[tuple[Buffer, Value]]) -> bool:
    """Whether no other pending value reads this place, and its own only where it is written."""
    place, value = pending[index]
    others = pending[:index] + pending[index + 1 :]
    if any(place.memory in reads(low, v) for _, v in others):
        return False
    return not reads_elsewhere(low, value, place.memory)


def reads(low: Lowering, value: Value) -> set[Memory]:
    """Return the memory that computing a value would read."""
    state = low.env.get(value)
    if isinstance(state, Buffer):
        return {state.memory}
    if not isinstance(state, Lazy):
        return set()
    return {m for v in state.op.operands for m in reads(low, v)}


def reads_elsewhere(
    low: Lowering, value: Value, memory: Memory, *, at_same_index: bool = True
) -> bool:
    """Whether computing an element reads this memory at another index than the element's own."""
    state = low.env.get(value)
    if isinstance(state, Buffer):
        return state.memory is memory and not (at_same_index and is_row_major(state))
    if not isinstance(state, Lazy):
        return False
    same = at_same_index and state.op.name not in _IN_PLACE
    return any(reads_elsewhere(low, v, memory, at_same_index=same) for v in state.op.operands)

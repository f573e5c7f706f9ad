"""Blocks that several consumers need: computed once, where possible by the first on its way.

A shared block stays delayed until somebody needs it. A nest that goes over all its elements, as a
reduction does, writes them to a buffer while it has them in registers; whoever comes later reads
that. If nobody comes later, no buffer is written at all. Where only their codes for tile registers
are needed later, those are written instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asterope.host.arithmetic import ARITHMETIC
from asterope.host.layout import strides_of
from asterope.host.loops import reads_elsewhere
from asterope.host.values import Buffer, Lazy
from asterope.host.walk import visits
from asterope.ir import Op, Value

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["codes_first", "settle_shared", "settle_yielded", "sharing"]


def codes_first(ops: Sequence[Op], compact: Collection[Value]) -> list[Op]:
    """Move the rounding of blocks to codes for tile registers right behind what is rounded."""
    behind: dict[Op, list[Op]] = {}
    for op in ops:
        if op.name in ARITHMETIC and len(op.operands) == 1 and op.result in compact:
            source = op.operands[0].op
            if source is not None and source in ops:
                behind.setdefault(source, []).append(op)
    moved = {op for group in behind.values() for op in group}
    return [q for op in ops if op not in moved for q in (op, *behind.get(op, ()))]


@contextmanager
def sharing(
    low: Lowering,
    roots: Sequence[Value],
    shape: tuple[int, ...],
    lane: int,
    *,
    is_whole: bool = True,
) -> Iterator[None]:
    """Keep shared blocks that a nest over a shape comes by and that are needed later.

    A nest over the `is_whole` shape writes them to buffers as it goes. What another nest, or this
    one at other places than its own, would compute again is put into buffers before.
    """
    own = tuple(range(len(shape)))
    found = [v for v in visits(low, [(r, own) for r in roots]) if v.value in low.shared]
    # A mask may be known without being computed, so a nest does not always come by it.
    elsewhere = {v.value for v in found if v.dims != own or v.value.type.elem == "i1"}
    here = {v.value: None for v in found if v.value not in elsewhere}
    later = low.closure(low.needed[-1], kept=here.keys())
    passed = [value for value in here if value in later]
    for value in reversed([v.value for v in found]):
        if value in elsewhere or (value in passed and not is_whole):
            low.materialise(value)
    values = [v for v in passed if v in low.shared]
    codes = {v: made for v in values if (made := _codes_of(low, v, lane))}
    places = _places(low, [v for v in values if v not in codes], roots, lane)
    places |= {made: low.new_buffer(made.type, lane, compact=True) for made in codes.values()}
    kept = {v: codes.get(v, v) for v in values}
    around, low.through = low.through, {v: (made, places[made]) for v, made in kept.items()}
    yield
    low.through = around
    low.env.update(places)
    low.shared -= kept.keys() | places.keys()


def _codes_of(low: Lowering, value: Value, lane: int) -> Value | None:
    """Return the codes of a block, which tile registers read, if only they are needed of it."""
    if lane < len(value.type.shape) - 2:
        return None
    for made, state in low.env.items():
        if made in low.compact and isinstance(state, Lazy) and state.op.operands == [value]:
            is_alone = value not in low.closure(low.needed[-1], kept=[made])
            return made if is_alone and state.op.name in ARITHMETIC else None
    return None


def _places(
    low: Lowering, values: Sequence[Value], roots: Sequence[Value], lane: int
) -> dict[Value, Buffer]:
    """Choose where values are kept: over what only they are computed from, or in a new buffer."""
    inputs = {v: low.memories(low.closure(_operands(low, v), kept=values)) for v in values}
    read = low.memories(low.closure(set(roots), kept=values))

    def fits(state: object, value: Value) -> bool:
        if not isinstance(state, Buffer) or state.type != value.type or state.compact:
            return False
        memory = state.memory
        readers = [v for v in values if memory in inputs[v]]
        return (
            readers == [value]
            and state.strides == strides_of(value.type.shape, lane)
            and memory not in read | low.held
            and low.is_free(memory, values)
            and not reads_elsewhere(low, value, memory)
        )

    places = {}
    for value in values:
        found = next((s for s in low.env.values() if fits(s, value)), None)
        places[value] = found if isinstance(found, Buffer) else low.new_buffer(value.type, lane)
    return places


def _operands(low: Lowering, value: Value) -> set[Value]:
    state = low.env[value]
    return set(state.op.operands) if isinstance(state, Lazy) else set()


def settle_shared(low: Lowering, values: Iterable[Value]) -> None:
    """Put the shared blocks that values are computed from into buffers."""
    reached = low.closure(set(values))
    for value in [v for v in low.env if v in reached and v in low.shared]:
        low.materialise(value)


def settle_yielded(low: Lowering, values: Sequence[Value]) -> None:
    """Put the blocks that several of a block's last values share into buffers.

    What only one of them is computed from stays delayed: it is computed where that one goes.
    """
    reached = [low.closure({v}) for v in values]
    for value in [v for v in low.env if v in low.shared]:
        if sum(value in inside for inside in reached) > 1:
            low.materialise(value)

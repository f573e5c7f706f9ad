"""Offsets that are computed at run time, as `(start + arange) % n` are, but mostly consecutive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.host.values import At, Buffer
from asterope.ir import Kernel, Value
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["is_run", "note_run", "tile_offsets"]


def tile_offsets(kernel: Kernel) -> set[Value]:
    """Return the vectors that tiles in memory have as offsets."""
    found: set[Value] = set()
    for op in kernel.walk():
        if op.name in ("load_tile", "store_tile"):
            first = 1 if op.name == "load_tile" else 2
            rank = len(op.result.type.shape if op.results else op.operands[0].type.shape)
            found.update(op.operands[first : first + rank])
    return found


def note_run(low: Lowering, value: Value, buffer: Buffer) -> None:
    """Find out once whether offsets that were put into a buffer are consecutive."""
    fn, kind = low.fn, buffer.kind
    differs = fn.slot("i8")
    fn.store(fn.const("i8", 0), differs)
    start = fn.load(buffer.pointer, kind)
    with low.nest(value.type.shape) as at:
        found = fn.load(buffer.address(at.index), kind, at.lanes)
        expected = (start + at.index[0].zext(kind)).splat(at.lanes) + fn.iota(kind, at.lanes)
        here = found.ne(expected).any_lane().zext("i8")
        fn.store(fn.load(differs, "i8") | here, differs)
    low.runs[buffer] = fn.load(differs, "i8").eq(0)


def is_run(low: Lowering, value: Value, at: At) -> Val | None:
    """Return whether all offsets are consecutive, None where nobody has looked."""
    state = low.env.get(value)
    return low.runs.get(state) if isinstance(state, Buffer) and at.lanes else None

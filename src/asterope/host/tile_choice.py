"""Which products are multiplied as bf16, what only they read, and what is known of their sums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asterope.host.evaluate import lane_preference, unit_dimension
from asterope.host.few_rows import has_few_rows
from asterope.host.kept_panels import KeptPanels, keep_panels
from asterope.host.tile_product import (
    emit_collected,
    first_pair,
    first_row,
    fits_tiles,
    most_collected,
    panels_bytes,
)
from asterope.host.values import Buffer, Lazy
from asterope.ir import Kernel, Op, Type, Value
from asterope.native import Isa, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = [
    "Sum",
    "finish_sums",
    "is_matrix_to_come",
    "is_zero",
    "panels_of",
    "start_panels",
    "start_sums",
    "tile_operands",
    "uses_tiles",
]

# Formats whose values are exact in bf16, and so are most of their products with a scale.
_BF16_EXACT = ("bf16", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m3", "e3m2", "e2m1")


def _suits_bf16(op: Op) -> bool:
    formats = [
        str(op.attrs.get(f"{side}_format", v.type.elem))
        for side, v in zip(("a", "b"), op.operands, strict=False)
    ]
    return all(f in _BF16_EXACT for f in formats)


def shape_of(op: Op) -> tuple[int, int, int]:
    """Return M, N and K of a dot; two numbers of e2m1 make one code."""
    (*_, m, n), depth = op.result.type.shape, op.operands[0].type.shape[-1]
    return m, n, depth * 2 if op.attrs.get("a_format") == "e2m1" else depth


def uses_tiles(op: Op, isa: Isa) -> bool:
    """Whether bf16 is multiplied as it is: the CPU can, and formats and shape suit that."""
    if has_few_rows(op, isa):
        return False
    if not isa.multiplies_bf16 or op.attrs.get("order", "pairs") != "pairs" or not _suits_bf16(op):
        return False
    return op.result.type.elem == "fp32" and fits_tiles(*shape_of(op))


def tile_operands(kernel: Kernel, isa: Isa) -> set[Value]:
    """Return the blocks that nothing reads but tile registers: they are kept as codes of bf16."""
    read: set[Value] = set()
    others: set[Value] = set()
    for op in kernel.walk():
        is_tiled = op.name == "dot" and uses_tiles(op, isa)
        read |= set(op.operands[:2] if is_tiled else ())
        others |= set(op.operands[2:] if is_tiled else op.operands)
    return read - others


def is_zero(low: Lowering, value: Value) -> bool:
    """Whether a block is a constant zero."""
    state = low.env[value]
    if not isinstance(state, Lazy) or state.op.name != "const":
        return False
    number = state.op.attrs["value"]
    return number == 0 and math.copysign(1, number) > 0


@dataclass(kw_only=True, slots=True)
class Sum:
    """What tile registers add up: the panels of `most` products, how many there are, what is known.

    `count` and `known` are in memory: how many products wait in the panels, and a byte that says
    whether the numbers they will be added to are known to be multiples of 2^-126.
    """

    op: Op
    most: int
    panels: Buffer
    count: Val
    known: Val
    exponent: Val
    kept: KeptPanels | None = None

    def rows(self, type_: Type) -> Buffer:
        """Look at where the next product's left operand will be as a block."""
        m, k = type_.shape
        at = first_row(self.panels.pointer).offset(self._index() * (2 * m * k))
        return Buffer(self.panels.memory, at, type_, (k, 1), compact=True)

    def pairs(self, m: int, type_: Type) -> Buffer:
        """Look at where the next product's right operand will be; it has no strides."""
        k, n = type_.shape
        if self.kept:
            at, self.exponent = self.kept.place(self._index())
            return Buffer(self.kept.pairs.memory, at, type_, (), compact=True)
        first = first_pair(self.panels.pointer, m, k, self.most)
        at = first.offset(self._index() * (2 * k * n))
        return Buffer(self.panels.memory, at, type_, (), compact=True)

    def first_pairs(self) -> Val:
        """Return after a loop where the pairs are that still wait."""
        m, _, k = shape_of(self.op)
        if self.kept:
            return self.kept.first(self._index())
        return first_pair(self.panels.pointer, m, k, self.most)

    def _index(self) -> Val:
        return self.count.fn.load(self.count, "i64")


def _new_sum(low: Lowering, op: Op, most: int = 1, *, known: bool = False) -> Sum:
    """Reserve the panels of a sum without any products."""
    fn = low.fn
    panels = low.new_buffer(Type("i8", (panels_bytes(shape_of(op), most, fn.isa),)))
    made = Sum(
        op=op, most=most, panels=panels, count=fn.slot("i64"), known=fn.slot("i8"),
        exponent=fn.slot("i32"),
    )  # fmt: skip
    fn.store(fn.const("i64", 0), made.count)
    fn.store(fn.const("i8", known), made.known)
    return made


def start_sums(low: Lowering, loop: Op) -> None:
    """Prepare before a loop for the sums that it carries and only adds products to."""
    (body,) = loop.blocks
    for start, carried, following in zip(
        loop.operands[3:], body.args[1:], body.terminator.operands, strict=True
    ):
        op = following.op
        if op not in body.ops or op.name not in ("dot", "dot_scaled"):
            continue
        if op.operands[2] is not carried or not uses_tiles(op, low.fn.isa):
            continue
        is_alone = low.uses[carried] == 1 and low.uses[following] == 2  # a yield counts twice
        collects = is_alone and len(following.type.shape) == 2
        most = most_collected(*shape_of(op)) if collects else 1
        low.sums[op] = _new_sum(low, op, most, known=is_zero(low, start))


def start_panels(low: Lowering, loop: Op) -> None:
    """Prepare before a loop, outer blocks being settled, for panels that outlive it."""
    for following in loop.blocks[0].terminator.operands:
        made = low.sums.get(following.op) if following.op else None
        if made and made.most > 1 and is_matrix_to_come(low, made.op.operands[1]):
            made.kept = keep_panels(low, loop, made.op.operands[1], made.most)


def is_matrix_to_come(low: Lowering, value: Value) -> bool:
    """Whether an operand, best computed row by row, is not there yet and needed only once."""
    if value not in low.compact or low.uses[value] > 1 or len(value.type.shape) != 2:
        return False
    op = value.op
    if value in low.env:
        return isinstance(low.env[value], Lazy) and lane_preference(low, value) != 0
    return op is not None and op.name == "load_tile" and unit_dimension(op.operands[1:3]) != 0


def finish_sums(low: Lowering, loop: Op, places: Sequence[Val | Buffer]) -> None:
    """Compute after a loop what is still collected."""
    fn = low.fn
    for place, following in zip(places, loop.blocks[0].terminator.operands, strict=True):
        made = low.sums.pop(following.op, None) if following.op else None
        if made is None:
            continue
        if made.most > 1 and isinstance(place, Buffer):
            m, n, k = shape_of(made.op)
            name = emit_collected(fn.module, (m, n, k), made.most)
            panels = made.panels.pointer
            parts = first_row(panels), made.first_pairs(), panels
            with fn.if_(fn.load(made.count, "i64").ne(0)):
                fn.call(name, (place.pointer, *parts, made.count, made.known))
        low.scratch.release(made.panels.memory)


@contextmanager
def panels_of(low: Lowering, op: Op) -> Iterator[None]:
    """Reserve the panels of a product that tile registers compute, where no loop has."""
    if op in low.sums or not uses_tiles(op, low.fn.isa):
        yield
        return
    low.sums[op] = _new_sum(low, op)
    yield
    low.scratch.release(low.sums.pop(op).panels.memory)

"""Panels of right operands that the next program of a grid needs again.

Programs that follow each other often read the same columns: those of a matrix product in grouped
order do. What a loop over K lays out for tile registers stays in scratch memory, with a key of all
that its addresses and masks depend on. Where the next program that runs on this thread comes to
the same key, and the kernel writes nothing to that array, it uses the panels again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asterope.host.arithmetic import ARITHMETIC
from asterope.host.values import Buffer
from asterope.ir import WRITES, Op, Type, Value, is_volatile
from asterope.native import Function, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["KeptPanels", "keep_panels"]

_MAX_BYTES = 1 << 20
_MAX_KEY_WORDS = 2048
_PURE = {*ARITHMETIC, "broadcast", "expand", "const", "iota"}


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptPanels:
    """Where panels lie, one a round of the loop, and their smallest exponents.

    In memory: the `round`; whether the loop has few enough for all of them to be kept, `is_on`;
    whether they are there already, `is_hit`.
    """

    pairs: Buffer
    exponents: Buffer
    panel_bytes: int
    round: Val
    is_on: Val
    is_hit: Val

    def place(self, count: Val) -> tuple[Val, Val]:
        """Return where this round's panel is and its exponent, `count` being not multiplied yet."""
        fn = count.fn
        index = fn.load(self.is_on, "i1").where(fn.load(self.round, "i64"), count)
        pairs = self.pairs.pointer.offset(index * self.panel_bytes)
        return pairs, self.exponents.pointer.offset(index * 4)

    def first(self, count: Val) -> Val:
        """Return after the loop where the first panel is that was not multiplied yet."""
        fn = count.fn
        begin = fn.load(self.is_on, "i1").where(fn.load(self.round, "i64") - count, 0)
        return self.pairs.pointer.offset(begin * self.panel_bytes)


def keep_panels(low: Lowering, loop: Op, value: Value, least: int) -> KeptPanels | None:
    """Prepare before a loop to keep the panels of a right operand, None where that cannot be."""
    k, n = value.type.shape
    most = _MAX_BYTES // (2 * k * n)
    key = _key(low, loop, value)
    if key is None or most < least or not _stays(low, value):
        return None
    fn = low.fn
    words = Type("i64", (sum(max(1, *v.type.shape) if v.type.shape else 1 for v in key),))
    # These are never released: what is in them outlives the program.
    kept = KeptPanels(
        pairs=low.new_buffer(Type("i8", (most * 2 * k * n,))),
        exponents=low.new_buffer(Type("i32", (most,))), panel_bytes=2 * k * n,
        round=fn.slot("i64"), is_on=fn.slot("i1"), is_hit=fn.slot("i1"),
    )  # fmt: skip
    saved = low.new_buffer(words)
    is_valid = fn.slot("i1", start=0)
    is_on = _rounds(low, loop).le(most)
    is_same = _compare(low, key, saved)
    fn.store(fn.const("i64", 0), kept.round)
    fn.store(is_on, kept.is_on)
    fn.store(is_on & is_same & fn.load(is_valid, "i1"), kept.is_hit)
    fn.store(is_on, is_valid)
    return kept


def _stays(low: Lowering, value: Value) -> bool:
    """Whether the kernel writes nothing to the array that a tile is loaded from."""
    op = value.op
    if op is None or op.name != "load_tile" or is_volatile(op) or not low.disjoint:
        return False
    source = low.roots.root(op.operands[0])
    written = [
        low.roots.root(v)
        for q in low.kernel.walk()
        if q.name in WRITES
        for v in q.operands
        if v.type.is_ptr
    ]
    return source is not None and None not in written and source not in written


def _key(low: Lowering, loop: Op, value: Value) -> list[Value] | None:
    """Return what from outside the loop decides which elements a tile has, None if not all is."""
    (body,) = loop.blocks
    if value.op not in body.ops:
        return None
    found: dict[Value, None] = dict.fromkeys(loop.operands[:3])
    stack = list(value.op.operands)
    seen = set(stack)
    while stack:
        v = stack.pop()
        if v is body.args[0]:
            continue
        if v in body.args:
            index = body.args.index(v) - 1
            moved = body.terminator.operands[index].op
            if moved is None or moved.name != "addptr" or moved.operands[0] is not v:
                return None
            more = [loop.operands[3 + index], moved.operands[1]]
        elif v.op in body.ops:
            if v.op.name not in _PURE:
                return None
            more = v.op.operands
        else:
            found[v] = None
            continue
        stack += [x for x in more if x not in seen]
        seen.update(more)
    key = [v for v in found if v.op is None or v.op.name not in ("const", "iota")]
    fits = all(len(v.type.shape) < 2 and (v.type.is_int or v.type.is_ptr) for v in key)
    is_known = all(v in low.env and not (v.type.is_ptr and v.type.shape) for v in key)
    size = sum(max((1, *v.type.shape)) for v in key)
    return key if fits and is_known and size <= _MAX_KEY_WORDS else None


def _rounds(low: Lowering, loop: Op) -> Val:
    lo, hi, step = (low.scalar(v).sext("i64") for v in loop.operands[:3])
    step = step.minimum("smax", 1)
    return (hi - lo + step - 1).op("sdiv", step)


def _compare(low: Lowering, key: list[Value], saved: Buffer) -> Val:
    """Replace the saved key; return whether it was the same."""
    fn, at = low.fn, 0
    same = fn.slot("i1")
    fn.store(fn.const("i1", 1), same)

    def put(word: Val, place: Val) -> None:
        old = fn.load(place, "i64", word.lanes)
        fn.store(fn.load(same, "i1") & old.eq(word).all_lanes(), same)
        fn.store(word, place)

    for value in key:
        place = saved.pointer.offset(at * 8)
        if not value.type.shape:
            put(_word(fn, low.scalar(value)), place)
            at += 1
            continue
        with low.nest(value.type.shape) as here:
            words = _word(fn, low.evaluate(value, here).vector(here.lanes))
            put(words, place.offset(here.index[0] * 8))
        at += value.type.shape[0]
    return fn.load(same, "i1")


def _word(fn: Function, x: Val) -> Val:
    if x.kind == "ptr":
        return fn.line(f"ptrtoint {x.text} to i64", "i64")
    return x.sext("i64")

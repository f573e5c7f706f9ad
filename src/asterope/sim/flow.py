"""Control flow of the time reading: loops and branches carry what is known, or when it is ready.

Where an atomic inside orders memory, the last one's semaphore is carried too, so that what comes
after the loop or branch waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asterope.ir import ATOMICS, SEM, Block, Builder, Op, Value

if TYPE_CHECKING:
    from asterope.sim.macro import MacroLowering

__all__ = ["acquires", "for_", "if_", "while_"]


def acquires(op: Op) -> bool:
    """Whether what follows an op in the program may not touch memory before it is done."""
    return op.name in ATOMICS and op.attrs["memory_order"] in ("acquire", "acq_rel")


def _orders_inside(op: Op) -> bool:
    return any(acquires(q) for b in op.blocks for q in b.walk())


def for_(low: MacroLowering, op: Op, b: Builder) -> None:
    """Translate a counted loop."""
    (source,) = op.blocks
    block = Block([Value(source.args[0].type)])
    low.env[source.args[0]] = block.args[0]
    bounds = [low.env[v] for v in op.operands[:3]]
    carried = source.args[1:]
    known = _known(low, carried, op.results)
    inits = _given(low, op.operands[3:], known, b)
    block.args += _enter(low, carried, known)
    ordered = _orders_inside(op)
    _enter_order(low, block, inits, ordered=ordered)
    inner = Builder(block)
    with low.looped(op):
        low.fill(source, inner)
    _yield(low, source, known, inner, ordered=ordered)
    new = b.op("for", [*bounds, *inits], [v.type for v in inits], {}, [block])
    _leave(low, op.results, new.results, ordered=ordered)


def while_(low: MacroLowering, op: Op, b: Builder) -> None:
    """Translate a loop with a condition."""
    before, after = op.blocks
    known = _known(low, before.args)
    passed_known = _known(low, after.args, op.results)
    inits = _given(low, op.operands, known, b)
    ordered = _orders_inside(op)
    with low.looped(op):
        first = Block(_enter(low, before.args, known))
        _enter_order(low, first, inits, ordered=ordered)
        inner = Builder(first)
        low.fill(before, inner)
        again = low.env[before.terminator.operands[0]]
        passed = _yield(low, before, passed_known, inner, first=[again], ordered=ordered)
        second = Block(_enter(low, after.args, passed_known))
        _enter_order(low, second, [], ordered=ordered)
        inner = Builder(second)
        low.fill(after, inner)
        _yield(low, after, known, inner, ordered=ordered)
    new = b.op("while", inits, [v.type for v in passed[1:]], {}, [first, second])
    _leave(low, op.results, new.results, ordered=ordered)


def if_(low: MacroLowering, op: Op, b: Builder) -> None:
    """Translate a branch."""
    ordered, known = _orders_inside(op), _known(low, op.results)
    around, blocks, given = low.fence, [], list[Value]()
    for source in op.blocks:
        low.fence = around
        inner = Builder(Block())
        low.fill(source, inner)
        given = _yield(low, source, known, inner, ordered=ordered)
        blocks.append(inner.block)
    low.fence = around
    new = b.op("if", [low.env[op.operands[0]]], [v.type for v in given], {}, blocks)
    _leave(low, op.results, new.results, ordered=ordered)


def _known(low: MacroLowering, *names: Sequence[Value]) -> list[bool]:
    """Say of each carried value whether the time reading computes it, under any of its names."""
    return [any(v in low.control for v in same) for same in zip(*names, strict=True)]


def _given(
    low: MacroLowering, values: Sequence[Value], known: Sequence[bool], b: Builder
) -> list[Value]:
    """Return what is carried: values that are known, the semaphores of others."""
    return [low.env[v] if k else low.token(v, b) for v, k in zip(values, known, strict=True)]


def _enter(low: MacroLowering, args: Sequence[Value], known: Sequence[bool]) -> list[Value]:
    """Make what a block is entered with."""
    made = [Value(a.type if k else SEM, None, a.hint) for a, k in zip(args, known, strict=True)]
    _bind(low, args, made)
    return made


def _bind(low: MacroLowering, names: Sequence[Value], values: Sequence[Value]) -> None:
    for name, value in zip(names, values, strict=True):
        if value.type == SEM:
            low.ready[name] = value
        else:
            low.env[name] = value


def _enter_order(low: MacroLowering, block: Block, inits: list[Value], *, ordered: bool) -> None:
    """Let a block take the semaphore of the last atomic before it."""
    if ordered:
        inits.append(low.fence)
        low.fence = Value(SEM)
        block.args.append(low.fence)


def _yield(
    low: MacroLowering, source: Block, known: Sequence[bool], b: Builder,
    *, first: Sequence[Value] = (), ordered: bool,
) -> list[Value]:  # fmt: skip
    """End a block; return what it gives."""
    last = source.terminator
    operands = [*first, *_given(low, last.operands[len(first) :], known, b)]
    operands += [low.fence] * ordered
    b.op(last.name, operands)
    return operands


def _leave(
    low: MacroLowering, results: Sequence[Value], values: list[Value], *, ordered: bool
) -> None:
    if ordered:
        *values, low.fence = values
    _bind(low, results, values)

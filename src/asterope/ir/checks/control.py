"""Checks of control flow and of what the time reading issues."""

from __future__ import annotations

from asterope.ir.checks.common import count, list_text, require, require_end, types_of
from asterope.ir.program import Op
from asterope.ir.types import INTEGERS, SEM, Type

__all__ = ["for_", "if_", "issue", "program_id", "signalled", "terminator", "while_"]


def program_id(op: Op) -> None:
    """An i32 along one of three grid axes."""
    count(op, 0)
    require(op.attrs.get("axis") in (0, 1, 2), f"has no grid axis {op.attrs.get('axis')}")
    require(op.result.type == Type("i32"), "gives i32")


def for_(op: Op) -> None:
    """A counter from lo to below hi by step, carrying values."""
    require(len(op.operands) >= 3 and len(op.blocks) == 1, "takes lo, hi, step and a body")
    lo, hi, step, *inits = types_of(op)
    require(lo.elem in INTEGERS and not lo.shape and lo == hi == step, "counts in one integer type")
    args = [v.type for v in op.blocks[0].args]
    require(args == [lo, *inits], f"body takes {list_text(args)}, gets {list_text([lo, *inits])}")
    require([r.type for r in op.results] == inits, "results differ from the carried values")
    stages = op.attrs.get("num_stages", 1)
    require(isinstance(stages, int) and stages >= 1, f"has no number of stages: {stages}")
    require_end(op.blocks[0], "yield", inits)


def while_(op: Op) -> None:
    """The first block decides and passes values on; the second computes the next ones."""
    require(len(op.blocks) == 2, "has two blocks")
    before, after = op.blocks
    inits = types_of(op)
    results = [r.type for r in op.results]
    require([v.type for v in before.args] == inits, "first block takes the initial values")
    require([v.type for v in after.args] == results, "second block takes what is passed on")
    require_end(before, "condition", [Type("i1"), *results])
    require_end(after, "yield", inits)


def if_(op: Op) -> None:
    """One of two blocks runs."""
    count(op, 1, len(op.results))
    require(op.operands[0].type == Type("i1") and len(op.blocks) == 2, "takes an i1 and two blocks")
    for block in op.blocks:
        require_end(block, "yield", [r.type for r in op.results])


def terminator(op: Op) -> None:
    """Ends a block; what it gives is checked by the op around it."""
    require(not op.results, "has results")


def issue(op: Op) -> None:
    """A macro-instruction: numbers it needs, then the semaphores it waits for."""
    numbers = op.attrs.get("numbers", 0)
    types = types_of(op)
    require(all(t.is_int and not t.shape for t in types[:numbers]), "numbers are scalar integers")
    require(all(t == SEM for t in types[numbers:]), "waits for semaphores")
    require([r.type for r in op.results] == [SEM], "signals one semaphore")
    require(isinstance(op.attrs.get("instruction"), int), "names no `instruction`")


def signalled(op: Op) -> None:
    """A semaphore that is always signalled."""
    count(op, 0)
    require(op.result.type == SEM, "gives a semaphore")

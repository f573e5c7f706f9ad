"""Checks of what a program says while it runs."""

from __future__ import annotations

from asterope.ir.checks.common import count, require, types_of
from asterope.ir.program import Op
from asterope.ir.types import SEM

__all__ = ["assert_", "print_"]


def print_(op: Op) -> None:
    """Any number of scalars and blocks, each signed or not."""
    count(op, len(op.operands), 0)
    require(all(t != SEM for t in types_of(op)), "cannot print a semaphore")
    require(isinstance(op.attrs.get("prefix"), str), "has no text `prefix`")
    require(isinstance(op.attrs.get("hex"), bool), "does not say whether `hex`")
    signed = op.attrs.get("signed")
    are_flags = isinstance(signed, tuple) and all(isinstance(s, bool) for s in signed)
    require(are_flags and len(signed or ()) == len(op.operands), "`signed` has a flag an operand")
    threads = op.attrs.get("threads")
    require(isinstance(threads, int) and threads >= 1, f"has no number of `threads`: {threads}")


def assert_(op: Op) -> None:
    """A condition, and what to say where it does not hold."""
    count(op, 1, 0)
    (condition,) = types_of(op)
    require(condition.elem == "i1", f"takes i1, not {condition}")
    require(isinstance(op.attrs.get("message"), str), "has no text `message`")

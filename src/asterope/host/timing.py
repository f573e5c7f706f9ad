"""The time reading in generated code: append macro-instructions to a stream.

A record is a header (instruction, numbers << 32, waits << 40), the numbers, and the instructions
to wait for, counted from the start of the program; -1 is none. Words that do not fit are counted
but not written, so the caller can come back with more room.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asterope.ir import Kernel, Op
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = [
    "MOST_ROUNDS",
    "Stream",
    "append",
    "conditional_loops",
    "issue",
    "signalled",
    "stop_if_stuck",
]

MOST_ROUNDS = 1 << 22
"""Rounds after which a loop with a condition is taken to wait for what never comes."""


class Stream(ctypes.Structure):
    """A buffer of `size` words, and how far it is.

    `written` counts words, `count` the instructions of the present program; `complete` words are
    of programs that fit, and `program` is the one after them. No program is begun after `enough`
    words. `stuck` is 1 more than the number of the loop that did not end, among those with a
    condition, or 0.
    """

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("buffer", "size", "written", "count", "complete", "program", "enough", "stuck")
    )
    complete: int
    stuck: int
    program: int
    written: int

    @classmethod
    def offset(cls, name: str) -> int:
        """Return where a field lies, in bytes."""
        return int(getattr(cls, name).offset)


def append(low: Lowering, words: Sequence[Val]) -> None:
    """Append words to the stream if they fit."""
    fn, stream = low.fn, low.stream
    assert stream is not None, "only a time reading issues"
    written = stream.offset(Stream.offset("written"))
    start = fn.load(written, "i64")
    end = start + len(words)
    fn.store(end, written)
    with fn.if_(end.le(fn.load(stream.offset(Stream.offset("size")), "i64"))):
        at = fn.load(stream.offset(Stream.offset("buffer")), "ptr").offset(start * 8)
        for i, word in enumerate(words):
            fn.store(word, at.offset(8 * i))


def conditional_loops(kernel: Kernel) -> list[Op]:
    """Return the loops with a condition, in order: those that may not end."""
    return [op for op in kernel.walk() if op.name == "while"]


def stop_if_stuck(low: Lowering, rounds: Val, number: int) -> None:
    """Count a round of a loop in a slot, and end all if there were too many.

    `number` is the loop's among those with a condition.
    """
    fn, stream = low.fn, low.stream
    assert stream is not None, "only a time reading stops"
    count = fn.load(rounds, "i64") + 1
    fn.store(count, rounds)
    with fn.if_(count.ge(MOST_ROUNDS)):
        fn.store(fn.const("i64", number + 1), stream.offset(Stream.offset("stuck")))
        fn.leave()


def issue(low: Lowering, op: Op) -> None:
    """Append one macro-instruction; its semaphore is its number."""
    assert low.stream is not None, "only a time reading issues"
    fn, counter = low.fn, low.stream.offset(Stream.offset("count"))
    numbers = int(op.attrs["numbers"])
    waits = len(op.operands) - numbers
    header = op.attrs["instruction"] + (numbers << 32) + (waits << 40)
    append(low, [fn.const("i64", header), *(low.scalar(v).sext("i64") for v in op.operands)])
    count = fn.load(counter, "i64")
    fn.store(count + 1, counter)
    low.env[op.result] = count


def signalled(low: Lowering, op: Op) -> None:
    """Make the semaphore that nobody waits for."""
    low.env[op.result] = low.fn.const("i64", -1)

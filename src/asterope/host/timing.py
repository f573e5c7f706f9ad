"""The time reading in generated code: append macro-instructions to a stream.

A stream is four int64: the buffer's address, its size in words, the words written so far, and the
number of instructions so far. A record is a header (instruction, numbers << 32, waits << 40), the
numbers, and the instructions to wait for, counted from the start of the program; -1 is none.
Words that do not fit are counted but not written, so the caller can come back with more room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.ir import Op

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["STREAM_WORDS", "issue", "signalled"]

STREAM_WORDS = 4
_BUFFER, _SIZE, _WRITTEN, _COUNT = (8 * i for i in range(STREAM_WORDS))


def issue(low: Lowering, op: Op) -> None:
    """Append one macro-instruction; its semaphore is its number."""
    fn, stream = low.fn, low.stream
    assert stream is not None, "only a time reading issues"
    numbers = int(op.attrs["numbers"])
    waits = len(op.operands) - numbers
    header = op.attrs["instruction"] + (numbers << 32) + (waits << 40)
    words = [fn.const("i64", header), *(low.scalar(v).sext("i64") for v in op.operands)]
    start = fn.load(stream.offset(_WRITTEN), "i64")
    end = start + len(words)
    fn.store(end, stream.offset(_WRITTEN))
    with fn.if_(end.le(fn.load(stream.offset(_SIZE), "i64"))):
        at = fn.load(stream.offset(_BUFFER), "ptr").offset(start * 8)
        for i, word in enumerate(words):
            fn.store(word, at.offset(8 * i))
    count = fn.load(stream.offset(_COUNT), "i64")
    fn.store(count + 1, stream.offset(_COUNT))
    low.env[op.result] = count


def signalled(low: Lowering, op: Op) -> None:
    """Make the semaphore that nobody waits for."""
    low.env[op.result] = low.fn.const("i64", -1)

"""Take down what programs emit that write memory which other programs read their way from.

Programs run one after the other, in order if they can. One that waits for what a later one writes
is put off until that has run; programs that all wait for each other are a deadlock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from asterope.errors import DeadlockError

if TYPE_CHECKING:
    from asterope.host.emitter import Emitter

__all__ = ["record"]

_FIRST_WORDS = 1 << 14
_MOST_TRIES = 1 << 9
_MOST_NAMED = 8
_Words = npt.NDArray[np.int64]


def record(emitter: Emitter, restore: Callable[[], None]) -> tuple[_Words, _Words]:
    """Return the records of all programs, each run once, and where each one's begin.

    `restore` puts memory back as it was, before programs are run and whenever they are run anew.

    Raises: DeadlockError if programs wait for each other.
    """
    order: Sequence[int] = range(emitter.num_programs)
    words = _FIRST_WORDS
    while True:
        restore()
        parts, stuck, missing = _run_all(emitter, order, words)
        if len(parts) == len(order):
            return _in_order(parts)
        if missing:
            words = 2 * (words + missing)
        elif isinstance(order, range):
            restore()
            order = _find_order(emitter)
        else:
            raise _deadlock({order[len(parts)]: stuck}, is_certain=False)


def _find_order(emitter: Emitter) -> list[int]:
    """Find an order in which programs end, by trying those that are stuck again after others.

    A program that is tried again does again what it does before it waits: the order found is to be
    tried on memory as it was.

    Raises: DeadlockError if none of the programs left ends.
    """
    left, ended = deque(range(emitter.num_programs)), list[int]()
    waiting: dict[int, str] = {}
    tries = 0
    while left:
        program = left.popleft()
        stuck = emitter.run_one(program, np.empty(0, np.int64))[-1]
        if not stuck:
            ended.append(program)
            waiting = {}
            continue
        if not waiting:  # often each waits for the next one
            left.reverse()
        left.append(program)
        waiting[program] = stuck
        tries += 1
        if len(waiting) == len(left) or tries == _MOST_TRIES:
            raise _deadlock(waiting, is_certain=tries < _MOST_TRIES)
    return ended


def _run_all(
    emitter: Emitter, order: Sequence[int], words: int
) -> tuple[dict[int, _Words], str, int]:
    """Run programs in an order; return the records of those that ended.

    With them comes the line where the next one is stuck, or else the words that it lacked.
    """
    buffer = np.empty(words, np.int64)
    parts: dict[int, _Words] = {}
    begin = 0
    for program in order:
        complete, written, stuck = emitter.run_one(program, buffer[begin:])
        if stuck:
            return parts, stuck, 0
        if not complete:
            return parts, "", written
        parts[program] = buffer[begin : begin + complete]
        begin += complete
    return parts, "", 0


def _in_order(parts: Mapping[int, _Words]) -> tuple[_Words, _Words]:
    sizes = [len(parts[program]) for program in range(len(parts))]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    pieces = [parts[program] for program in range(len(parts))]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64), starts


def _deadlock(waiting: Mapping[int, str], *, is_certain: bool) -> DeadlockError:
    named = sorted(waiting)[:_MOST_NAMED]
    where = ", ".join(f"program {program} at {waiting[program]}" for program in named)
    more = len(waiting) - len(named)
    others = f" and {more} more" if more else ""
    if is_certain:
        what = f"all programs that are left wait for each other or for nothing: {where}{others}"
        hint = "let no program wait for one that waits for it"
    else:
        what = f"no order of the programs was found in which each one ends: {where}{others}"
        hint = "let programs wait for those before them"
    return DeadlockError(what, where=waiting[named[0]], hint=hint)

"""Results of launches, kept for the next timeline of this process that sees an equal launch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from asterope.sim import Result

__all__ = ["Remembered"]

_OWN_ROOM = 16  # of a result that keeps no macro-instructions, in macro-instructions


class Remembered:
    """The results that were asked for last, as many as fit in a room.

    Room is counted in kept macro-instructions, which are what a result is made of when it is large.
    """

    def __init__(self, room: int) -> None:
        self._room = self._left = room
        self._results: OrderedDict[Hashable, Result] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Result | None:
        """Return the result under a key, if it is still there."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def keep(self, key: Hashable, result: Result) -> None:
        """Keep a result, letting go of those that were not asked for the longest."""
        needed = _room_of(result)
        if needed > self._room:
            return
        with self._lock:
            if key in self._results:
                return
            while self._left < needed:
                _, oldest = self._results.popitem(last=False)
                self._left += _room_of(oldest)
            self._results[key] = result
            self._left -= needed


def _room_of(result: Result) -> int:
    return _OWN_ROOM + len(result.events) + len(result.lines)

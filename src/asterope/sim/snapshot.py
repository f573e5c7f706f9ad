"""Copies of the arrays that a time reading writes, so that the launch's own stay as they are."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Region", "Snapshot"]

_ALIGN = 64
_NO_ARRAY_BYTES = 1 << 48


@dataclass(frozen=True, slots=True)
class Region:
    """A pointer argument, and the first and one past the last address of its array."""

    address: int
    start: int
    end: int

    @property
    def is_known(self) -> bool:
        """Whether the extent is an array's, not all of memory for want of one."""
        return self.end - self.start < _NO_ARRAY_BYTES


class Snapshot:
    """Copies of arrays at other addresses; `restore` makes them as the arrays are."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self._copies = [(start, end, _aligned(end - start)) for start, end in _joined(regions)]

    def restore(self) -> None:
        """Copy the arrays again."""
        for start, end, copy in self._copies:
            ctypes.memmove(copy.ctypes.data, start, end - start)

    def moved(self, args: Sequence[int | float | Region]) -> list[int | float]:
        """Return the arguments with addresses in copied arrays replaced by those in the copies."""
        return [self._moved(a) if isinstance(a, Region) else a for a in args]

    def _moved(self, region: Region) -> int:
        for start, end, copy in self._copies:
            if start <= region.address < end:
                return int(copy.ctypes.data) + region.address - start
        return region.address


def _joined(regions: Iterable[Region]) -> list[tuple[int, int]]:
    """Return the extents, those that overlap as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted({(r.start, r.end) for r in regions}):
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _aligned(num_bytes: int) -> npt.NDArray[Any]:
    room = np.empty(num_bytes + _ALIGN, np.uint8)
    skip = -int(room.ctypes.data) % _ALIGN
    return room[skip : skip + num_bytes]

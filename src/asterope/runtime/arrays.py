"""What a launch is given: arrays by their addresses, and the size of its grid."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Array", "Grid"]

Grid = tuple[int, int, int]


class Array(NamedTuple):
    """A pointer argument: an address, and the extent of the memory it lies in.

    `exists` is False for arrays that have a shape but no memory: they can be timed, not computed.
    """

    address: int
    start: int
    end: int
    exists: bool = True

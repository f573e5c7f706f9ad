"""The instruction streams of a launch: what every program emits, whatever the chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from asterope.errors import KernelError
from asterope.sim.macro import TimeProgram
from asterope.sim.snapshot import Region, Snapshot

__all__ = ["Argument", "Streams", "own_memory_error", "streams_of"]

Argument = int | float | Region
_Words = npt.NDArray[np.int64]


class Streams(Protocol):
    """Gives the records of the programs of a launch."""

    num_programs: int

    def emit(self, first: int, stride: int = 1, min_words: int = 1) -> tuple[_Words, int]:
        """Return the records of programs first, first + stride, ... and the next one after them."""


def streams_of(
    program: TimeProgram, grid: tuple[int, int, int], args: Sequence[Argument], *, has_memory: bool
) -> Streams:
    """Bind a time reading to a launch.

    Raises: KernelError if control flow depends on memory that is not there, or on memory that the
    kernel writes itself and that cannot be copied.
    """
    if program.reads_memory and not has_memory:
        raise KernelError(
            "where this kernel goes depends on values in memory, and its arrays have none",
            where=program.reads_memory,
            hint="give it real tensors to time it",
        )
    if program.written_back:
        return _recorded(program, grid, args)
    addresses = [a.address if isinstance(a, Region) else a for a in args]
    return program.code.launch(grid, addresses)


def own_memory_error(where: str) -> KernelError:
    """Make the error for a kernel whose way depends on what it may have written itself."""
    return KernelError(
        "where this kernel goes depends on memory that it also writes, and of that no copy is made",
        where=where,
        hint="split it into two launches, or read what decides from an array it does not write",
    )


# -- kernels that read their way where they write --------------------------------------------------
class _Recording:
    """The records of all programs, taken down once: they may not run a second time."""

    def __init__(self, words: _Words, starts: npt.NDArray[np.int64]) -> None:
        self.num_programs = len(starts) - 1
        self._words, self._starts = words, starts

    def emit(self, first: int, stride: int = 1, min_words: int = 1) -> tuple[_Words, int]:
        """Return records, as `Streams` says."""
        parts: list[_Words] = [self._words[:0]]
        found = 0
        while first < self.num_programs and found < min_words:
            parts.append(self._words[self._starts[first] : self._starts[first + 1]])
            found += len(parts[-1])
            first += stride
        return np.concatenate(parts), first


def _recorded(
    program: TimeProgram, grid: tuple[int, int, int], args: Sequence[Argument]
) -> _Recording:
    """Run the programs one after the other, in order, on copies of what they write."""
    if program.queue:
        raise KernelError(
            "here programs take work from each other, and timing runs one after the other: "
            "the first would get all of it",
            where=program.queue,
            hint="give each program its share by program_id to time it",
        )
    regions = []
    for index in program.written_back:
        arg = args[index] if index >= 0 else 0
        if not isinstance(arg, Region) or not arg.is_known:
            raise own_memory_error(program.reads_memory)
        regions.append(arg)
    copies = Snapshot(regions)
    words, starts = program.code.launch(grid, copies.moved(args)).record(copies.restore)
    return _Recording(words, starts)

"""The instruction streams of a launch: what every program emits, whatever the chip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asterope.errors import KernelError
from asterope.sim.macro import TimeProgram

__all__ = ["Streams"]

Words = npt.NDArray[np.int64]
_MARK = np.array([-1], np.int64)


class Streams:
    """Hands out the programs of a launch tile by tile: tile t runs programs t, t + T, ..."""

    def __init__(
        self, program: TimeProgram, grid: tuple[int, int, int], args: Sequence[int | float],
        *, has_memory: bool,
    ) -> None:  # fmt: skip
        if program.reads_memory and not has_memory:
            raise KernelError(
                "where this kernel goes depends on values in memory, and its arrays have none",
                where=program.reads_memory,
                hint="give it real tensors to time it",
            )
        self.num_programs = grid[0] * grid[1] * grid[2]
        self._emitter = program.code.launch(grid, args)

    def program(self, number: int) -> Words:
        """Return the records of one program; valid until the next call."""
        return self._emitter.emit(number)

    def batch(self, first: int, stride: int, min_words: int) -> tuple[Words, int]:
        """Return the records of programs first, first + stride, ... and the next one after them."""
        parts: list[Words] = []
        words, number = 0, first
        while number < self.num_programs and words < min_words:
            records = self.program(number)
            parts += [_MARK, records.copy()]
            words += len(records) + 1
            number += stride
        return (np.concatenate(parts) if parts else np.empty(0, np.int64)), number

"""The instruction streams of a launch: what every program emits, whatever the chip."""

from __future__ import annotations

from collections.abc import Sequence

from asterope.errors import KernelError
from asterope.host import Emitter
from asterope.sim.macro import TimeProgram

__all__ = ["own_memory_error", "streams_of"]


def streams_of(
    program: TimeProgram, grid: tuple[int, int, int], args: Sequence[int | float],
    *, has_memory: bool,
) -> Emitter:  # fmt: skip
    """Bind a time reading to a launch.

    Raises: KernelError if control flow depends on memory that is not there, or that the kernel
    writes itself.
    """
    own = min(program.deciding.keys() & program.written, default=None)
    if own is not None:
        raise own_memory_error(program.deciding[own])
    if program.reads_memory and not has_memory:
        raise KernelError(
            "where this kernel goes depends on values in memory, and its arrays have none",
            where=program.reads_memory,
            hint="give it real tensors to time it",
        )
    return program.code.launch(grid, args)


def own_memory_error(where: str) -> KernelError:
    """Make the error for a kernel whose way depends on what it may have written itself."""
    return KernelError(
        "where this kernel goes depends on memory that it also writes, and timing writes nothing",
        where=where,
        hint="split it into two launches, or read what decides from an array it does not write",
    )

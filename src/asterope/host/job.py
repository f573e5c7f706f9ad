"""A launch in memory, and how threads share its programs.

Each thread has a share of the grid, neighbours in order, and takes some programs of it at a time;
when none is left it helps with the next share. So a core meets again in its caches what it touched
in the launch before, and no core waits for a slow one. Kernels whose programs may wait for each
other have one share: their programs are taken in the grid's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asterope.ir import ATOMICS, Kernel, is_volatile
from asterope.native import Function, Val

__all__ = ["ARGUMENTS", "COUNTER_BYTES", "GRID", "HEAD", "RECORDS", "programs", "takes_in_order"]

# Programs to take at a time, shares, where the counters lie, where the records, the grid.
HEAD = "<qqQQ3i4x"
_GRAIN, _SHARES, _COUNTERS, RECORDS, GRID, ARGUMENTS = 0, 8, 16, 24, 32, 48
# A counter for each share, on a cache line of its own: how many of its programs were taken.
COUNTER_BYTES = 64


def takes_in_order(kernel: Kernel) -> bool:
    """Whether programs may wait for lower ones, so that those should not be taken last."""
    return any(op.name == "while" or op.name in ATOMICS or is_volatile(op) for op in kernel.walk())


@contextmanager
def programs(
    fn: Function, job: Val, worker: Val, total: Val
) -> Iterator[tuple[Val, Callable[[], None]]]:
    """Take programs until none of `total` is left; yields one, and how to stop at it.

    Who stops takes no more programs, nor does anyone take higher ones.
    """
    grain, shares = (fn.load(job.offset(i), "i64") for i in (_GRAIN, _SHARES))
    counters = fn.load(job.offset(_COUNTERS), "ptr")
    taken = fn.slot("i64")
    with fn.loop(0, shares) as turn:
        share = (worker + turn).op("urem", shares)
        begin = (total * share).op("udiv", shares)
        end = (total * (share + 1)).op("udiv", shares)
        counter = counters.offset(share * COUNTER_BYTES)

        def take() -> Val:
            text = f"atomicrmw add {counter.text}, {grain.text} monotonic"
            fn.store(begin + fn.line(text, "i64"), taken)
            return fn.load(taken, "i64").lt(end)

        def stop() -> None:
            with fn.loop(share, shares) as higher:
                place = counters.offset(higher * COUNTER_BYTES)
                fn.line(f"atomicrmw max {place.text}, {total.text} monotonic", "i64")
            fn.leave()

        with fn.while_(take):
            first = fn.load(taken, "i64")
            with fn.loop(first, (first + grain).minimum("smin", end)) as program:
                yield program, stop

"""Run native code over many items on all cores, with the GIL released."""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from collections.abc import Callable

from asterope.native.cpu import num_cores

__all__ = ["Counter", "run_on_all_cores"]

Work = Callable[[int], object]


class _Worker:
    """A thread that waits for work; faster to wake than an executor's."""

    def __init__(self, index: int) -> None:
        self.tasks: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._index = index
        threading.Thread(target=self._run, name=f"asterope-{index}", daemon=True).start()

    def _run(self) -> None:
        while True:
            work = self.tasks.get()
            try:
                work(self._index)
            except BaseException as error:  # handed to the thread that asked
                self.done.put(error)
            else:
                self.done.put(None)


_lock = threading.Lock()
_workers: list[_Worker] = []


def _start_afresh() -> None:
    """Forget threads that a forked child does not have."""
    global _lock  # noqa: PLW0603  it may have been held at the time of the fork
    _lock = threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def run_on_all_cores(work: Work, num_items: int, *, small: bool = False) -> None:
    """Call `work(thread_index)` on each core at once; the work divides the items itself.

    `small` work, or a single item, stays on the calling thread: waking another costs ~20 us. So
    does work that starts while another thread of the process has the workers. Native code called
    through ctypes releases the GIL, so the calls do overlap.
    """
    num_threads = 1 if small else min(num_cores(), num_items)
    lock = _lock
    if num_threads <= 1 or not lock.acquire(blocking=False):
        work(0)
        return
    try:
        while len(_workers) < num_threads - 1:
            _workers.append(_Worker(len(_workers) + 1))
        helpers = _workers[: num_threads - 1]
        for worker in helpers:
            worker.tasks.put(work)
        try:
            work(0)
        finally:
            errors = [worker.done.get() for worker in helpers]
        for error in errors:
            if error is not None:
                raise error
    finally:
        lock.release()


class Counter:
    """An int64 in memory that native code on several threads counts up atomically."""

    def __init__(self) -> None:
        self._value = ctypes.c_int64(0)
        self.address = ctypes.addressof(self._value)

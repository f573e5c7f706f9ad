"""Run native code over many items on all cores, with the GIL released."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from asterope.native.cpu import num_cores

__all__ = ["Counter", "run_on_all_cores"]

_lock = threading.Lock()
_executors: dict[int, ThreadPoolExecutor] = {}


def _executor(num_helpers: int) -> ThreadPoolExecutor:
    with _lock:
        if num_helpers not in _executors:
            _executors[num_helpers] = ThreadPoolExecutor(num_helpers, "asterope-host")
        return _executors[num_helpers]


def run_on_all_cores(work: Callable[[int], object], num_items: int, *, small: bool = False) -> None:
    """Call `work(thread_index)` on each core at once; the work divides the items itself.

    `small` work, or a single item, stays on the calling thread: waking another costs ~20 us.
    Native code called through ctypes releases the GIL, so the calls do overlap.
    """
    num_threads = 1 if small else min(num_cores(), num_items)
    if num_threads <= 1:
        work(0)
        return
    pool = _executor(num_threads - 1)
    others: list[Future[object]] = [pool.submit(work, i) for i in range(1, num_threads)]
    try:
        work(0)
    finally:
        for other in others:
            other.result()


class Counter:
    """An int64 in memory that native code on several threads counts up atomically."""

    def __init__(self) -> None:
        self._value = ctypes.c_int64(0)
        self.address = ctypes.addressof(self._value)

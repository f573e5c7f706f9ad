"""Give freed memory back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["freed_at_once", "release_freed"]

# glibc's malloc.h; by itself it raises the threshold up to its limit as blocks are freed.
_MMAP_THRESHOLD, _LARGE_BYTES, _LIMIT_BYTES = -3, 1 << 18, 1 << 25


def release_freed() -> None:
    """Give back what was freed and the C library keeps: glibc keeps blocks of tens of megabytes.

    It takes milliseconds, and what is asked for next is zeroed anew: between phases, not in them.
    """
    trim = _found("malloc_trim")
    if trim is not None:
        trim(0)


@contextmanager
def freed_at_once() -> Iterator[None]:
    """While it lasts, blocks of 256 KiB or more go back to the system when they are freed.

    The C library would keep them between smaller ones that stay, and ask for more beside them.
    """
    set_option = _found("mallopt")
    if set_option is None:
        yield
        return
    set_option(_MMAP_THRESHOLD, _LARGE_BYTES)
    try:
        yield
    finally:
        set_option(_MMAP_THRESHOLD, _LIMIT_BYTES)


@cache
def _found(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # other C libraries have no such function
        return None
    return found

"""Give freed memory back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

__all__ = ["release_freed"]


def release_freed() -> None:
    """Give back what was freed and the C library keeps: glibc keeps blocks of tens of megabytes.

    It takes milliseconds, and what is asked for next is zeroed anew: between phases, not in them.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # other C libraries have no such function
        return None
    return found

"""What the first simulated launch of a process loads, side by side."""

from __future__ import annotations

import functools
import threading

from triton.runtime.cache import triton_key

from asterope.sim import load_counting

__all__ = ["load_ahead"]


@functools.cache
def load_ahead() -> None:
    """Load the simulator's compiled code while Triton digests its library of 440 MB.

    Each takes a third to half a second, once a process; the digest does not hold Python's lock.
    """
    digest = threading.Thread(target=triton_key, name="asterope-digest")
    digest.start()
    load_counting()
    digest.join()

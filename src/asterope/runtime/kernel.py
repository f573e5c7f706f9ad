"""A kernel after the passes: the one program that host and sim read."""

from __future__ import annotations

import functools
import threading

from asterope.compiler import find_tiles, flatten, forward, simplify
from asterope.host import HostKernel, host_isa
from asterope.ir import Kernel, parse_kernel, print_kernel, verify
from asterope.native import setting
from asterope.sim import TimeProgram, to_macro_instructions

__all__ = ["PASSES", "TileKernel", "optimise"]

PASSES = (forward, flatten, find_tiles, simplify)


def optimise(kernel: Kernel) -> Kernel:
    """Run the pass pipeline, verifying before and after each pass."""
    verify(kernel)
    for run in PASSES:
        kernel = run(kernel)
        verify(kernel)
    return kernel


class TileKernel:
    """An optimised kernel; machine code and timing program are made when first needed."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._lock = threading.Lock()
        self._hosts: dict[str, HostKernel] = {}

    @classmethod
    def parse(cls, text: str) -> TileKernel:
        """Read the text form, as it is kept in caches and recordings.

        Raises: IRError if it does not parse or verify.
        """
        kernel = parse_kernel(text)
        verify(kernel)
        return cls(kernel)

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.name

    @functools.cached_property
    def text(self) -> str:
        """The text form; equal texts are equal kernels."""
        return print_kernel(self.kernel)

    @functools.cached_property
    def time_program(self) -> TimeProgram:
        """The time reading."""
        return to_macro_instructions(self.kernel)

    @property
    def host(self) -> HostKernel:
        """Machine code for the instruction set in use."""
        asked_for = setting("ASTEROPE_ISA")
        found = self._hosts.get(asked_for)
        if found is not None:
            return found
        with self._lock:
            if asked_for not in self._hosts:
                self._hosts[asked_for] = HostKernel(self.kernel, host_isa())
            return self._hosts[asked_for]

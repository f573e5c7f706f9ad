"""The time reading of a kernel as machine code: one call appends one program's instructions."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.host.executable import (
    ArgumentLayout,
    KernelCode,
    begin,
    finish,
    scratch_area,
    translate_program,
)
from asterope.host.timing import STREAM_WORDS
from asterope.ir import Kernel, print_kernel
from asterope.native import Isa, Module, best_isa

__all__ = ["Emitter", "TimeCode"]

_SYMBOL = "run_programs"
_FIRST_WORDS = 1 << 12


def _write_llvm(kernel: Kernel, isa: Isa) -> str:
    """Translate to `run_programs(args, grid, program, stream, scratch)`."""
    module = Module(isa)
    parameters = [("ptr", "args"), ("ptr", "grid"), ("i64", "program"), ("ptr", "stream")]
    fn = module.function(_SYMBOL, [*parameters, ("ptr noalias", "scratch")])
    _, _, program, stream, scratch = fn.args
    low = begin(fn, kernel, scratch, disjoint=False)
    low.stream = stream
    translate_program(low, program)
    return finish(module, fn, low)


class TimeCode:
    """Machine code of a time reading; `launch` binds it to a grid and arguments."""

    def __init__(self, kernel: Kernel) -> None:
        isa = best_isa()
        key = hashlib.sha256(print_kernel(kernel).encode()).hexdigest()
        pointer = ctypes.c_void_p
        self.layout = ArgumentLayout(kernel)
        self.code = KernelCode(
            f"time|{key}",
            isa,
            lambda: _write_llvm(kernel, isa),
            (pointer, pointer, ctypes.c_int64, pointer, pointer),
        )

    def launch(self, grid: Sequence[int], args: Sequence[int | float]) -> Emitter:
        """Bind to one launch.

        Raises: KernelError if the arguments do not fit the parameters.
        """
        return Emitter(self, grid, args)


class Emitter:
    """Emits the macro-instructions of any program of one launch."""

    def __init__(self, code: TimeCode, grid: Sequence[int], args: Sequence[int | float]) -> None:
        self._code = code.code
        self._arguments = code.layout.pack(args)
        self._grid = (ctypes.c_int32 * 3)(*grid)
        self._stream = (ctypes.c_int64 * STREAM_WORDS)()
        self._buffer: npt.NDArray[Any] = np.empty(_FIRST_WORDS, np.int64)

    def emit(self, program: int) -> npt.NDArray[np.int64]:
        """Return the records of one program (see `timing.py`); valid until the next call."""
        while True:
            written = self._run(program)
            if written <= self._buffer.size:
                return self._buffer[:written]
            self._buffer = np.empty(2 * written, np.int64)

    def _run(self, program: int) -> int:
        stream = self._stream
        stream[0], stream[1], stream[2], stream[3] = (
            self._buffer.ctypes.data,
            self._buffer.size,
            0,
            0,
        )
        self._code.run(
            ctypes.addressof(self._arguments), ctypes.addressof(self._grid), program,
            ctypes.addressof(stream), scratch_area(self._code.scratch_bytes),
        )  # fmt: skip
        return int(stream[2])

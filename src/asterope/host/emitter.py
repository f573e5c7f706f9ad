"""The time reading of a kernel as machine code: one call appends instructions of programs."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.errors import DeadlockError
from asterope.host.executable import (
    ArgumentLayout,
    KernelCode,
    begin,
    finish,
    translate_program,
)
from asterope.host.recording import record
from asterope.host.timing import MOST_ROUNDS, Stream, append, conditional_loops
from asterope.ir import Kernel, print_kernel
from asterope.native import Isa, Module, Val, best_isa, scratch_area

__all__ = ["Emitter", "TimeCode"]

_SYMBOL = "run_programs"
_MARK = -1


def _write_llvm(kernel: Kernel, isa: Isa) -> str:
    """Translate to `run_programs(args, grid, stride, num_programs, stream, scratch)`.

    From the stream's program on, every `stride`-th one appends a mark and its records, until
    there are no more, enough words are written, or one does not fit.
    """
    module = Module(isa)
    parameters = [("ptr", "args"), ("ptr", "grid"), ("i64", "stride"), ("i64", "num_programs")]
    fn = module.function(_SYMBOL, [*parameters, ("ptr", "stream"), ("ptr noalias", "scratch")])
    args, places, stride, num_programs, stream, scratch = fn.args
    low = begin(fn, kernel, args, places, scratch, disjoint=False)
    low.stream = stream

    def word(name: str) -> Val:
        return stream.offset(Stream.offset(name))

    def goes_on() -> Val:
        enough = fn.load(word("enough"), "i64")
        is_left = fn.load(word("program"), "i64").lt(num_programs)
        return is_left & fn.load(word("written"), "i64").lt(enough)

    with fn.while_(goes_on):
        append(low, [fn.const("i64", _MARK)])
        fn.store(fn.const("i64", 0), word("count"))
        program = fn.load(word("program"), "i64")
        translate_program(low, program)
        written = fn.load(word("written"), "i64")
        with fn.if_else(written.le(fn.load(word("size"), "i64"))) as otherwise:
            fn.store(program + stride, word("program"))
            fn.store(written, word("complete"))
            otherwise()
            fn.store(fn.const("i64", 0), word("enough"))
    return finish(module, fn, low)


class TimeCode:
    """Machine code of a time reading; `launch` binds it to a grid and arguments."""

    def __init__(self, kernel: Kernel) -> None:
        isa = best_isa()
        key = hashlib.sha256(print_kernel(kernel).encode()).hexdigest()
        pointer = ctypes.c_void_p
        self.layout = ArgumentLayout(kernel)
        self.loops = [op.loc or kernel.name for op in conditional_loops(kernel)]
        self.code = KernelCode(
            f"time|{key}",
            isa,
            lambda: _write_llvm(kernel, isa),
            (pointer, pointer, ctypes.c_int64, ctypes.c_int64, pointer, pointer),
        )

    def launch(self, grid: Sequence[int], args: Sequence[int | float]) -> Emitter:
        """Bind to one launch.

        Raises: KernelError if the arguments do not fit the parameters.
        """
        return Emitter(self, grid, args)


class Emitter:
    """Emits the macro-instructions of the programs of one launch."""

    def __init__(self, code: TimeCode, grid: Sequence[int], args: Sequence[int | float]) -> None:
        self.num_programs = grid[0] * grid[1] * grid[2]
        self._code, self._loops = code.code, code.loops
        self._arguments = code.layout.pack(args)
        self._grid = (ctypes.c_int32 * 3)(*grid)
        self._buffer: npt.NDArray[Any] = np.empty(0, np.int64)

    def emit(
        self, first: int, stride: int = 1, min_words: int = 1
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Return the records of programs first, first + stride, ... and the next one after them.

        Programs are taken until there are `min_words` words. Each begins with -1; records are
        described in `timing.py`. The words are valid until the next call.

        Raises: DeadlockError if a loop does not end.
        """
        if self._buffer.size < 2 * min_words:
            self._buffer = np.empty(2 * min_words, np.int64)
        while True:
            stream = self._run(first, stride, min_words, self._buffer)
            if stream.stuck:
                raise _endless(self._stuck_at(stream), stream.program)
            if stream.complete or first >= self.num_programs:
                return self._buffer[: stream.complete], stream.program
            self._buffer = np.empty(2 * stream.written, np.int64)

    def record(
        self, restore: Callable[[], None]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the records of programs that write memory, as `recording.record` says."""
        return record(self, restore)

    def run_one(self, program: int, buffer: npt.NDArray[np.int64]) -> tuple[int, int, str]:
        """Run one program; return the words of a complete record, 0 if it does not fit.

        With them come the words it would take, and the line of the loop that does not end, if any.
        """
        stream = self._run(program, 1, 1, buffer)
        return stream.complete, stream.written, self._stuck_at(stream)

    def _stuck_at(self, stream: Stream) -> str:
        return self._loops[stream.stuck - 1] if stream.stuck else ""

    def _run(
        self, first: int, stride: int, min_words: int, buffer: npt.NDArray[np.int64]
    ) -> Stream:
        stream = Stream(
            buffer=buffer.ctypes.data, size=buffer.size, enough=min_words, program=first
        )
        self._code.run(
            ctypes.addressof(self._arguments), ctypes.addressof(self._grid), stride,
            self.num_programs, ctypes.addressof(stream), scratch_area(self._code.scratch_bytes),
        )  # fmt: skip
        return stream


def _endless(where: str, program: int) -> DeadlockError:
    return DeadlockError(
        f"this loop of program {program} goes on for {MOST_ROUNDS:,} rounds: it waits for what no"
        " program of the launch writes",
        where=where,
        hint="what it reads must change, or have its last value before the launch",
    )

"""The physical floor of work that streams through memory: read so many bytes, write so many."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from asterope.native import (
    Counter,
    Library,
    Module,
    Val,
    best_isa,
    compile_object,
    run_on_all_cores,
)

_LINE_BYTES = 64
_PIECE_BYTES = 1 << 14
_PIECES_AT_ONCE = 8


def _write_llvm() -> str:
    """Write LLVM IR: `stream(source, target, bytes to write a piece, pieces, counter, sink)`."""
    module = Module(best_isa())
    names = ("source", "target", "write_bytes", "num_pieces", "counter", "sink")
    kinds = ("ptr", "ptr", "i64", "i64", "ptr", "ptr")
    fn = module.function("stream", list(zip(kinds, names, strict=True)))
    source, target, write_bytes, num_pieces, counter, sink = fn.args
    first, seen = fn.slot("i64"), fn.slot("i64", 32)
    fn.store(fn.const("i64", 0, 32), seen)

    def take() -> Val:
        text = f"atomicrmw add {counter.text}, i64 {_PIECES_AT_ONCE} monotonic"
        fn.store(fn.line(text, "i64"), first)
        return fn.load(first, "i64").lt(num_pieces)

    with fn.while_(take):
        start = fn.load(first, "i64")
        with fn.loop(start, (start + _PIECES_AT_ONCE).minimum("smin", num_pieces)) as piece:
            base = source.offset(piece * _PIECE_BYTES)
            with fn.loop(0, _PIECE_BYTES, 4 * _LINE_BYTES) as i:
                fn.store(fn.load(seen, "i64", 32) ^ fn.load(base.offset(i), "i64", 32), seen)
            out = target.offset(piece * write_bytes)
            with fn.loop(0, write_bytes, _LINE_BYTES) as i:
                fn.store(fn.const("i64", 1, 8), out.offset(i))
    fn.store(fn.load(seen, "i64", 32), sink)
    fn.finish()
    return module.text()


@functools.cache
def _library() -> Library:
    return Library(compile_object(_write_llvm(), best_isa()), ["stream"], {})


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Read an array `num_reads` times and write at least `num_bytes` to a new one, on all cores."""

    source: npt.NDArray[np.uint8]
    num_bytes: int
    num_reads: int = 1
    _sink: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(256, np.uint8))

    def __call__(self) -> npt.NDArray[np.uint8]:
        """Do it; the result holds nothing of interest."""
        num_pieces = self.source.size // _PIECE_BYTES
        a_piece = -(-self.num_bytes // num_pieces // _LINE_BYTES) * _LINE_BYTES
        target = np.empty(num_pieces * a_piece, np.uint8)
        for index in range(self.num_reads):
            self._pass(target, a_piece if index == self.num_reads - 1 else 0, num_pieces)
        return target

    def _pass(self, target: npt.NDArray[np.uint8], a_piece: int, num_pieces: int) -> None:
        pointer, int64 = ctypes.c_void_p, ctypes.c_int64
        run = ctypes.CFUNCTYPE(None, pointer, pointer, int64, int64, pointer, pointer)(
            _library().symbols["stream"]
        )
        counter = Counter()
        addresses = self.source.ctypes.data, target.ctypes.data

        def work(_: int) -> None:
            run(*addresses, a_piece, num_pieces, counter.address, self._sink.ctypes.data)

        run_on_all_cores(work, num_pieces)

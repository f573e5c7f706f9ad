"""Loops of machine code over arrays: written on first use, kept on disk, run on all cores."""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from asterope.formats.native_codec import emit_decode
from asterope.formats.table import ELEMENTS, ElementFormat
from asterope.native import (
    Counter,
    Function,
    Isa,
    Library,
    Module,
    Val,
    best_isa,
    load_library,
    num_cores,
    run_on_all_cores,
    type_text,
)

__all__ = [
    "VALUE_DTYPES",
    "Loop",
    "decode_exactly",
    "emit_uniform32",
    "in_order",
    "load_values",
    "raw_kind",
    "recast",
    "run_loop",
    "write_loop",
]

VALUE_DTYPES = {
    np.dtype(np.float32): "fp32",
    np.dtype(np.float16): "fp16",
    np.dtype(ml_dtypes.bfloat16): "bf16",
}

_SYMBOL = "run_loop"
_MAX_CHUNK_BYTES = 1 << 18
_CHUNKS_PER_CORE = 8
_SMALL_BYTES = 1 << 20


class Loop(Hashable, Protocol):
    """One kind of work on a range of items; equal loops have the same code.

    `PARAMS` are the kinds of the arguments: `ptr`, `i64` or `f32`. Ranges start at a multiple of
    `GRAIN` items.
    """

    PARAMS: ClassVar[tuple[str, ...]]
    GRAIN: ClassVar[int]

    def emit(self, fn: Function, args: Sequence[Val], start: Val, end: Val) -> None:
        """Write the code for items start..end - 1."""


def write_loop(loop: Loop, isa: Isa) -> str:
    """Write LLVM IR: `run_loop(args, counter, chunk, total)`.

    Each thread takes `chunk` items at a time from the shared counter until none is left.
    """
    module = Module(isa)
    params = [("ptr", "args"), ("ptr", "counter"), ("i64", "chunk"), ("i64", "total")]
    fn = module.function(_SYMBOL, params)
    packed, counter, chunk, total = fn.args
    args = [fn.load(packed.offset(8 * i), kind) for i, kind in enumerate(loop.PARAMS)]
    first = fn.slot("i64")

    def take() -> Val:
        text = f"atomicrmw add {counter.text}, {chunk.text} monotonic"
        fn.store(fn.line(text, "i64"), first)
        return fn.load(first, "i64").lt(total)

    with fn.while_(take):
        start = fn.load(first, "i64")
        loop.emit(fn, args, start, (start + chunk).minimum("smin", total))
    fn.finish()
    return module.text()


@functools.cache
def _code(loop: Loop, isa: Isa) -> tuple[Library, Any]:
    text = write_loop(loop, isa)
    library = load_library(text, isa, [_SYMBOL], lambda: text)
    pointer, int64 = ctypes.c_void_p, ctypes.c_int64
    prototype = ctypes.CFUNCTYPE(None, pointer, pointer, int64, int64)
    return library, prototype(library.symbols[_SYMBOL])


def _packed(value: npt.NDArray[Any] | int | float) -> bytes:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        assert value.flags.aligned
        return struct.pack("<Q", value.ctypes.data)
    return struct.pack("<f4x" if isinstance(value, float) else "<q", value)


def in_order(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array as machine code reads it: contiguous and aligned, a copy if it is not."""
    return np.require(x, requirements=["C", "A"])


def run_loop(
    loop: Loop, args: Sequence[npt.NDArray[Any] | int | float], num_items: int, item_bytes: int
) -> None:
    """Run a loop over all its items, on all cores if they are many.

    The result does not depend on the number of cores: items write to places of their own.
    """
    _, run = _code(loop, best_isa())
    arguments = ctypes.create_string_buffer(b"".join(map(_packed, args)))
    num_bytes = num_items * item_bytes
    chunk_bytes = min(_MAX_CHUNK_BYTES, num_bytes // (num_cores() * _CHUNKS_PER_CORE))
    chunk = max(1, chunk_bytes // (item_bytes * loop.GRAIN)) * loop.GRAIN
    counter = Counter()

    def work(_: int) -> None:
        run(ctypes.addressof(arguments), counter.address, chunk, num_items)

    run_on_all_cores(work, -(-num_items // chunk), small=num_bytes < _SMALL_BYTES)


# -- shared pieces of code ------------------------------------------------------------------------
def raw_kind(dtype: str) -> str:
    """Return the integer kind that holds the bits of one value."""
    return f"i{ELEMENTS[dtype].bits}"


def recast(x: Val, kind: str, lanes: int) -> Val:
    """Reinterpret a vector as one of other lanes and the same number of bits."""
    return x.fn.line(f"bitcast {x.text} to {type_text(kind, lanes)}", kind, lanes)


def load_values(x: Val, index: Val, dtype: str, lanes: int) -> Val:
    """Load values as float32, exactly; `dtype` is `fp32`, `fp16` or `bf16`."""
    fn, fmt = x.fn, ELEMENTS[dtype]
    at = x.offset(index * (fmt.bits // 8))
    if dtype == "fp16" and fn.isa.has_half:
        return fn.load(at, "f16", lanes).fext("f32")
    return emit_decode(fn.load(at, raw_kind(dtype), lanes), fmt)


def decode_exactly(code: Val, fmt: ElementFormat) -> Val:
    """Decode with the one NaN of `decode`, where `emit_decode` keeps sign and payload."""
    value = emit_decode(code, fmt)
    return value.is_nan().where(math.nan, value) if fmt.has_nan else value


def _mix(x: Val) -> Val:
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


def emit_uniform32(low: Val, high: Val, seed: Val) -> Val:
    """Compute `uniform32` from the two halves of the element indices and the seed, all i32."""
    return _mix(_mix(low ^ _mix(seed)) + (_mix(high) + seed))

"""Run masked kernels on arrays that end where the next page may not be touched.

A wrong access ends this process with a signal; the last line it printed names the case.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from asterope.compiler import find_tiles, simplify
from asterope.host import HostKernel
from asterope.ir import Type, dtype_of
from asterope.native import available_isas, isa_named
from ir_builder import Writer

_PAGE = 4096
_NO_ACCESS, _READ_WRITE, _PRIVATE_ANONYMOUS = 0, 3, 0x22
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded_page():
    """Return the address of a page with a forbidden one on either side."""
    start = _LIBC.mmap(None, 3 * _PAGE, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    for page in (0, 2):
        assert _LIBC.mprotect(start + page * _PAGE, _PAGE, _NO_ACCESS) == 0
    return start + _PAGE


def array_at(address, count, dtype):
    raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(raw, dtype)


def copy_kernel(elem, stride, form):
    """Copy n elements, `stride` apart, of a block of 64; the rest is masked off."""
    w = Writer(x=f"ptr<{elem}>", y=f"ptr<{elem}>", n="i32")
    shape = (4, 64) if form == "matrix" else (64,)
    inside = w.compare("slt", w.iota(64), w.broadcast(w["n"], (64,)))
    mask = w.along(inside, len(shape) - 1, shape)
    strides = [0, stride] if form == "matrix" else [stride]
    if form == "gather":
        indices = w("xor", w.iota(64), w.const("i32[64]", 0))
        offsets = w("mul", indices, w.const("i32[64]", stride))
        value = w.load_at(w("addptr", w.broadcast(w["x"], shape), offsets), mask=mask)
    else:
        value = w.load("x", shape, strides=strides, mask=mask)
    w.store("y", value, strides=strides, mask=mask)
    return w.done()


def copies(isa):
    page_x, page_y = guarded_page(), guarded_page()
    n = 5
    for elem in ("i8", "fp32"):
        dtype = dtype_of(Type(elem))
        for stride in (1, -1):
            for form in ("plain", "gather", "matrix"):
                kernel = copy_kernel(elem, stride, form)
                tiles = simplify(find_tiles(kernel))
                for name, reading in (("pointers", kernel), ("tiles", tiles)):
                    print(isa, elem, stride, form, name, flush=True)
                    at = _PAGE - n * dtype.itemsize if stride == 1 else 0
                    x, y = (array_at(page + at, n, dtype) for page in (page_x, page_y))
                    x[:], y[:] = np.arange(1, n + 1).astype(dtype), 0
                    first = 0 if stride == 1 else (n - 1) * dtype.itemsize
                    addresses = [page_x + at + first, page_y + at + first, n]
                    HostKernel(reading, isa_named(isa)).launch((1, 1, 1), addresses)
                    assert (x == y).all()


def nothing(isa):
    """Mask everything off: not even the first element may be touched."""
    for shape, strides in (((64,), [0]), ((64,), [1]), ((8, 16), [0, 1]), ((8, 16), [0, 0])):
        w = Writer(x="ptr<fp32>", y="ptr<fp32>", n="i32")
        inside = w.compare("slt", w.iota(shape[0]), w.broadcast(w["n"], shape[:1]))
        mask = w.along(inside, 0, shape)
        three = w.const(Type("fp32", shape), 3.0)
        value = w.load("x", shape, strides=strides, mask=mask, other=three)
        w.store("y", value)
        kernel = w.done()
        y = np.zeros(shape, np.float32)
        for name, reading in (("pointers", kernel), ("tiles", simplify(find_tiles(kernel)))):
            print(isa, "null pointer", shape, strides, name, flush=True)
            HostKernel(reading, isa_named(isa)).launch((1, 1, 1), [0, y.ctypes.data, 0])
            assert (y == 3).all()


if __name__ == "__main__":
    {"copies": copies, "nothing": nothing}[sys.argv[1]](sys.argv[2])
    assert sys.argv[2] in available_isas()
    print("done")

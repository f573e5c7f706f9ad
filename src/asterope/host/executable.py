"""A kernel as machine code: compile, load, launch over a grid on all cores."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import operator
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asterope.errors import KernelError
from asterope.host.lower import Lowering
from asterope.host.reports import Reports, reporting_ops
from asterope.host.values import NARROW_FLOATS, register_kind
from asterope.ir import Kernel, Type, dtype_of, print_kernel
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
    sources_digest,
)

__all__ = ["ArgumentLayout", "HostKernel", "KernelCode", "scratch_area", "write_llvm"]

_SYMBOL = "run_programs"
_INFO = "scratch_bytes"
_SMALL_WORK = 1 << 18


class KernelCode:
    """Loaded machine code of one kernel: a function, and the scratch memory it needs."""

    def __init__(
        self, key: str, isa: Isa, write: Callable[[], str], parameters: Sequence[Any]
    ) -> None:
        full_key = f"{sources_digest('host', 'native', 'formats')}|{key}"
        self._library: Library = load_library(full_key, isa, [_SYMBOL, _INFO], write)
        self.run = ctypes.CFUNCTYPE(None, *parameters)(self._library.symbols[_SYMBOL])
        size = ctypes.c_int64()
        info = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._library.symbols[_INFO])
        info(ctypes.addressof(size))
        self.scratch_bytes = size.value


def begin(fn: Function, kernel: Kernel, scratch: Val, *, disjoint: bool) -> Lowering:
    """Start a program: the first two parameters are the packed arguments and the grid."""
    args, grid = fn.args[:2]
    low = Lowering(fn, kernel, scratch, disjoint=disjoint)
    for i, value in enumerate(kernel.body.args):
        low.env[value] = fn.load(args.offset(8 * i), register_kind(value.type))
    low.grid = [fn.load(grid.offset(4 * i), "i32") for i in range(3)]
    return low


def translate_program(low: Lowering, program: Val) -> None:
    """Translate the kernel for one program of the grid, x fastest."""
    sizes = [g.zext("i64") for g in low.grid]
    rest = program.op("udiv", sizes[0])
    place = (program.op("urem", sizes[0]), rest.op("urem", sizes[1]), rest.op("udiv", sizes[1]))
    low.program = [v.zext("i32") for v in place]
    low.program_index = program
    with low.scope():
        low.block(low.kernel.body)


def finish(module: Module, fn: Function, low: Lowering) -> str:
    """End the function, add the one that tells the scratch size, return the module's text."""
    fn.finish()
    info = module.function(_INFO, [("ptr", "out")])
    info.store(info.const("i64", low.scratch.num_bytes), info.args[0])
    info.finish()
    return module.text()


def write_llvm(kernel: Kernel, isa: Isa, *, disjoint: bool) -> str:
    """Translate a kernel to LLVM IR: `run_programs(args, grid, counter, grain, scratch, record)`.

    Each thread takes `grain` programs at a time from the shared counter until none is left. Its
    `record` is described in `reports.py`.
    """
    module = Module(isa)
    parameters = [("ptr", "args"), ("ptr", "grid"), ("ptr", "counter"), ("i64", "grain")]
    fn = module.function(_SYMBOL, [*parameters, ("ptr noalias", "scratch"), ("ptr", "record")])
    _, _, counter, grain, scratch, record = fn.args
    low = begin(fn, kernel, scratch, disjoint=disjoint)
    low.record = record
    sizes = [g.zext("i64") for g in low.grid]
    total = sizes[0] * sizes[1] * sizes[2]
    first = fn.slot("i64")

    def take() -> Val:
        text = f"atomicrmw add {counter.text}, {grain.text} monotonic"
        fn.store(fn.line(text, "i64"), first)
        return fn.load(first, "i64").lt(total)

    def stop() -> None:
        fn.line(f"atomicrmw max {counter.text}, {total.text} monotonic", "i64")
        fn.leave()

    low.stop = stop
    with fn.while_(take):
        start = fn.load(first, "i64")
        end = (start + grain).minimum("smin", total)
        with fn.loop(start, end) as program:
            translate_program(low, program)
    return finish(module, fn, low)


class HostKernel:
    """A kernel ready to launch. Machine code is made on first use and kept on disk.

    Two versions exist: one may interleave loads with stores to other arrays, which needs that the
    arrays do not overlap; the other makes no such assumption. `launch` looks at the addresses.
    """

    def __init__(self, kernel: Kernel, isa: Isa | None = None) -> None:
        self.kernel = kernel
        self.isa = isa or best_isa()
        self._key = hashlib.sha256(print_kernel(kernel).encode()).hexdigest()
        self._codes: dict[bool, KernelCode] = {}
        self._lock = threading.Lock()
        elements = (r.type.num_elements for op in kernel.walk() for r in op.results)
        self._largest_block = max(elements, default=1)
        self._layout = ArgumentLayout(kernel)
        self._sites = reporting_ops(kernel)

    def code(self, *, disjoint: bool = True) -> KernelCode:
        """Return the machine code, compiling it if it is neither in memory nor on disk."""
        found = self._codes.get(disjoint)
        if found is not None:
            return found
        with self._lock:
            if disjoint not in self._codes:
                pointer = ctypes.c_void_p
                self._codes[disjoint] = KernelCode(
                    f"values|{disjoint}|{self._key}",
                    self.isa,
                    lambda: write_llvm(self.kernel, self.isa, disjoint=disjoint),
                    (pointer, pointer, pointer, ctypes.c_int64, pointer, pointer),
                )
            return self._codes[disjoint]

    def launch(
        self,
        grid: tuple[int, int, int],
        args: Sequence[int | float],
        extents: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Run all programs of a grid and return when they are done.

        `args` are addresses for pointers and numbers for scalars. `extents` are the first and one
        past the last address of the array behind each pointer, in order; without them arrays are
        taken to overlap.

        Raises: KernelError if the number of arguments is wrong or one does not fit its type;
        DeviceAssertError if an assertion of the kernel does not hold.
        """
        num_programs = grid[0] * grid[1] * grid[2]
        arguments = self._layout.pack(args)
        if num_programs <= 0:
            return
        code = self.code(disjoint=extents is not None and _are_disjoint(extents))
        sizes = (ctypes.c_int32 * 3)(*grid)
        counter = Counter()
        grain = max(1, num_programs // (num_cores() * 16))
        reports = Reports(self._sites, grid) if self._sites else None

        def work(_: int) -> None:
            code.run(
                ctypes.addressof(arguments), ctypes.addressof(sizes), counter.address, grain,
                scratch_area(code.scratch_bytes), reports.record() if reports else None,
            )  # fmt: skip

        # Waking a second core does not pay when the blocks touched are few and small.
        small = num_programs * self._largest_block < _SMALL_WORK
        in_order = Reports.prints(self._sites)
        run_on_all_cores(work, num_programs, small=small or in_order)
        if reports:
            reports.finish()


_areas = threading.local()
_ALIGN = 64


def scratch_area(num_bytes: int) -> int:
    """Return the address of this thread's scratch memory, grown to at least `num_bytes`."""
    if getattr(_areas, "size", -1) < num_bytes:
        _areas.area = ctypes.create_string_buffer(num_bytes + 2 * _ALIGN)
        _areas.size = num_bytes
    address = ctypes.addressof(_areas.area)
    return -(-address // _ALIGN) * _ALIGN


class ArgumentLayout:
    """How a kernel's arguments lie in memory for generated code: 8 bytes each."""

    def __init__(self, kernel: Kernel) -> None:
        self._name = kernel.name
        types = [v.type for v in kernel.body.args]
        self._integers = [(i, t.bits) for i, t in enumerate(types) if t.is_int]
        floats = ("fp32", *NARROW_FLOATS)
        self._floats = [(i, _rounder(t)) for i, t in enumerate(types) if t.elem in floats]
        self._packer = struct.Struct("<" + "".join(map(_letter, types)))
        self._count = len(types)

    def pack(self, args: Sequence[int | float]) -> ctypes.Array[ctypes.c_char]:
        """Lay arguments out; integers wrap to their width and floats round to their format.

        Raises: KernelError if the number of arguments is wrong or one does not fit its type.
        """
        if len(args) != self._count:
            raise KernelError(f"takes {self._count} arguments, got {len(args)}", where=self._name)
        values: list[Any] = list(args)
        try:
            for i, bits in self._integers:
                values[i] = _wrapped(operator.index(values[i]), bits)
            for i, rounded in self._floats:
                values[i] = rounded(values[i])
            packed = self._packer.pack(*values)
        except (struct.error, TypeError, ValueError, OverflowError) as error:
            raise KernelError(f"an argument does not fit: {error}", where=self._name) from None
        return ctypes.create_string_buffer(packed, len(packed) + 1)


def _wrapped(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if bits > 1 and value >> (bits - 1) else value


def _rounder(type_: Type) -> Callable[[float], float]:
    """Return what rounds a number to a float type; what is too large is infinite, as in C."""
    if type_.elem == "fp32":
        return lambda number: ctypes.c_float(number).value
    dtype = dtype_of(type_)

    def rounded(number: float) -> float:
        with np.errstate(over="ignore"):
            return float(np.float64(float(number)).astype(dtype))

    return rounded


def _letter(type_: Type) -> str:
    if type_.is_ptr:
        return "Q"
    if type_.elem == "fp64":
        return "d"
    return "f4x" if type_.is_float else "q"


def _are_disjoint(extents: Sequence[tuple[int, int]]) -> bool:
    ordered = sorted(e for e in extents if e[0] < e[1])
    return all(a[1] <= b[0] for a, b in itertools.pairwise(ordered))

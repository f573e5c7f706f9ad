"""A kernel as machine code: compile, load, launch over a grid on all cores."""

from __future__ import annotations

import ctypes
import hashlib
import operator
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asterope.errors import KernelError
from asterope.host.job import (
    ARGUMENTS,
    COUNTER_BYTES,
    GRID,
    HEAD,
    RECORDS,
    programs,
    takes_in_order,
)
from asterope.host.lower import Lowering
from asterope.host.reports import Reports, record_of, reporting_ops
from asterope.host.single_round import with_single_rounds
from asterope.host.values import NARROW_FLOATS, register_kind
from asterope.ir import Kernel, Type, dtype_of, print_kernel
from asterope.native import (
    Function,
    Isa,
    Library,
    Module,
    Val,
    best_isa,
    load_library,
    num_cores,
    run_shared,
    scratch_area,
    sources_digest,
)

__all__ = ["ArgumentLayout", "HostKernel", "KernelCode", "write_llvm"]

_SYMBOL = "run_programs"
_INFO = "scratch_bytes"
_SMALL_WORK = 1 << 15


class KernelCode:
    """Loaded machine code of one kernel: a function, and the scratch memory it needs."""

    def __init__(
        self, key: str, isa: Isa, write: Callable[[], str], parameters: Sequence[Any]
    ) -> None:
        full_key = f"{sources_digest('formats', 'host', 'ir', 'native')}|{key}"
        self._library: Library = load_library(full_key, isa, [_SYMBOL, _INFO], write)
        self.address = self._library.symbols[_SYMBOL]
        self.run = ctypes.CFUNCTYPE(None, *parameters)(self.address)
        size = ctypes.c_int64()
        info = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._library.symbols[_INFO])
        info(ctypes.addressof(size))
        self.scratch_bytes = size.value


def begin(
    fn: Function, kernel: Kernel, args: Val, grid: Val, scratch: Val, *, disjoint: bool
) -> Lowering:
    """Start a program from the addresses of the packed arguments and of the grid."""
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
    """Translate a kernel to LLVM IR: `run_programs(job, scratch, worker)`, as crews call it.

    The job is described in `job.py`; a worker's record, if the kernel reports, in `reports.py`.
    """
    module = Module(isa)
    parameters = [("ptr", "job"), ("ptr noalias", "scratch"), ("i64", "worker")]
    fn = module.function(_SYMBOL, parameters)
    job, scratch, worker = fn.args
    places = job.offset(ARGUMENTS), job.offset(GRID)
    low = begin(fn, with_single_rounds(kernel), *places, scratch, disjoint=disjoint)
    if low.sites:
        low.record = record_of(fn.load(job.offset(RECORDS), "ptr"), worker)
    sizes = [g.zext("i64") for g in low.grid]
    with programs(fn, job, worker, sizes[0] * sizes[1] * sizes[2]) as (program, stop):
        low.stop = stop
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
        self._prints = Reports.prints(self._sites)
        self._takes_in_order = takes_in_order(kernel)

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
                    (pointer, pointer, ctypes.c_int64),
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
        # Another core does not pay when the blocks touched are few and small.
        is_small = num_programs * self._largest_block < _SMALL_WORK
        is_alone = is_small or self._prints
        cores = 1 if is_alone else min(num_cores(), num_programs)
        reports = Reports(self._sites, grid, cores) if self._sites else None
        job = self._layout.job(
            grid, args, grain=max(1, num_programs // (cores * 16)),
            shares=1 if self._takes_in_order else cores, records=reports.address if reports else 0,
        )  # fmt: skip
        if num_programs <= 0:
            return
        disjoint = extents is not None and _are_disjoint(extents)
        code = self._codes.get(disjoint) or self.code(disjoint=disjoint)
        address = ctypes.addressof(job)
        if cores == 1 or not run_shared(
            code.address, address, helpers=cores - 1, scratch_bytes=code.scratch_bytes
        ):
            code.run(address, scratch_area(code.scratch_bytes), 0)
        if reports:
            reports.finish()


class ArgumentLayout:
    """How a kernel's arguments lie in memory for generated code: 8 bytes each."""

    def __init__(self, kernel: Kernel) -> None:
        self._name = kernel.name
        types = [v.type for v in kernel.body.args]
        self._integers = [(i, t.bits) for i, t in enumerate(types) if t.is_int]
        floats = ("fp32", *NARROW_FLOATS)
        self._floats = [(i, _rounder(t)) for i, t in enumerate(types) if t.elem in floats]
        is_rounded = any(t.elem in NARROW_FLOATS for t in types)
        self._fits_as_is = not is_rounded and all(t.elem != "i1" for t in types)
        letters = "".join(map(_letter, types))
        self._packer, self._job_packer = (
            struct.Struct("<" + letters),
            struct.Struct(HEAD + letters),
        )
        self._pack_job = self._job_packer.pack_into
        self._count = len(types)
        self._buffer = ctypes.c_char * (self._packer.size + 1)
        self._jobs: dict[int, type[ctypes.Array[ctypes.c_char]]] = {}

    def pack(self, args: Sequence[int | float]) -> ctypes.Array[ctypes.c_char]:
        """Lay arguments out; integers wrap to their width and floats round to their format.

        Raises: KernelError if the number of arguments is wrong or one does not fit its type.
        """
        buffer = self._buffer()
        self._pack(self._packer, buffer, (), args)
        return buffer

    def job(
        self,
        grid: tuple[int, int, int],
        args: Sequence[int | float],
        *,
        grain: int,
        shares: int,
        records: int,
    ) -> ctypes.Array[ctypes.c_char]:
        """Lay out a job: what `job.py` says, the arguments, and the counters at zero behind.

        Raises: KernelError if the number of arguments is wrong or one does not fit its type.
        """
        size = self._job_packer.size
        if shares not in self._jobs:
            self._jobs[shares] = ctypes.c_char * (size + COUNTER_BYTES * (shares + 1))
        buffer = self._jobs[shares]()
        counters = (ctypes.addressof(buffer) + size + COUNTER_BYTES - 1) & -COUNTER_BYTES
        if self._fits_as_is:
            try:
                self._pack_job(buffer, 0, grain, shares, counters, records, *grid, *args)
            except (struct.error, OverflowError):
                pass  # an integer that has to wrap, or something that does not fit at all
            else:
                return buffer
        self._pack(self._job_packer, buffer, (grain, shares, counters, records, *grid), args)
        return buffer

    def _pack(
        self,
        packer: struct.Struct,
        buffer: ctypes.Array[ctypes.c_char],
        head: tuple[int, ...],
        args: Sequence[int | float],
    ) -> None:
        if len(args) != self._count:
            raise KernelError(f"takes {self._count} arguments, got {len(args)}", where=self._name)
        values: list[Any] = list(args)
        try:
            for i, bits in self._integers:
                values[i] = _wrapped(operator.index(values[i]), bits)
            for i, rounded in self._floats:
                values[i] = rounded(values[i])
            packer.pack_into(buffer, 0, *head, *values)
        except (struct.error, TypeError, ValueError, OverflowError) as error:
            raise KernelError(f"an argument does not fit: {error}", where=self._name) from None


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


_INTEGER_LETTERS = {"i1": "b7x", "i8": "b7x", "i16": "h6x", "i32": "i4x", "i64": "q"}


def _letter(type_: Type) -> str:
    if type_.is_ptr:
        return "Q"
    if type_.elem == "fp64":
        return "d"
    return "f4x" if type_.is_float else _INTEGER_LETTERS[str(type_.elem)]


def _are_disjoint(extents: Sequence[tuple[int, int]]) -> bool:
    last = 0
    for start, end in sorted(extents):
        if start < end:
            if start < last:
                return False
            last = end
    return True

"""A kernel as machine code: compile, load, launch over a grid on all cores."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from asterope.errors import KernelError
from asterope.host.lower import Lowering
from asterope.host.values import register_kind
from asterope.ir import Kernel, Type, print_kernel
from asterope.native import (
    Counter,
    Isa,
    Library,
    Module,
    Val,
    best_isa,
    load_library,
    num_cores,
    run_on_all_cores,
)

__all__ = ["HostKernel", "write_llvm"]

_SYMBOL = "run_programs"
_INFO = "scratch_bytes"
# Part of every cache key: raise it when the same IR is translated to other code.
_TRANSLATOR_VERSION = 1
_SMALL_WORK = 1 << 18


def write_llvm(kernel: Kernel, isa: Isa, *, disjoint: bool) -> str:
    """Translate a kernel to LLVM IR: `run_programs(args, grid, counter, grain, scratch)`.

    Each thread takes `grain` programs at a time from the shared counter until none is left.
    """
    module = Module(isa)
    fn = module.function(
        _SYMBOL,
        [
            ("ptr", "args"),
            ("ptr", "grid"),
            ("ptr", "counter"),
            ("i64", "grain"),
            ("ptr noalias", "scratch"),
        ],
    )
    args, grid, counter, grain, scratch = fn.args
    low = Lowering(fn, kernel, scratch, disjoint=disjoint)
    for i, value in enumerate(kernel.body.args):
        low.env[value] = fn.load(args.offset(8 * i), _argument_kind(value.type))
    low.grid = [fn.load(grid.offset(4 * i), "i32") for i in range(3)]
    sizes = [g.zext("i64") for g in low.grid]
    total = sizes[0] * sizes[1] * sizes[2]
    first = fn.slot("i64")

    def take() -> Val:
        text = f"atomicrmw add {counter.text}, {grain.text} monotonic"
        fn.store(fn.line(text, "i64"), first)
        return fn.load(first, "i64").lt(total)

    with fn.while_(take):
        start = fn.load(first, "i64")
        end = (start + grain).minimum("smin", total)
        with fn.loop(start, end) as program:
            x = program.op("urem", sizes[0])
            yz = program.op("udiv", sizes[0])
            low.program = [
                v.zext("i32") for v in (x, yz.op("urem", sizes[1]), yz.op("udiv", sizes[1]))
            ]
            with low.scope():
                low.block(kernel.body)
    fn.finish()
    info = module.function(_INFO, [("ptr", "out")])
    info.store(info.const("i64", low.scratch.num_bytes), info.args[0])
    info.finish()
    return module.text()


def _argument_kind(type_: Type) -> str:
    """Return how a scalar argument lies in its 8 bytes; narrow floats are passed as float32."""
    return register_kind(type_)


@dataclass(frozen=True, slots=True)
class _Code:
    library: Library
    run: object
    scratch_bytes: int


class HostKernel:
    """A kernel ready to launch. Machine code is made on first use and kept on disk.

    Two versions exist: one may interleave loads with stores to other arrays, which needs that the
    arrays do not overlap; the other makes no such assumption. `launch` looks at the addresses.
    """

    def __init__(self, kernel: Kernel, isa: Isa | None = None) -> None:
        self.kernel = kernel
        self.isa = isa or best_isa()
        self._text = print_kernel(kernel)
        self._key = hashlib.sha256(self._text.encode()).hexdigest()
        self._codes: dict[bool, _Code] = {}
        self._lock = threading.Lock()
        self._types = [v.type for v in kernel.body.args]
        self._packer = struct.Struct("<" + "".join(_pack_letter(t) for t in self._types))
        self._pointers = [i for i, t in enumerate(self._types) if t.is_ptr]

    def code(self, *, disjoint: bool = True) -> _Code:
        """Return the machine code, compiling it if it is neither in memory nor on disk."""
        found = self._codes.get(disjoint)
        if found is not None:
            return found
        with self._lock:
            key = f"host{_TRANSLATOR_VERSION}|{disjoint}|{self._key}"
            library = load_library(
                key, self.isa, [_SYMBOL, _INFO],
                lambda: write_llvm(self.kernel, self.isa, disjoint=disjoint),
            )  # fmt: skip
            pointer = ctypes.c_void_p
            run = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, ctypes.c_int64, pointer)(
                library.symbols[_SYMBOL]
            )
            size = ctypes.c_int64()
            ctypes.CFUNCTYPE(None, pointer)(library.symbols[_INFO])(ctypes.addressof(size))
            self._codes[disjoint] = _Code(library, run, size.value)
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

        Raises: KernelError if the number of arguments is wrong or one does not fit its type.
        """
        if len(args) != len(self._types):
            raise KernelError(
                f"takes {len(self._types)} arguments, got {len(args)}", where=self.kernel.name
            )
        num_programs = grid[0] * grid[1] * grid[2]
        if num_programs <= 0:
            return
        try:
            packed = self._packer.pack(*map(_packable, self._types, args))
        except (struct.error, TypeError) as error:
            raise KernelError(f"argument does not fit: {error}", where=self.kernel.name) from None
        code = self.code(disjoint=extents is not None and _are_disjoint(extents))
        arguments = ctypes.create_string_buffer(packed)
        sizes = (ctypes.c_int32 * 3)(*grid)
        counter = Counter()
        grain = max(1, num_programs // (num_cores() * 16))
        scratch = threading.local()

        def work(_: int) -> None:
            scratch.area = _scratch(code.scratch_bytes)
            code.run(  # type: ignore[operator]
                ctypes.addressof(arguments), ctypes.addressof(sizes), counter.address, grain,
                scratch.area,
            )  # fmt: skip

        run_on_all_cores(work, num_programs, small=self._is_small(num_programs))

    def _is_small(self, num_programs: int) -> bool:
        """Whether a second core would not pay: the blocks touched are few and small."""
        elements = max(
            (r.type.num_elements for op in self.kernel.walk() for r in op.results), default=1
        )
        return num_programs * elements < _SMALL_WORK


_areas = threading.local()
_ALIGN = 64


def _scratch(num_bytes: int) -> int:
    """Return the address of this thread's scratch memory, grown to at least `num_bytes`."""
    have = getattr(_areas, "size", 0)
    if have < num_bytes:
        _areas.area = ctypes.create_string_buffer(num_bytes + 2 * _ALIGN)
        _areas.size = num_bytes
    elif have == 0:
        return 0
    address = ctypes.addressof(_areas.area)
    return -(-address // _ALIGN) * _ALIGN


def _pack_letter(type_: Type) -> str:
    if type_.is_ptr:
        return "Q"
    if type_.elem == "fp64":
        return "d"
    return "f4x" if type_.is_float else "q"


def _packable(type_: Type, arg: int | float) -> int | float:
    """Wrap an integer argument to its width, as the front end's types do."""
    if not type_.is_int:
        return arg
    value = int(arg) & ((1 << type_.bits) - 1)
    return value - (1 << type_.bits) if type_.bits > 1 and value >> (type_.bits - 1) else value


def _are_disjoint(extents: Sequence[tuple[int, int]]) -> bool:
    ordered = sorted(e for e in extents if e[0] < e[1])
    return all(a[1] <= b[0] for a, b in itertools.pairwise(ordered))

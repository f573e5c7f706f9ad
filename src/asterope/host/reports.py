"""What programs say while they run: generated code that prints and checks, and who listens.

A failed assertion leaves which one, where and in which program in its worker's record, and the
worker returns; no higher program is taken then. All lower ones are, so the failure of the lowest
program of all records is the first in the grid's order. Printing calls back with the addresses of
the operands' elements.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterope.host.values import At, register_kind
from asterope.ir import Kernel, Op, Type, Value, assertion_error, dtype_of, printed
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["Reports", "assert_", "print_", "record_of", "reporting_ops"]

_PRINT = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_DTYPES = {"i1": "u1", "f32": "f4", "f64": "f8", "ptr": "i8"}


class _Record(ctypes.Structure):
    """One worker's record: whom to call to print, and its first failed assertion.

    `site` counts from 1, so that a record of zeros is one of nothing.
    """

    _fields_ = (
        ("print", ctypes.c_void_p),
        ("site", ctypes.c_int64),
        ("program", ctypes.c_int64),
        ("element", ctypes.c_int64),
    )
    print: int | None
    site: int
    program: int
    element: int

    @classmethod
    def offset(cls, name: str) -> int:
        return int(getattr(cls, name).offset)


def reporting_ops(kernel: Kernel) -> list[Op]:
    """Return the ops that print or assert; generated code names them by their place here."""
    return [op for op in kernel.walk() if op.name in ("print", "assert")]


# -- generated code -------------------------------------------------------------------------------
def record_of(records: Val, worker: Val) -> Val:
    """Return where a worker's record lies among those of a job."""
    return records.offset(worker * ctypes.sizeof(_Record))


def _field(low: Lowering, name: str) -> Val:
    assert low.record is not None, "only a reading of values reports"
    return low.record.offset(_Record.offset(name))


def assert_(low: Lowering, op: Op) -> None:
    """Leave the record of the first element that is not set, and stop."""
    fn, (condition,) = low.fn, op.operands
    if not condition.type.shape:
        with fn.if_(~low.scalar(condition)):
            _fail(low, op, fn.const("i64", 0))
        return
    with low.nest(condition.type.shape) as at:
        on = low.evaluate(condition, at).vector(at.lanes)
        with fn.if_(~on.all_lanes()):
            lanes = on.where(fn.const("i64", at.lanes, at.lanes), fn.iota("i64", at.lanes))
            first = fn.call(f"llvm.vector.reduce.umin.v{at.lanes}i64", (lanes,), "i64")
            _fail(low, op, _row_major(low, at, condition.type.shape) + first)


def _row_major(low: Lowering, at: At, shape: tuple[int, ...]) -> Val:
    place = low.fn.const("i64", 0)
    for index, size in zip(at.index, shape, strict=True):
        place = place * size + index
    return place


def _fail(low: Lowering, op: Op, element: Val) -> None:
    assert low.program_index is not None
    for name, value in (
        ("site", low.fn.const("i64", low.sites[op] + 1)),
        ("program", low.program_index),
        ("element", element),
    ):
        low.fn.store(value, _field(low, name))
    low.stop()


def print_(low: Lowering, op: Op) -> None:
    """Call back with the operands in scratch memory, row-major."""
    fn = low.fn
    assert low.program_index is not None
    call = fn.load(_field(low, "print"), "ptr")
    places = fn.slot("ptr", len(op.operands)) if op.operands else fn.const("ptr", 0)
    with low.temporaries() as new:
        for i, value in enumerate(op.operands):
            if value.type.shape:
                buffer = new(value.type)
                low.fill(buffer, value)
                place = buffer.pointer
            else:
                place = fn.slot(register_kind(value.type))
                fn.store(low.scalar(value), place)
            fn.store(place, places.offset(8 * i))
        site = fn.const("i64", low.sites[op])
        operands = ", ".join(v.text for v in (site, low.program_index, places))
        fn.effect(f"call void {call.ref}({operands})")


@functools.cache
def _records(workers: int) -> type[ctypes.Array[_Record]]:
    return _Record * workers


# -- who listens ----------------------------------------------------------------------------------
class Reports:
    """Listens to one launch: writes what programs print, and keeps the first failure."""

    def __init__(self, sites: Sequence[Op], grid: tuple[int, int, int], workers: int) -> None:
        self._sites = sites
        self._grid = grid
        self._interruption: BaseException | None = None
        self._records = _records(workers)()
        self.address = ctypes.addressof(self._records)
        self._call = _PRINT(self._print) if self.prints(sites) else None
        if self._call is not None:
            for record in self._records:
                record.print = ctypes.cast(self._call, ctypes.c_void_p).value

    @staticmethod
    def prints(sites: Sequence[Op]) -> bool:
        """Whether some of the ops print; programs then run one after the other, in order."""
        return any(op.name == "print" for op in sites)

    def finish(self) -> None:
        """Raise what went wrong, if anything did.

        Raises: DeviceAssertError for the first program whose assertion did not hold.
        """
        if self._interruption is not None:
            raise self._interruption
        if not bytes(self._records).strip(b"\0"):
            return
        failed = [r for r in self._records if r.site]
        if failed:
            first = min(failed, key=lambda r: r.program)
            raise assertion_error(
                self._sites[first.site - 1], self._place(first.program), first.element
            )

    def _place(self, program: int) -> tuple[int, int, int]:
        x, y, _ = self._grid
        return program % x, program // x % y, program // (x * y)

    def _print(self, site: int, program: int, places: int) -> None:
        # Python cannot raise through machine code: what happens here is raised after the launch.
        if self._interruption is not None:
            return
        try:
            op = self._sites[site]
            found = (ctypes.c_void_p * len(op.operands)).from_address(places) if places else ()
            values = [_read(a, v) for a, v in zip(found, op.operands, strict=True)]
            sys.stdout.write(printed(op, self._place(program), values))
        except BaseException as error:
            self._interruption = error


def _read(address: int, value: Value) -> npt.NDArray[Any]:
    """Copy a block from scratch memory, in its own element type."""
    type_ = value.type
    held = _held_dtype(type_)
    raw = ctypes.string_at(address, type_.num_elements * held.itemsize)
    return np.frombuffer(raw, held).astype(dtype_of(type_)).reshape(type_.shape)


def _held_dtype(type_: Type) -> np.dtype[Any]:
    kind = register_kind(type_)
    return np.dtype(_DTYPES[kind]) if kind in _DTYPES else dtype_of(type_)

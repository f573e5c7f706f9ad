"""What programs say while they run: generated code that prints and checks, and who listens.

A failed assertion leaves which one, where and in which program in its thread's record, and its
thread returns; threads take no more programs then. Programs are taken in order, so the failure
of the lowest program of all records is the first in the grid's order. Printing calls back with
the addresses of the operands' elements.
"""

from __future__ import annotations

import ctypes
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

__all__ = ["Reports", "assert_", "print_", "reporting_ops"]

_PRINT = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_NONE = -1
_DTYPES = {"i1": "u1", "f32": "f4", "f64": "f8", "ptr": "i8"}


class _Record(ctypes.Structure):
    """One thread's record: whom to call to print, and its first failed assertion."""

    _fields_ = (
        ("print", ctypes.c_void_p),
        ("site", ctypes.c_int64),
        ("program", ctypes.c_int64),
        ("element", ctypes.c_int64),
    )
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
        ("site", low.fn.const("i64", low.sites[op])),
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


# -- who listens ----------------------------------------------------------------------------------
class Reports:
    """Listens to one launch: writes what programs print, and keeps the first failure."""

    def __init__(self, sites: Sequence[Op], grid: tuple[int, int, int]) -> None:
        self._sites = sites
        self._grid = grid
        self._records: list[_Record] = []
        self._interruption: BaseException | None = None
        self._call = _PRINT(self._print) if self.prints(sites) else _PRINT()

    @staticmethod
    def prints(sites: Sequence[Op]) -> bool:
        """Whether some of the ops print; programs then run one after the other, in order."""
        return any(op.name == "print" for op in sites)

    def record(self) -> int:
        """Return the address of a new record, for one thread."""
        address = ctypes.cast(self._call, ctypes.c_void_p).value or 0
        record = _Record(address, _NONE)
        self._records.append(record)
        return ctypes.addressof(record)

    def finish(self) -> None:
        """Raise what went wrong, if anything did.

        Raises: DeviceAssertError for the first program whose assertion did not hold.
        """
        if self._interruption is not None:
            raise self._interruption
        failed = [r for r in self._records if r.site != _NONE]
        if failed:
            first = min(failed, key=lambda r: r.program)
            raise assertion_error(
                self._sites[first.site], self._place(first.program), first.element
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

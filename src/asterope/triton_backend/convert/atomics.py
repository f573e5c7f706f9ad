"""Atomics. All programs see one memory at all times, so `scope` makes no difference."""

from __future__ import annotations

from asterope.ir import Builder
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]

# By the numbers of Triton's enums.
_MEMORY_ORDERS = ("", "relaxed", "acquire", "release", "acq_rel")
_COMBINERS = (
    "", "and", "or", "xor", "add", "fadd", "maxs", "mins", "maxu", "minu", "exchange",
)  # fmt: skip


def _rmw(cv: Converter, op: MlirOp, b: Builder) -> None:
    pointers, value, *masks = (cv.env[v] for v in op.operands)
    combine = _COMBINERS[op.attrs["atomic_rmw_op"]]
    if value.type.is_float and combine not in ("fadd", "exchange"):
        raise unsupported(op, f"an atomic {combine} of {value.type} is not supported")
    # The front end says "everywhere" by a mask that is always on.
    masks = [m for m in masks if not (m.op and m.op.name == "const" and m.op.attrs["value"])]
    order = _MEMORY_ORDERS[op.attrs["sem"]]
    attrs = {"combine": combine, "memory_order": order, "mask": bool(masks)}
    cv.name(op, b.op("atomic_rmw", [pointers, value, *masks], [value.type], attrs).results)


def _cas(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "atomic_cas", memory_order=_MEMORY_ORDERS[op.attrs["sem"]])


RULES: dict[str, Rule] = {"tt.atomic_rmw": _rmw, "tt.atomic_cas": _cas}

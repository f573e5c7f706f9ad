"""Loads and stores."""

from __future__ import annotations

from asterope.ir import Builder
from asterope.triton_backend.convert.block_access import wishes
from asterope.triton_backend.convert.block_pointers import load_block, store_block
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.types import convert_type
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]


def _load(cv: Converter, op: MlirOp, b: Builder) -> None:
    if load_block(cv, op, b):
        return
    pointers, *rest = (cv.env[v] for v in op.operands)
    _, mask, other = op.attrs["operandSegmentSizes"]
    attrs = {"mask": bool(mask), "other": bool(other)} | wishes(op)
    type_ = convert_type(op.results[0].type, op)
    # In memory an address is an i64.
    held = type_.with_elem(pointers.type.pointee)
    if other and rest[-1].type.is_ptr:
        rest[-1] = b.value("ptr_to_int", (rest[-1],), held)
    value = b.op("load", [pointers, *rest], [held], attrs).result
    cv.name(op, [b.value("int_to_ptr", (value,), type_) if type_.is_ptr else value])


def _store(cv: Converter, op: MlirOp, b: Builder) -> None:
    if store_block(cv, op, b):
        return
    pointers, value, *mask = (cv.env[v] for v in op.operands)
    if value.type.is_ptr:
        value = b.value("ptr_to_int", (value,), value.type.with_elem("i64"))
    b.op("store", [pointers, value, *mask], (), {"mask": bool(mask)})


RULES: dict[str, Rule] = {"tt.load": _load, "tt.store": _store}

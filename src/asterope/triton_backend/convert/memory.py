"""Loads and stores."""

from __future__ import annotations

from asterope.ir import Builder
from asterope.triton_backend.convert.block_pointers import load_block, store_block
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]


def _load(cv: Converter, op: MlirOp, b: Builder) -> None:
    if load_block(cv, op, b):
        return
    _, mask, other = op.attrs["operandSegmentSizes"]
    cv.emit(op, b, "load", mask=bool(mask), other=bool(other))


def _store(cv: Converter, op: MlirOp, b: Builder) -> None:
    if store_block(cv, op, b):
        return
    cv.emit(op, b, "store", mask=len(op.operands) == 3)


RULES: dict[str, Rule] = {"tt.load": _load, "tt.store": _store}

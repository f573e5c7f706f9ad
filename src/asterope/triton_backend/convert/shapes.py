"""Ops that change shapes or combine whole blocks: ranges, reductions."""

from __future__ import annotations

from asterope.ir import Builder
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.elementwise import RENAMED
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]


def _range(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "iota", start=op.attrs["start"])


def _expand(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "expand", axis=op.attrs["axis"])


def _transpose(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "transpose", order=tuple(op.attrs["order"]))


def _reduce(cv: Converter, op: MlirOp, b: Builder) -> None:
    (block,) = op.regions[0]
    *body, last = block.ops
    simple = (
        len(op.operands) == 1
        and len(body) == 1
        and body[0].name in RENAMED
        and body[0].operands == block.args
        and last.operands == body[0].results
    )
    if not simple:
        raise unsupported(
            op,
            "a reduction with this combine function is not supported yet",
            "reductions by sum, product, min, max, and, or, xor are",
        )
    cv.emit(op, b, "reduce", axis=op.attrs["axis"], combine=RENAMED[body[0].name])


RULES: dict[str, Rule] = {
    "tt.make_range": _range,
    "tt.expand_dims": _expand,
    "tt.trans": _transpose,
    "tt.reduce": _reduce,
}

"""Ops that make blocks or put their elements elsewhere."""

from __future__ import annotations

from asterope.ir import Builder
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]


def _range(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "iota", start=op.attrs["start"])


def _expand(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "expand", axis=op.attrs["axis"])


def _transpose(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "transpose", order=tuple(op.attrs["order"]))


def _cat(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Put one vector behind another: the two are the rows of a matrix."""
    left, right = (cv.env[v] for v in op.operands)
    (size,) = left.type.shape
    if left.type != right.type:
        raise unsupported(op, f"cat of {left.type} and {right.type} is not supported yet")
    pairs = b.value("join", (left, right), left.type.with_shape((size, 2)))
    rows = b.value("transpose", (pairs,), left.type.with_shape((2, size)), order=(1, 0))
    cv.name(op, [b.value("reshape", (rows,), left.type.with_shape((2 * size,)))])


def _gather(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "gather", axis=op.attrs["axis"])


def _histogram(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "histogram", mask=len(op.operands) == 2)


RULES: dict[str, Rule] = {
    "tt.make_range": _range,
    "tt.expand_dims": _expand,
    "tt.trans": _transpose,
    "tt.cat": _cat,
    "tt.gather": _gather,
    "tt.histogram": _histogram,
}

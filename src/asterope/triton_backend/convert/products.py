"""Matrix products."""

from __future__ import annotations

from asterope.ir import Builder
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]

_SCALED_FORMATS = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "bf16", "fp16")


def _dot(cv: Converter, op: MlirOp, b: Builder) -> None:
    lhs, rhs, acc = (cv.env[v] for v in op.operands)
    if len(acc.type.shape) != 2:
        raise unsupported(op, f"a dot of {lhs.type} and {rhs.type} is not supported yet")
    wide = lhs.type.bits > 16 or rhs.type.bits > 16
    order = "sequential" if wide else "pairs"
    if acc.type.elem not in ("fp16", "bf16"):
        cv.emit(op, b, "dot", order=order)
        return
    # A narrow accumulator is rounded once, after the sum.
    wide_type = acc.type.with_elem("fp32")
    start = b.value("convert", (acc,), wide_type, how="float")
    total = b.value("dot", (lhs, rhs, start), wide_type, order=order)
    cv.name(op, [b.value("convert", (total,), acc.type, how="float")])


def _dot_scaled(cv: Converter, op: MlirOp, b: Builder) -> None:
    _, _, _, a_scale, b_scale = op.attrs["operandSegmentSizes"]
    if not (op.attrs.get("lhs_k_pack", True) and op.attrs.get("rhs_k_pack", True)):
        raise unsupported(op, "dot_scaled packed along M or N is not supported yet")
    formats = [_SCALED_FORMATS[op.attrs[f"{side}_elem_type"]] for side in ("a", "b")]
    cv.emit(
        op, b, "dot_scaled",
        a_format=formats[0], b_format=formats[1],
        a_scale=bool(a_scale), b_scale=bool(b_scale),
    )  # fmt: skip


RULES: dict[str, Rule] = {"tt.dot": _dot, "tt.dot_scaled": _dot_scaled}

"""Control flow, and where a program stands in the grid."""

from __future__ import annotations

from asterope.ir import Block, Builder, Type
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]


def _program_id(cv: Converter, op: MlirOp, b: Builder) -> None:
    name = "program_id" if op.name == "tt.get_program_id" else "num_programs"
    cv.emit(op, b, name, axis=op.attrs["axis"])


def _for(cv: Converter, op: MlirOp, b: Builder) -> None:
    _check_step(cv, op, b)
    stages = op.attrs.get("tt.num_stages")
    new = cv.emit(op, b, "for", **({} if stages is None else {"num_stages": max(1, stages)}))
    new.blocks = [cv.block(op, op.regions[0])]


def _check_step(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Where a step is not known before the launch, check that the loop ends."""
    lo, hi, step = (cv.env[v] for v in op.operands[:3])
    if step.op is not None and step.op.name == "const" and step.op.attrs["value"] > 0:
        return
    bit = Type("i1")
    forward = b.value("cmp", (step, b.const(step.type, 0)), bit, pred="sgt")
    empty = b.value("cmp", (lo, hi), bit, pred="sge")
    ends = b.value("or", (forward, empty), bit)
    b.op("assert", (ends,), (), {"message": "the loop's step is not above 0, so it does not end"})


def _while(cv: Converter, op: MlirOp, b: Builder) -> None:
    new = cv.emit(op, b, "while")
    new.blocks = [cv.block(op, region) for region in op.regions]


def _if(cv: Converter, op: MlirOp, b: Builder) -> None:
    new = cv.emit(op, b, "if")
    empty = Block()
    Builder(empty).op("yield")
    new.blocks = [cv.block(op, r) if r else empty for r in op.regions]


def _yield(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "condition" if op.name == "scf.condition" else "yield")


def _call(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.name(op, cv.call(op, b))


def _dropped(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Say nothing: the op is a promise or a barrier, and programs run one after the other."""


RULES: dict[str, Rule] = {
    "tt.get_program_id": _program_id,
    "tt.get_num_programs": _program_id,
    "scf.for": _for,
    "scf.while": _while,
    "scf.if": _if,
    "scf.yield": _yield,
    "scf.condition": _yield,
    "tt.call": _call,
    "llvm.intr.assume": _dropped,
    "gpu.barrier": _dropped,
    "ttg.barrier": _dropped,
}

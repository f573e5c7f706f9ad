"""Control flow, and where a program stands in the grid."""

from __future__ import annotations

from asterope.ir import Block, Builder
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]


def _program_id(cv: Converter, op: MlirOp, b: Builder) -> None:
    name = "program_id" if op.name == "tt.get_program_id" else "num_programs"
    cv.emit(op, b, name, axis=op.attrs["axis"])


def _for(cv: Converter, op: MlirOp, b: Builder) -> None:
    new = cv.emit(op, b, "for")
    new.blocks = [cv.block(op, op.regions[0])]


def _while(cv: Converter, op: MlirOp, b: Builder) -> None:
    new = cv.emit(op, b, "while")
    new.blocks = [cv.block(op, region) for region in op.regions]


def _if(cv: Converter, op: MlirOp, b: Builder) -> None:
    new = cv.emit(op, b, "if")
    empty = Block()
    Builder(empty).op("yield")
    new.blocks = [cv.block(op, r) if r else empty for r in op.regions]


def _yield(cv: Converter, op: MlirOp, b: Builder) -> None:
    names = {"scf.condition": "condition", "tt.return": "return"}
    cv.emit(op, b, names.get(op.name, "yield"))


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
    "tt.return": _yield,
    "llvm.intr.assume": _dropped,
    "gpu.barrier": _dropped,
    "ttg.barrier": _dropped,
}

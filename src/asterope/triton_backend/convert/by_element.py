"""Ops with a function of the user's for elements: reductions, scans, map_elementwise."""

from __future__ import annotations

from asterope.ir import COMBINERS, OPS, Builder, Engine
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.elementwise import RENAMED
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RULES"]

_MEMORY = (Engine.LOAD, Engine.STORE)


def _named(op: MlirOp) -> str:
    """Return the combiner that the function of a reduction or scan is, "" if it is none."""
    block = op.regions[0][0]
    if len(op.operands) != 1 or len(op.regions[0]) != 1 or len(block.ops) != 2:
        return ""
    only, last = block.ops
    name = RENAMED.get(only.name, "")
    is_whole = only.operands == block.args and last.operands == only.results
    return name if name in COMBINERS and is_whole else ""


def _by_block(cv: Converter, op: MlirOp, b: Builder, name: str, **attrs: object) -> None:
    new = cv.emit(op, b, name, **attrs)
    new.blocks = [cv.block(op, region) for region in op.regions]
    for inner in new.walk():
        if OPS[inner.name].engine in _MEMORY:
            what = f"{inner.name} inside a function for elements is not supported"
            raise unsupported(op, what, "load before, and store after")


def _combined(cv: Converter, op: MlirOp, b: Builder, name: str, **attrs: object) -> None:
    combine = _named(op)
    if combine:
        cv.emit(op, b, name, combine=combine, **attrs)
    else:
        _by_block(cv, op, b, name, **attrs)


def _reduce(cv: Converter, op: MlirOp, b: Builder) -> None:
    _combined(cv, op, b, "reduce", axis=op.attrs["axis"])


def _scan(cv: Converter, op: MlirOp, b: Builder) -> None:
    _combined(cv, op, b, "scan", axis=op.attrs["axis"], reverse=bool(op.attrs["reverse"]))


def _map(cv: Converter, op: MlirOp, b: Builder) -> None:
    _by_block(cv, op, b, "map", pack=op.attrs["pack"])


def _yield(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "yield")


RULES: dict[str, Rule] = {
    "tt.reduce": _reduce,
    "tt.scan": _scan,
    "tt.map_elementwise": _map,
    "tt.reduce.return": _yield,
    "tt.scan.return": _yield,
    "tt.map_elementwise.return": _yield,
}

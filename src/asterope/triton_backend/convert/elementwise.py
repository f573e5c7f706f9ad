"""Elementwise ops, conversions and constants."""

from __future__ import annotations

import difflib

from asterope.ir import Builder
from asterope.triton_backend.convert.converter import Converter, Rule
from asterope.triton_backend.convert.libdevice import MEANINGS, Term
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.convert.types import convert_type, read_number
from asterope.triton_backend.ttir import MlirOp

__all__ = ["RENAMED", "RULES"]

# Ops that only change their name.
RENAMED = {
    "arith.addi": "add", "arith.subi": "sub", "arith.muli": "mul",
    "arith.divsi": "divs", "arith.divui": "divu", "arith.remsi": "rems", "arith.remui": "remu",
    "arith.andi": "and", "arith.ori": "or", "arith.xori": "xor",
    "arith.shli": "shl", "arith.shrsi": "shrs", "arith.shrui": "shru",
    "arith.minsi": "mins", "arith.maxsi": "maxs", "arith.minui": "minu", "arith.maxui": "maxu",
    "tt.mulhiui": "mulhu", "math.absi": "iabs",
    "arith.addf": "fadd", "arith.subf": "fsub", "arith.mulf": "fmul", "arith.divf": "fdiv",
    "arith.remf": "frem", "arith.negf": "fneg", "tt.precise_divf": "fdiv",
    "arith.minnumf": "fmin", "arith.maxnumf": "fmax",
    "arith.minimumf": "fminimum", "arith.maximumf": "fmaximum",
    "tt.bitcast": "bitcast", "arith.bitcast": "bitcast",
    "tt.ptr_to_int": "ptr_to_int", "tt.int_to_ptr": "int_to_ptr",
    "math.exp": "exp", "math.exp2": "exp2", "math.log": "log", "math.log2": "log2",
    "math.log10": "log10", "math.log1p": "log1p", "math.expm1": "expm1",
    "math.sin": "sin", "math.cos": "cos", "math.tanh": "tanh", "math.erf": "erf",
    "math.sqrt": "sqrt", "tt.precise_sqrt": "sqrt", "math.rsqrt": "rsqrt",
    "math.floor": "floor", "math.ceil": "ceil", "math.trunc": "trunc",
    "math.roundeven": "rint", "math.absf": "abs", "math.fma": "fma",
    "tt.splat": "broadcast", "tt.broadcast": "broadcast", "tt.reshape": "reshape",
    "tt.unsplat": "reshape", "tt.join": "join", "tt.split": "split", "tt.addptr": "addptr",
}  # fmt: skip
_CONVERTED = {
    "arith.extsi": "sext", "arith.extui": "zext", "arith.trunci": "trunc",
    "arith.index_cast": "sext", "arith.extf": "float", "arith.truncf": "float",
    "tt.fp_to_fp": "float", "arith.sitofp": "from_signed", "arith.uitofp": "from_unsigned",
    "arith.fptosi": "to_signed", "arith.fptoui": "to_unsigned",
}  # fmt: skip
_INT_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")

_FLOAT_PREDICATES = (
    "", "oeq", "ogt", "oge", "olt", "ole", "one", "ord",
    "ueq", "ugt", "uge", "ult", "ule", "une", "uno", "",
)  # fmt: skip


def _renamed(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, RENAMED[op.name])


def _convert(cv: Converter, op: MlirOp, b: Builder) -> None:
    how = _CONVERTED[op.name]
    source, target = cv.env[op.operands[0]].type, convert_type(op.results[0].type, op)
    if how == "sext" and target.bits < source.bits:
        how = "trunc"
    if source == target:
        cv.name(op, [cv.env[op.operands[0]]])
        return
    extra = {"rounding": "toward_zero"} if op.attrs.get("rounding") == 0 else {}
    cv.emit(op, b, "convert", how=how, **extra)


def _constant(cv: Converter, op: MlirOp, b: Builder) -> None:
    value, type_ = op.attrs["value"], convert_type(op.results[0].type, op)
    if isinstance(value, tuple):
        text = value[1]
        if text.startswith(('"', "[")):
            raise unsupported(op, "constants with different elements are not supported yet")
        value = read_number(text, type_)
    cv.emit(op, b, "const", value=float(value) if type_.is_float else value)


def _poison(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "const", value=0)


def _cmpi(cv: Converter, op: MlirOp, b: Builder) -> None:
    cv.emit(op, b, "cmp", pred=_INT_PREDICATES[op.attrs["predicate"]])


def _cmpf(cv: Converter, op: MlirOp, b: Builder) -> None:
    pred = _FLOAT_PREDICATES[op.attrs["predicate"]]
    if not pred:
        cv.emit(op, b, "const", value=op.attrs["predicate"] != 0).operands.clear()
        return
    cv.emit(op, b, "fcmp", pred=pred)


def _select(cv: Converter, op: MlirOp, b: Builder) -> None:
    """Choose part by part: what is chosen between may be tensor descriptors."""
    condition, first, second = op.operands
    pairs = zip(cv.values([first]), cv.values([second]), strict=True)
    on = cv.env[condition]
    cv.name(op, [b.value("select", (on, x, y), x.type) for x, y in pairs])


def _clamp(cv: Converter, op: MlirOp, b: Builder) -> None:
    x, low, high = (cv.env[v] for v in op.operands)
    suffix = "imum" if op.attrs.get("propagateNan") else ""
    names = (f"fmax{suffix}", f"fmin{suffix}") if suffix else ("fmax", "fmin")
    lowered = b.value(names[0], (x, low), x.type)
    cv.name(op, [b.value(names[1], (lowered, high), x.type)])


def _extern(cv: Converter, op: MlirOp, b: Builder) -> None:
    symbol = str(op.attrs["symbol"])
    meaning = MEANINGS.get(symbol)
    if meaning is None:
        close = difflib.get_close_matches(symbol, MEANINGS, 1)
        hint = f"did you mean {close[0]}?" if close else ""
        raise unsupported(
            op, f"the extern function {symbol} is not one of libdevice's",
            f"{hint} libraries of device code for a GPU cannot be linked here".strip(),
        )  # fmt: skip
    result = meaning(*[Term(b, cv.env[v]) for v in op.operands]).value
    wanted = convert_type(op.results[0].type, op)
    if result.type != wanted:
        given = ", ".join(str(cv.env[v].type) for v in op.operands)
        raise unsupported(op, f"{symbol} of {given} gives {result.type}, not {wanted}")
    cv.name(op, [result])


RULES: dict[str, Rule] = {
    **dict.fromkeys(RENAMED, _renamed),
    **dict.fromkeys(_CONVERTED, _convert),
    "arith.constant": _constant,
    "ub.poison": _poison,
    "arith.cmpi": _cmpi,
    "arith.cmpf": _cmpf,
    "arith.select": _select,
    "tt.clampf": _clamp,
    "tt.extern_elementwise": _extern,
}

"""TTIR to tile IR, op by op. No kernel is recognised: each op becomes what it means."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from asterope.errors import UnsupportedError
from asterope.ir import Block, Builder, Kernel, Op, Param, Ptr, Type, Value, dtype_of, verify
from asterope.triton_backend.ttir import MlirBlock, MlirOp, MlirValue

__all__ = ["SUPPORTED_OPS", "convert_module"]

_ELEMENTS = {
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "index": "i64",
    "f16": "fp16", "bf16": "bf16", "f32": "fp32", "f64": "fp64",
    "f8E4M3FN": "e4m3", "f8E5M2": "e5m2", "f8E4M3FNUZ": "e4m3fnuz", "f8E5M2FNUZ": "e5m2fnuz",
}  # fmt: skip

# Ops that only change their name.
_RENAMED = {
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
    "arith.select": "select", "tt.bitcast": "bitcast", "arith.bitcast": "bitcast",
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
# Names of libdevice functions of one operand, without the `__nv_` and the trailing `f`.
_LIBDEVICE = {
    "exp": "exp", "exp2": "exp2", "log": "log", "log2": "log2", "log10": "log10",
    "log1p": "log1p", "expm1": "expm1", "sin": "sin", "cos": "cos", "tanh": "tanh",
    "erf": "erf", "sqrt": "sqrt", "rsqrt": "rsqrt", "floor": "floor", "ceil": "ceil",
    "trunc": "trunc", "rint": "rint", "nearbyint": "rint", "fabs": "abs",
}  # fmt: skip
_INT_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")
_FLOAT_PREDICATES = (
    "", "oeq", "ogt", "oge", "olt", "ole", "one", "ord",
    "ueq", "ugt", "uge", "ult", "ule", "une", "uno", "",
)  # fmt: skip
_SCALED_FORMATS = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "bf16", "fp16")
_DROPPED = ("llvm.intr.assume", "gpu.barrier", "ttg.barrier")
_HINTS = {
    "cf.cond_br": "put the rest of the kernel under `if` instead of returning early",
    "tt.call": "remove noinline=True",
    "tt.elementwise_inline_asm": "inline assembly is for one GPU; write it in tl operations",
    "tt.make_tensor_descriptor": "use pointers and masks",
    "tt.descriptor_load": "use pointers and masks",
    "tt.descriptor_store": "use pointers and masks",
}


def _unsupported(op: MlirOp, what: str, hint: str = "") -> UnsupportedError:
    return UnsupportedError(
        what,
        where=op.loc or "triton kernel",
        hint=hint or "see docs/triton.md for what is supported",
    )


def _convert_type(text: str, op: MlirOp | None = None) -> Type:
    body, shape = text, tuple[int, ...]()
    if body.startswith("tensor<"):
        dims = body[7:-1].split(", #")[0]
        *sizes, body = _split_dims(dims)
        shape = tuple(int(s) for s in sizes)
    if body.startswith("!tt.ptr<"):
        target = body[8:-1].split(",")[0].strip()
        if target in _ELEMENTS:
            return Type(Ptr(_ELEMENTS[target]), shape)
        raise _unsupported(op or MlirOp(""), f"pointers to {target} are not supported yet")
    if body not in _ELEMENTS:
        hint = _HINTS["tt.make_tensor_descriptor"] if "tensordesc" in text else ""
        raise _unsupported(op or MlirOp(""), f"values of type {text} are not supported yet", hint)
    return Type(_ELEMENTS[body], shape)


def _stem(value: MlirValue) -> str:
    """Return the user's name of a value without the number MLIR added, for people to read."""
    return re.sub(r"_\d+$", "", value.name)


def _split_dims(text: str) -> list[str]:
    """Split `128x64x!tt.ptr<f16>` into sizes and the element."""
    parts = []
    while text[:1].isdigit():
        size, _, text = text.partition("x")
        parts.append(size)
    return [*parts, text]


def _number(text: str, type_: Type) -> float | int | bool:
    """Read one constant: decimal, or hexadecimal bits for floats."""
    if text in ("true", "false"):
        return text == "true"
    if type_.is_int:
        return int(text, 0)
    if not text.startswith("0x"):
        return float(text)
    bits = int(text, 16).to_bytes(type_.bits // 8, "little")
    return float(np.frombuffer(bits, dtype_of(Type(type_.elem)))[0])


class _Converter:
    """Converts one function; `env` maps Triton's values to ours."""

    def __init__(self) -> None:
        self.env: dict[MlirValue, Value] = {}

    def function(self, op: MlirOp, attrs: dict[str, Any]) -> Kernel:
        if len(op.regions[0]) != 1:
            branch = next(q for b in op.regions[0] for q in b.ops if q.name.startswith("cf."))
            raise _unsupported(branch, "returning early is not supported yet", _HINTS["cf.cond_br"])
        (source,) = op.regions[0]
        body = self._enter(source, op)
        given = op.attrs.get("arg_attrs") or [{}] * len(source.args)
        params = [
            Param(value.name or f"arg{i}", int(a.get("tt.divisibility", 1)))
            for i, (value, a) in enumerate(zip(source.args, given, strict=True))
        ]
        self._fill(source, body)
        return Kernel(str(op.attrs["sym_name"]), params, body, attrs)

    # -- blocks ---------------------------------------------------------------------------------
    def _enter(self, source: MlirBlock, op: MlirOp) -> Block:
        block = Block([Value(_convert_type(a.type, op), None, _stem(a)) for a in source.args])
        self.env.update(zip(source.args, block.args, strict=True))
        return block

    def _fill(self, source: MlirBlock, block: Block) -> None:
        builder = Builder(block)
        for op in source.ops:
            builder.loc = op.loc
            self._op(op, builder)

    def _block(self, op: MlirOp, region: list[MlirBlock]) -> Block:
        if len(region) != 1:
            raise _unsupported(op, "branches inside a loop are not supported yet")
        block = self._enter(region[0], op)
        self._fill(region[0], block)
        return block

    # -- ops ------------------------------------------------------------------------------------
    def _op(self, op: MlirOp, b: Builder) -> None:
        if op.name in _DROPPED:
            return
        special = _SPECIAL.get(op.name)
        if special:
            special(self, op, b)
        elif op.name in _RENAMED:
            self._emit(op, b, _RENAMED[op.name])
        elif op.name in _CONVERTED:
            self._convert(op, b)
        else:
            raise _unsupported(op, f"{op.name} is not supported yet", _HINTS.get(op.name, ""))

    def _emit(self, op: MlirOp, b: Builder, name: str, **attrs: Any) -> Op:
        operands = [self.env[v] for v in op.operands]
        new = b.op(name, operands, [_convert_type(r.type, op) for r in op.results], attrs)
        self._name(op, new.results)
        return new

    def _name(self, op: MlirOp, values: list[Value]) -> None:
        for theirs, ours in zip(op.results, values, strict=True):
            ours.hint = _stem(theirs)
            self.env[theirs] = ours

    def _convert(self, op: MlirOp, b: Builder) -> None:
        how = _CONVERTED[op.name]
        source, target = self.env[op.operands[0]].type, _convert_type(op.results[0].type, op)
        if how == "sext" and target.bits < source.bits:
            how = "trunc"
        if source == target:
            self._name(op, [self.env[op.operands[0]]])
            return
        extra = {"rounding": "toward_zero"} if op.attrs.get("rounding") == 0 else {}
        self._emit(op, b, "convert", how=how, **extra)

    def _constant(self, op: MlirOp, b: Builder) -> None:
        value, type_ = op.attrs["value"], _convert_type(op.results[0].type, op)
        if isinstance(value, tuple):
            text = value[1]
            if text.startswith(('"', "[")):
                raise _unsupported(op, "constants with different elements are not supported yet")
            value = _number(text, type_)
        self._emit(op, b, "const", value=float(value) if type_.is_float else value)

    def _poison(self, op: MlirOp, b: Builder) -> None:
        self._emit(op, b, "const", value=0)

    def _range(self, op: MlirOp, b: Builder) -> None:
        self._emit(op, b, "iota", start=op.attrs["start"])

    def _expand(self, op: MlirOp, b: Builder) -> None:
        self._emit(op, b, "expand", axis=op.attrs["axis"])

    def _transpose(self, op: MlirOp, b: Builder) -> None:
        self._emit(op, b, "transpose", order=tuple(op.attrs["order"]))

    def _cmpi(self, op: MlirOp, b: Builder) -> None:
        self._emit(op, b, "cmp", pred=_INT_PREDICATES[op.attrs["predicate"]])

    def _cmpf(self, op: MlirOp, b: Builder) -> None:
        pred = _FLOAT_PREDICATES[op.attrs["predicate"]]
        if not pred:
            self._emit(op, b, "const", value=op.attrs["predicate"] != 0).operands.clear()
            return
        self._emit(op, b, "fcmp", pred=pred)

    def _clamp(self, op: MlirOp, b: Builder) -> None:
        x, low, high = (self.env[v] for v in op.operands)
        suffix = "imum" if op.attrs.get("propagateNan") else ""
        names = (f"fmax{suffix}", f"fmin{suffix}") if suffix else ("fmax", "fmin")
        lowered = b.value(names[0], (x, low), x.type)
        self._name(op, [b.value(names[1], (lowered, high), x.type)])

    def _program_id(self, op: MlirOp, b: Builder) -> None:
        name = "program_id" if op.name == "tt.get_program_id" else "num_programs"
        self._emit(op, b, name, axis=op.attrs["axis"])

    def _load(self, op: MlirOp, b: Builder) -> None:
        _, mask, other = op.attrs["operandSegmentSizes"]
        self._emit(op, b, "load", mask=bool(mask), other=bool(other))

    def _store(self, op: MlirOp, b: Builder) -> None:
        self._emit(op, b, "store", mask=len(op.operands) == 3)

    def _dot(self, op: MlirOp, b: Builder) -> None:
        lhs, rhs, acc = (self.env[v] for v in op.operands)
        if len(acc.type.shape) != 2:
            raise _unsupported(op, f"a dot of {lhs.type} and {rhs.type} is not supported yet")
        wide = lhs.type.bits > 16 or rhs.type.bits > 16
        order = "sequential" if wide else "pairs"
        if acc.type.elem not in ("fp16", "bf16"):
            self._emit(op, b, "dot", order=order)
            return
        # A narrow accumulator is rounded once, after the sum.
        wide_type = acc.type.with_elem("fp32")
        start = b.value("convert", (acc,), wide_type, how="float")
        total = b.value("dot", (lhs, rhs, start), wide_type, order=order)
        self._name(op, [b.value("convert", (total,), acc.type, how="float")])

    def _dot_scaled(self, op: MlirOp, b: Builder) -> None:
        _, _, _, a_scale, b_scale = op.attrs["operandSegmentSizes"]
        if not (op.attrs.get("lhs_k_pack", True) and op.attrs.get("rhs_k_pack", True)):
            raise _unsupported(op, "dot_scaled packed along M or N is not supported yet")
        formats = [_SCALED_FORMATS[op.attrs[f"{side}_elem_type"]] for side in ("a", "b")]
        self._emit(
            op, b, "dot_scaled",
            a_format=formats[0], b_format=formats[1],
            a_scale=bool(a_scale), b_scale=bool(b_scale),
        )  # fmt: skip

    def _reduce(self, op: MlirOp, b: Builder) -> None:
        (block,) = op.regions[0]
        *body, last = block.ops
        simple = (
            len(op.operands) == 1
            and len(body) == 1
            and body[0].name in _RENAMED
            and body[0].operands == block.args
            and last.operands == body[0].results
        )
        if not simple:
            raise _unsupported(
                op,
                "a reduction with this combine function is not supported yet",
                "reductions by sum, product, min, max, and, or, xor are",
            )
        self._emit(op, b, "reduce", axis=op.attrs["axis"], combine=_RENAMED[body[0].name])

    def _extern(self, op: MlirOp, b: Builder) -> None:
        symbol = str(op.attrs["symbol"])
        stem = symbol.removeprefix("__nv_").removeprefix("fast_")
        name = _LIBDEVICE.get(stem) or _LIBDEVICE.get(stem.removesuffix("f"))
        if name is None or len(op.operands) != 1:
            raise _unsupported(op, f"the extern function {symbol} is not supported yet")
        self._emit(op, b, name)

    # -- control flow ---------------------------------------------------------------------------
    def _for(self, op: MlirOp, b: Builder) -> None:
        new = self._emit(op, b, "for")
        new.blocks = [self._block(op, op.regions[0])]

    def _while(self, op: MlirOp, b: Builder) -> None:
        new = self._emit(op, b, "while")
        new.blocks = [self._block(op, region) for region in op.regions]

    def _if(self, op: MlirOp, b: Builder) -> None:
        new = self._emit(op, b, "if")
        empty = Block()
        Builder(empty).op("yield")
        new.blocks = [self._block(op, r) if r else empty for r in op.regions]

    def _yield(self, op: MlirOp, b: Builder) -> None:
        names = {"scf.condition": "condition", "tt.return": "return"}
        self._emit(op, b, names.get(op.name, "yield"))


_SPECIAL: dict[str, Callable[[_Converter, MlirOp, Builder], None]] = {
    "arith.constant": _Converter._constant,
    "ub.poison": _Converter._poison,
    "arith.cmpi": _Converter._cmpi,
    "arith.cmpf": _Converter._cmpf,
    "tt.clampf": _Converter._clamp,
    "tt.make_range": _Converter._range,
    "tt.expand_dims": _Converter._expand,
    "tt.trans": _Converter._transpose,
    "tt.get_program_id": _Converter._program_id,
    "tt.get_num_programs": _Converter._program_id,
    "tt.load": _Converter._load,
    "tt.store": _Converter._store,
    "tt.dot": _Converter._dot,
    "tt.dot_scaled": _Converter._dot_scaled,
    "tt.reduce": _Converter._reduce,
    "tt.extern_elementwise": _Converter._extern,
    "scf.for": _Converter._for,
    "scf.while": _Converter._while,
    "scf.if": _Converter._if,
    "scf.yield": _Converter._yield,
    "scf.condition": _Converter._yield,
    "tt.return": _Converter._yield,
}


SUPPORTED_OPS = tuple(sorted({*_RENAMED, *_CONVERTED, *_SPECIAL}))


def convert_module(module: MlirOp, attrs: dict[str, Any] | None = None) -> Kernel:
    """Convert the kernel of a Triton module to tile IR, verified.

    Raises: UnsupportedError naming the op, the line of the user's kernel, and a way round.
    """
    functions = [op for op in module.regions[0][0].ops if op.name == "tt.func"]
    public = [f for f in functions if f.attrs.get("sym_visibility") == "public"]
    kernel = _Converter().function(public[0], dict(attrs or {}))
    verify(kernel)
    return kernel

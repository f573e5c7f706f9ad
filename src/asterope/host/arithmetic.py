"""Elementwise ops in generated code, on scalars and vectors alike."""

from __future__ import annotations

import math
from collections.abc import Callable

from asterope.formats import ELEMENTS, emit_decode, emit_encode
from asterope.host.division import divide
from asterope.host.values import NARROW_FLOATS, register_kind, round_narrow
from asterope.ir import Op, Type, Value
from asterope.native import BINARY_FUNCTIONS, BITS, FUNCTIONS, Val, apply_directed, apply_function

__all__ = ["ARITHMETIC", "FUNCTION_OPS", "combine"]

Emit = Callable[[Op, list[Val]], Val]

FUNCTION_OPS = (*FUNCTIONS, *BINARY_FUNCTIONS)


# -- integers -----------------------------------------------------------------------------------
def _int(name: str, on_bool: str = "") -> Emit:
    def emit(op: Op, v: list[Val]) -> Val:
        return v[0].op(on_bool if on_bool and v[0].kind == "i1" else name, v[1])

    return emit


def _divide(name: str) -> Emit:
    """Divide; by zero gives 0, a remainder by zero gives a, and the one overflow wraps."""

    def emit(op: Op, v: list[Val]) -> Val:
        a, b = v
        if a.kind == "i1":
            return a & b if name[1:] == "div" else a & ~b
        zero = b.eq(0)
        safe = zero.where(b.like(1), b)
        if name[0] == "s":
            # INT_MIN / -1 traps on x86: divide by 1 and negate instead.
            minus_one = safe.eq(-1)
            safe = minus_one.where(b.like(1), safe)
            quotient = a.op("sdiv", safe)
            if name == "sdiv":
                return zero.where(a.like(0), minus_one.where(-quotient, quotient))
            return zero.where(a, a.op("srem", safe))
        result = a.op(name, safe)
        return zero.where(a.like(0) if name == "udiv" else a, result)

    return emit


def _shift(name: str) -> Emit:
    def emit(op: Op, v: list[Val]) -> Val:
        a, b = v
        if a.kind == "i1":
            return a if name == "ashr" else a & ~b
        width = BITS[a.kind]
        over = b.cmp("uge", width)
        amount = over.where(b.like(width - 1), b)
        shifted = a.op(name, amount)
        return shifted if name == "ashr" else over.where(a.like(0), shifted)

    return emit


def _min_max(name: str) -> Emit:
    # As a signed bit, true is -1: the minimum of i1 is "or".
    on_bool = {"smin": "or", "smax": "and", "umin": "and", "umax": "or"}[name]

    def emit(op: Op, v: list[Val]) -> Val:
        if v[0].kind == "i1":
            return v[0].op(on_bool, v[1])
        return v[0].minimum(name, v[1])

    return emit


def _mulhu(op: Op, v: list[Val]) -> Val:
    kind = v[0].kind
    if kind == "i1":
        return v[0].like(0)
    bits = BITS[kind]
    wide = f"i{2 * bits}"
    product = v[0].zext(wide) * v[1].zext(wide)
    return (product >> bits).zext(kind)


def _iabs(op: Op, v: list[Val]) -> Val:
    return v[0].lt(0).where(-v[0], v[0])


def _bits(name: str, *, flips_bool: bool = False) -> Emit:
    """Apply an intrinsic that looks at the bits of an integer."""

    def emit(op: Op, v: list[Val]) -> Val:
        a = v[0]
        if a.kind == "i1":
            return ~a if flips_bool else a
        return a.fn.count_zeros(name, a) if flips_bool else a.unary(name)

    return emit


def _cmp(op: Op, v: list[Val]) -> Val:
    return v[0].cmp(str(op.attrs["pred"]), v[1])


# -- floats -------------------------------------------------------------------------------------
def _float(emit_wide: Callable[[list[Val]], Val]) -> Emit:
    def emit(op: Op, v: list[Val]) -> Val:
        return round_narrow(emit_wide(v), op.result.type)

    return emit


_EXTREMES = {
    128: "llvm.x86.sse.{}.ps", 256: "llvm.x86.avx.{}.ps.256", 512: "llvm.x86.avx512.{}.ps.512",
}  # fmt: skip


def _extreme(beats: str, *, keep_nan: bool) -> Callable[[list[Val]], Val]:
    """Choose b where it beats a; of equals (also of zeros) a. NaN loses, or wins if kept."""

    def emit(v: list[Val]) -> Val:
        a, b = v
        if keep_nan:
            return a.is_nan().where(a, b.cmp(f"u{beats}", a).where(b, a))
        width = a.lanes * 32
        if a.kind == "f32" and a.fn.isa.has_wide_masks and width in _EXTREMES:
            # Of equals, or where one is NaN, the instruction gives its second operand.
            name = _EXTREMES[width].format("max" if beats == "gt" else "min")
            rounding = (a.fn.const("i32", 4),) if width == 512 else ()
            return a.is_nan().where(b, a.fn.call(name, (b, a, *rounding), "f32", a.lanes))
        return (a.is_nan() | b.cmp(f"o{beats}", a)).where(b, a)

    return emit


def _function(name: str) -> Emit:
    return _float(lambda v: apply_function(name, *v))


def _directed(op: Op, v: list[Val]) -> Val:
    return apply_directed(str(op.attrs["of"]), str(op.attrs["rounding"]), *v)


def _select(op: Op, v: list[Val]) -> Val:
    return v[0].where(v[1], v[2])


# -- conversions --------------------------------------------------------------------------------
def _convert(op: Op, v: list[Val]) -> Val:
    how, source, target = op.attrs["how"], op.operands[0].type, op.result.type
    kind = register_kind(target)
    if how == "float":
        return _convert_float(op, v[0], source, target)
    if how in ("from_signed", "from_unsigned"):
        return round_narrow(v[0].to_float(kind, signed=how == "from_signed"), target)
    if how in ("to_signed", "to_unsigned"):
        return v[0].to_int(kind, signed=how == "to_signed")
    return v[0].sext(kind) if how == "sext" else v[0].zext(kind)


def _convert_float(op: Op, x: Val, source: Type, target: Type) -> Val:
    """Convert between float formats; to fp8 saturates."""
    toward_zero = op.attrs.get("rounding") == "toward_zero"
    if target.elem == "fp64":
        return x.fext("f64")
    if source.elem == "fp64":
        x = _cut_to_f32(x) if toward_zero else x.fext("f32")
    if target.elem not in NARROW_FLOATS:
        return x
    if not toward_zero:
        return round_narrow(x, target)
    fmt = ELEMENTS[str(target.elem)]
    cut = emit_decode(emit_encode(x, fmt, rounding="toward_zero"), fmt)
    if target.elem in ("fp16", "bf16"):
        return apply_function("abs", x).eq(math.inf).where(x, cut)
    return cut


def _cut_to_f32(x: Val) -> Val:
    """Round float64 to float32 toward zero: where nearest went away from zero, go back one."""
    near = x.fext("f32")
    grew = apply_function("abs", near.fext("f64")).cmp("ogt", apply_function("abs", x))
    # Overflow grew too, from a finite number: the code below infinity is the largest.
    grew = grew & apply_function("abs", x).cmp("olt", math.inf)
    bits = near.bits_as("i32")
    return grew.where(bits - 1, bits).bits_as("f32")


def _bitcast(op: Op, v: list[Val]) -> Val:
    source, target = op.operands[0].type, op.result.type
    bits = v[0]
    if source.elem in NARROW_FLOATS:
        bits = emit_encode(v[0], ELEMENTS[str(source.elem)], overflow="special").zext(
            f"i{source.bits}"
        )
    if target.elem in NARROW_FLOATS:
        return emit_decode(bits.bits_as(f"i{target.bits}"), ELEMENTS[str(target.elem)])
    return bits.bits_as(register_kind(target))


def _to_int(op: Op, v: list[Val]) -> Val:
    return v[0].fn.line(f"ptrtoint {v[0].text} to {_lanes_of(v[0], 'i64')}", "i64", v[0].lanes)


def _to_pointer(op: Op, v: list[Val]) -> Val:
    return v[0].fn.line(f"inttoptr {v[0].text} to {_lanes_of(v[0], 'ptr')}", "ptr", v[0].lanes)


def _lanes_of(value: Val, kind: str) -> str:
    return f"<{value.lanes} x {kind}>" if value.lanes else kind


def _addptr(op: Op, v: list[Val]) -> Val:
    size = max(1, Type(op.result.type.pointee).bits // 8)
    return v[0].offset(v[1].sext("i64") * size)


ARITHMETIC: dict[str, Emit] = {
    "add": _int("add"), "sub": _int("sub"), "mul": _int("mul", "and"),
    "and": _int("and"), "or": _int("or"), "xor": _int("xor"),
    "divs": _divide("sdiv"), "divu": _divide("udiv"),
    "rems": _divide("srem"), "remu": _divide("urem"),
    "shl": _shift("shl"), "shrs": _shift("ashr"), "shru": _shift("lshr"),
    "mins": _min_max("smin"), "maxs": _min_max("smax"),
    "minu": _min_max("umin"), "maxu": _min_max("umax"),
    "bit_count": _bits("ctpop"), "bit_reverse": _bits("bitreverse"),
    "leading_zeros": _bits("ctlz", flips_bool=True),
    "trailing_zeros": _bits("cttz", flips_bool=True),
    "mulhu": _mulhu, "iabs": _iabs, "cmp": _cmp, "fcmp": _cmp, "select": _select,
    "fadd": _float(lambda v: v[0] + v[1]), "fsub": _float(lambda v: v[0] - v[1]),
    "fmul": _float(lambda v: v[0] * v[1]), "fdiv": _float(lambda v: divide(*v)),
    "frem": _float(lambda v: v[0].op("frem", v[1])),
    "fmin": _float(_extreme("lt", keep_nan=False)), "fmax": _float(_extreme("gt", keep_nan=False)),
    "fminimum": _float(_extreme("lt", keep_nan=True)),
    "fmaximum": _float(_extreme("gt", keep_nan=True)),
    "fneg": lambda op, v: -v[0], "fma": _float(lambda v: v[0].fma(v[1], v[2])),
    **{name: _function(name) for name in FUNCTION_OPS},
    "abs": lambda op, v: apply_function("abs", v[0]),
    "directed": _directed, "convert": _convert, "bitcast": _bitcast,
    "ptr_to_int": _to_int, "int_to_ptr": _to_pointer, "addptr": _addptr,
}  # fmt: skip


def combine(name: str, type_: Type, a: Val, b: Val) -> Val:
    """Apply a reduction's combiner to two values of one element type."""
    op = Op(name, [], {}, [])
    op.results = [Value(type_, op)]
    return ARITHMETIC[name](op, [a, b])

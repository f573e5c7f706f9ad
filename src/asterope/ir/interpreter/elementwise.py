"""What each elementwise op means, on NumPy arrays.

Floats narrower than fp32 are widened to fp32, and the result is rounded back to nearest even.
Functions are computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from asterope.formats import fma32, reference_decode, reference_encode
from asterope.ir.interpreter.directed import directed
from asterope.ir.interpreter.functions import FUNCTIONS
from asterope.ir.program import Op
from asterope.ir.types import Type

__all__ = ["ELEMENTWISE", "dtype_of", "fma", "narrow", "signed"]

Array = npt.NDArray[Any]

_DTYPES: dict[str, Any] = {
    "i1": np.bool_, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float32, "fp64": np.float64,
    "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
}  # fmt: skip
_FP8 = ("e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz")


def dtype_of(type_: Type) -> np.dtype[Any]:
    """Return the NumPy type that holds one element; an address is an int64."""
    return np.dtype(np.int64) if type_.is_ptr else np.dtype(_DTYPES[str(type_.elem)])


def _unsigned(a: Array) -> Array:
    return a if a.dtype == np.bool_ else a.view(f"u{a.dtype.itemsize}")


def _wide(a: Array) -> Array:
    return a if a.dtype == np.float64 else a.astype(np.float32)


def narrow(a: Array, type_: Type) -> Array:
    """Round float32 or float64 values to the element of a float type."""
    if type_.elem in _FP8:
        codes = reference_encode(a.astype(np.float32), str(type_.elem), overflow="saturate")
        return codes.view(dtype_of(type_))
    return a.astype(dtype_of(type_))


# -- integers -----------------------------------------------------------------------------------
def _on_bits(f: Callable[[Array, Array], Array], on_bool: Callable[[Array, Array], Array]) -> Any:
    def run(op: Op, a: Array, b: Array) -> Array:
        return on_bool(a, b) if a.dtype == np.bool_ else f(a, b).astype(a.dtype)

    return run


def _nonzero(b: Array) -> Array:
    return np.where(b == 0, np.ones_like(b), b)


def _divs(a: Array, b: Array) -> Array:
    d = _nonzero(b)
    quotient = np.floor_divide(a, d)
    inexact = (a - quotient * d) != 0
    towards_zero = quotient + (inexact & ((a < 0) != (d < 0)))
    return np.where(b == 0, np.zeros_like(a), towards_zero)


def _rems(a: Array, b: Array) -> Array:
    return np.where(b == 0, a, a - _divs(a, b) * b)


def _divu(a: Array, b: Array) -> Array:
    quotient = np.floor_divide(_unsigned(a), _unsigned(_nonzero(b)))
    return np.where(b == 0, np.zeros_like(a), quotient.view(a.dtype))


def _remu(a: Array, b: Array) -> Array:
    return np.where(b == 0, a, np.remainder(_unsigned(a), _unsigned(_nonzero(b))).view(a.dtype))


def _shift(kind: str) -> Callable[[Array, Array], Array]:
    def run(a: Array, b: Array) -> Array:
        width = a.dtype.itemsize * 8
        unsigned, amount = _unsigned(a), _unsigned(b)
        over = amount >= width
        by = np.minimum(amount, width - 1).astype(unsigned.dtype)
        if kind == "shrs":
            signed: Array = np.right_shift(a, by.astype(a.dtype))
            return signed
        shifted = unsigned << by if kind == "shl" else unsigned >> by
        return np.where(over, np.zeros_like(unsigned), shifted).view(a.dtype)

    return run


def _mulhu(a: Array, b: Array) -> Array:
    width = a.dtype.itemsize * 8
    pairs = zip(_unsigned(a).reshape(-1).tolist(), _unsigned(b).reshape(-1).tolist(), strict=True)
    high = np.array([x * y >> width for x, y in pairs], dtype=f"u{a.dtype.itemsize}")
    return high.reshape(a.shape).view(a.dtype)


def _bits_of(a: Array) -> list[str]:
    """Write the bits of integers as text, highest first."""
    width = a.dtype.itemsize * 8
    return [f"{x:0{width}b}" for x in _unsigned(a).reshape(-1).tolist()]


def _of_bits(f: Callable[[str], int], on_bool: Callable[[Array], Array]) -> Any:
    def run(op: Op, a: Array) -> Array:
        if a.dtype == np.bool_:
            return on_bool(a)
        found = np.array([f(bits) for bits in _bits_of(a)], dtype=f"u{a.dtype.itemsize}")
        return found.reshape(a.shape).view(a.dtype)

    return run


def _minmax_unsigned(f: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def run(a: Array, b: Array) -> Array:
        found: Array = f(_unsigned(a), _unsigned(b)).view(a.dtype)
        return found

    return run


def _same(a: Array, _: Array) -> Array:
    return a


_INTEGER: dict[str, Any] = {
    "add": _on_bits(np.add, np.logical_xor),
    "sub": _on_bits(np.subtract, np.logical_xor),
    "mul": _on_bits(np.multiply, np.logical_and),
    "and": _on_bits(np.bitwise_and, np.logical_and),
    "or": _on_bits(np.bitwise_or, np.logical_or),
    "xor": _on_bits(np.bitwise_xor, np.logical_xor),
    "divs": _on_bits(_divs, np.logical_and),
    "divu": _on_bits(_divu, np.logical_and),
    "rems": _on_bits(_rems, lambda a, b: a & ~b),
    "remu": _on_bits(_remu, lambda a, b: a & ~b),
    "shl": _on_bits(_shift("shl"), lambda a, b: a & ~b),
    "shrs": _on_bits(_shift("shrs"), _same),
    "shru": _on_bits(_shift("shru"), lambda a, b: a & ~b),
    # As a signed bit, true is -1.
    "mins": _on_bits(np.minimum, np.logical_or),
    "maxs": _on_bits(np.maximum, np.logical_and),
    "minu": _on_bits(_minmax_unsigned(np.minimum), np.logical_and),
    "maxu": _on_bits(_minmax_unsigned(np.maximum), np.logical_or),
    "mulhu": _on_bits(_mulhu, lambda a, b: np.zeros_like(a)),
    "iabs": lambda op, a: np.abs(a),
    "bit_count": _of_bits(lambda bits: bits.count("1"), np.copy),
    "leading_zeros": _of_bits(lambda bits: len(bits) - len(bits.lstrip("0")), np.logical_not),
    "trailing_zeros": _of_bits(lambda bits: len(bits) - len(bits.rstrip("0")), np.logical_not),
    "bit_reverse": _of_bits(lambda bits: int(bits[::-1], 2), np.copy),
}


# -- floats ---------------------------------------------------------------------------------------
def _float(f: Callable[..., Array]) -> Any:
    def run(op: Op, *args: Array) -> Array:
        return narrow(np.asarray(f(*[_wide(a) for a in args])), op.result.type)

    return run


def _function(f: Callable[..., Array]) -> Any:
    def run(op: Op, *args: Array) -> Array:
        wide = [a if a.dtype == np.int32 else a.astype(np.float64) for a in args]
        return narrow(np.asarray(f(*wide)), op.result.type)

    return run


def _fma_one(a: float, b: float, c: float) -> float:
    """Return a b + c of float64 numbers, rounded once."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c  # whatever the product, which is finite though float64 may not hold it
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # the sign of a zero
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


_fma64 = np.vectorize(_fma_one, otypes=[np.float64])


def fma(a: Array, b: Array, c: Array) -> Array:
    """Return a b + c in fp64 if the operands are, else in fp32, rounded once."""
    if a.dtype == np.float64:
        return np.asarray(_fma64(a, b, c))
    return fma32(a, b, c)


def _extreme(beats: Callable[[Array, Array], Array], *, keep_nan: bool) -> Callable[..., Array]:
    """Choose b where it beats a; of equals (also of zeros) a. NaN loses, or wins if kept."""

    def run(a: Array, b: Array) -> Array:
        if keep_nan:
            return np.where(np.isnan(a), a, np.where(np.isnan(b) | beats(b, a), b, a))
        return np.where(np.isnan(a) | beats(b, a), b, a)

    return run


_FLOAT: dict[str, Any] = {
    "fadd": _float(np.add), "fsub": _float(np.subtract),
    "fmul": _float(np.multiply), "fdiv": _float(np.divide), "frem": _float(np.fmod),
    "fmin": _float(_extreme(np.less, keep_nan=False)),
    "fmax": _float(_extreme(np.greater, keep_nan=False)),
    "fminimum": _float(_extreme(np.less, keep_nan=True)),
    "fmaximum": _float(_extreme(np.greater, keep_nan=True)),
    "fneg": lambda op, a: -a, "abs": lambda op, a: np.abs(a), "fma": _float(fma),
    "floor": _float(np.floor), "ceil": _float(np.ceil), "trunc": _float(np.trunc),
    "rint": _float(np.rint), "sqrt": _float(np.sqrt),
    "exp": _function(np.exp), "exp2": _function(np.exp2), "log": _function(np.log),
    "log2": _function(np.log2), "log10": _function(np.log10), "log1p": _function(np.log1p),
    "expm1": _function(np.expm1), "sin": _function(np.sin), "cos": _function(np.cos),
    "tanh": _function(np.tanh),
    "rsqrt": _function(lambda a: 1.0 / np.sqrt(a)), **{
        name: _function(f) for name, f in FUNCTIONS.items()
    },
    "directed": directed,
}  # fmt: skip

# -- comparison, choice, conversion ---------------------------------------------------------------
_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def _cmp(op: Op, a: Array, b: Array) -> Array:
    pred = str(op.attrs["pred"])
    if pred in ("eq", "ne"):
        return np.asarray(_COMPARE[pred](a, b))
    if a.dtype == np.bool_:
        a, b = (x.astype(np.int8) * (-1 if pred[0] == "s" else 1) for x in (a, b))
    if pred[0] == "u":
        a, b = _unsigned(a), _unsigned(b)
    return np.asarray(_COMPARE[pred[1:]](a, b))


def _fcmp(op: Op, a: Array, b: Array) -> Array:
    x, y = _wide(a), _wide(b)
    nan = np.isnan(x) | np.isnan(y)
    pred = str(op.attrs["pred"])
    if pred in ("ord", "uno"):
        return nan if pred == "uno" else ~nan
    ordered = _COMPARE[pred[1:]](x, y) & ~nan
    return np.asarray(ordered | nan if pred[0] == "u" else ordered)


def _select(op: Op, c: Array, a: Array, b: Array) -> Array:
    return np.where(c, a, b)


def _to_int(a: Array, type_: Type, *, signed: bool) -> Array:
    """Round to zero, saturate; NaN becomes 0."""
    bits = type_.bits
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = [
        0 if math.isnan(x) else high if x >= high else low if x <= low else int(x)
        for x in a.astype(np.float64).reshape(-1).tolist()
    ]
    if type_.elem == "i1":
        return np.array(values, np.bool_).reshape(a.shape)
    raw = np.array([v & ((1 << bits) - 1) for v in values], dtype=f"u{bits // 8}")
    return raw.reshape(a.shape).view(dtype_of(type_))


def _convert_float(op: Op, a: Array) -> Array:
    target = op.result.type
    if target.elem == "fp64":
        return a.astype(np.float64)
    toward_zero = op.attrs.get("rounding") == "toward_zero"
    # Narrower formats are reached through float32.
    x = _toward_zero32(a) if toward_zero else a.astype(np.float32)
    if not toward_zero or target.elem == "fp32":
        return narrow(x, target)
    codes = reference_encode(x, str(target.elem), rounding="toward_zero", overflow="saturate")
    cut = codes.view(dtype_of(target))
    return cut if target.elem in _FP8 else np.where(np.isinf(x), narrow(x, target), cut)


def _toward_zero32(a: Array) -> Array:
    near = a.astype(np.float32)
    if a.dtype != np.float64:
        return near
    grew = np.isfinite(a) & (np.abs(near.astype(np.float64)) > np.abs(a))
    return np.where(grew, np.nextafter(near, np.float32(0)), near)


def _convert(op: Op, a: Array) -> Array:
    how, target = op.attrs["how"], op.result.type
    dtype = dtype_of(target)
    if how == "float":
        return _convert_float(op, a)
    if how in ("to_signed", "to_unsigned"):
        return _to_int(_wide(a), target, signed=how == "to_signed")
    if how == "trunc":
        return (a & 1).astype(np.bool_) if dtype == np.bool_ else a.astype(dtype)
    signed = how in ("sext", "from_signed")
    source = -a.astype(np.int8) if a.dtype == np.bool_ and signed else a
    if a.dtype == np.bool_ and not signed:
        source = a.astype(np.uint8)
    elif not signed:
        source = _unsigned(a)
    if how in ("from_signed", "from_unsigned"):
        # Narrower formats are reached through float32.
        return narrow(source.astype(np.float64 if target.elem == "fp64" else np.float32), target)
    return source.astype(dtype)


def _bitcast(op: Op, a: Array) -> Array:
    dtype = dtype_of(op.result.type)
    return a.astype(dtype) if np.bool_ in (a.dtype, dtype) else a.view(dtype)


def decode_codes(codes: Array, fmt: str) -> Array:
    """Decode the codes of a format, or widen values that already are numbers."""
    if codes.dtype.kind in "iu":
        return reference_decode(codes.view(np.uint8), fmt)
    return codes.astype(np.float32)


def signed(offset: Array) -> Array:
    """Return integers of any width as int64, a set i1 as -1."""
    wide = offset.astype(np.int64)
    return -1 * wide if offset.dtype == np.bool_ else wide


def _address(op: Op, pointer: Array, offset: Array) -> Array:
    moved: Array = pointer + signed(offset) * dtype_of(Type(op.result.type.pointee)).itemsize
    return moved


ELEMENTWISE: dict[str, Any] = {
    **_INTEGER,
    **_FLOAT,
    "cmp": _cmp,
    "fcmp": _fcmp,
    "select": _select,
    "convert": _convert,
    "bitcast": _bitcast,
    "ptr_to_int": lambda op, a: a,
    "int_to_ptr": lambda op, a: a,
    "addptr": _address,
}

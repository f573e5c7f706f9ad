"""Conversions of fp8e4b15, a number format that Triton leaves to its back ends.

Triton keeps it in bytes and asks for the arithmetic. It is fp16 without two bits of exponent and
seven of fraction: 4 bits of exponent, bias 15, 3 bits of fraction, neither infinity nor NaN.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

__all__ = ["convert_fp8e4b15"]

_LARGEST = 0x3F00  # 1.75 in fp16; 1.875 has a code too, which nothing is rounded to


def convert_fp8e4b15(
    arg: Any, dst_ty: Any, fp_downcast_rounding: Any = None, *, _semantic: Any = None
) -> Any:
    """Emit the conversion from or to fp8e4b15 in Triton's own operations.

    To it: through fp16, cut, then to nearest, of two as near the larger; too large numbers and
    NaN become 1.75, as Triton does on a GPU.
    """
    if arg.type.scalar.is_fp8e4b15():
        return _cast(_to_fp16(arg, _semantic), dst_ty, _semantic)
    if not arg.type.scalar.is_fp16():
        arg = _cast(arg, _as(arg, tl.float32), _semantic)
        arg = _semantic.cast(arg, _as(arg, tl.float16), "rtz")
    return _from_fp16(arg, dst_ty, _semantic)


def _as(arg: Any, element: Any) -> Any:
    return element if not arg.type.is_block() else tl.block_type(element, arg.type.shape)


def _cast(arg: Any, type_: Any, semantic: Any) -> Any:
    return semantic.cast(arg, _as(arg, type_.scalar))


def _to_fp16(arg: Any, semantic: Any) -> Any:
    byte = tl.tensor(arg.handle, _as(arg, tl.uint8))
    wide = semantic.cast(byte, _as(arg, tl.int16))
    sign = semantic.shl(semantic.and_(wide, 0x80), 8)
    rest = semantic.shl(semantic.and_(wide, 0x7F), 7)
    return semantic.bitcast(semantic.or_(sign, rest), _as(arg, tl.float16))


def _from_fp16(arg: Any, dst_ty: Any, semantic: Any) -> Any:
    bits = semantic.bitcast(arg, _as(arg, tl.int16))
    sign = semantic.and_(semantic.lshr(bits, 8), 0x80)
    size = semantic.and_(bits, 0x7FFF)
    size = semantic.where(semantic.less_than(size, _LARGEST), size, _LARGEST)
    size = semantic.lshr(semantic.add(size, 0x40, False), 7)
    byte = semantic.cast(semantic.or_(size, sign), _as(arg, tl.uint8))
    return tl.tensor(byte.handle, _as(arg, dst_ty.scalar))

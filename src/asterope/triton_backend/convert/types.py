"""What Triton's types and numbers are in tile IR."""

from __future__ import annotations

import numpy as np

from asterope.ir import Ptr, Type, dtype_of
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["convert_type", "read_number"]

_ELEMENTS = {
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "index": "i64",
    "f16": "fp16", "bf16": "bf16", "f32": "fp32", "f64": "fp64",
    "f8E4M3FN": "e4m3", "f8E5M2": "e5m2", "f8E4M3FNUZ": "e4m3fnuz", "f8E5M2FNUZ": "e5m2fnuz",
}  # fmt: skip


def convert_type(text: str, op: MlirOp | None = None) -> Type:
    """Read one of MLIR's types; `op` is what an error names.

    Raises: UnsupportedError if tile IR has no such type.
    """
    body, shape = text, tuple[int, ...]()
    if body.startswith("tensor<"):
        dims = body[7:-1].split(", #")[0]
        *sizes, body = _split_dims(dims)
        shape = tuple(int(s) for s in sizes)
    if body.startswith("!tt.ptr<"):
        target = body[8:-1].split(",")[0].strip()
        if target.startswith("!tt.ptr<"):
            target = "i64"  # what an address is in memory
        if target in _ELEMENTS:
            return Type(Ptr(_ELEMENTS[target]), shape)
        raise unsupported(op or MlirOp(""), f"pointers to {target} are not supported yet")
    if body not in _ELEMENTS:
        raise unsupported(op or MlirOp(""), f"values of type {text} are not supported yet")
    return Type(_ELEMENTS[body], shape)


def _split_dims(text: str) -> list[str]:
    """Split `128x64x!tt.ptr<f16>` into sizes and the element."""
    parts = []
    while text[:1].isdigit():
        size, _, text = text.partition("x")
        parts.append(size)
    return [*parts, text]


def read_number(text: str, type_: Type) -> float | int | bool:
    """Read one constant: decimal, or hexadecimal bits for floats."""
    if text in ("true", "false"):
        return text == "true"
    if type_.is_int:
        return int(text, 0)
    if not text.startswith("0x"):
        return float(text)
    bits = int(text, 16).to_bytes(type_.bits // 8, "little")
    return float(np.frombuffer(bits, dtype_of(Type(type_.elem)))[0])

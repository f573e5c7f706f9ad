"""Names, widths and constants of LLVM's types, by the short kinds that generated code uses."""

from __future__ import annotations

import struct

__all__ = ["BITS", "literal_text", "suffix_text", "type_text"]

BITS = {
    "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128,
    "f16": 16, "bfloat": 16, "f32": 32, "f64": 64, "ptr": 64,
}  # fmt: skip
_NAMES = {"f16": "half", "f32": "float", "f64": "double"}


def type_text(kind: str, lanes: int = 0) -> str:
    """Write a type as LLVM does: `type_text("f32", 16)` is `<16 x float>`."""
    base = _NAMES.get(kind, kind)
    return f"<{lanes} x {base}>" if lanes else base


def suffix_text(kind: str, lanes: int) -> str:
    """Write a type as the names of intrinsics end: `suffix_text("f32", 16)` is `v16f32`."""
    base = "p0" if kind == "ptr" else kind
    return f"v{lanes}{base}" if lanes else base


def literal_text(kind: str, value: float) -> str:
    """Write a constant of a type; integers wrap to its width."""
    if kind == "i1":
        return "true" if value else "false"
    if kind == "ptr":
        return "null"
    if kind[0] == "i":
        bits = BITS[kind]
        wrapped = int(value) & ((1 << bits) - 1)
        return str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)
    if kind == "f16":
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if kind == "f32":
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

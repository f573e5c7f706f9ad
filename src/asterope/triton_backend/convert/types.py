"""What Triton's types and numbers are in tile IR."""

from __future__ import annotations

import re

import numpy as np

from asterope.ir import Ptr, Type, dtype_of
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirOp

__all__ = ["convert_type", "convert_types", "descriptor_block", "part_names", "read_number"]

_ELEMENTS = {
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "index": "i64",
    "f16": "fp16", "bf16": "bf16", "f32": "fp32", "f64": "fp64",
    "f8E4M3FN": "e4m3", "f8E5M2": "e5m2", "f8E4M3FNUZ": "e4m3fnuz", "f8E5M2FNUZ": "e5m2fnuz",
}  # fmt: skip
_DESCRIPTOR = "!tt.tensordesc<"


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
        if target in _ELEMENTS:
            return Type(Ptr(_ELEMENTS[target]), shape)
        raise unsupported(op or MlirOp(""), f"pointers to {target} are not supported yet")
    if body not in _ELEMENTS:
        raise unsupported(op or MlirOp(""), f"values of type {text} are not supported yet")
    return Type(_ELEMENTS[body], shape)


def descriptor_block(text: str, op: MlirOp | None = None) -> Type | None:
    """Return the block that a tensor descriptor of this type moves; None for other types."""
    if not text.startswith(_DESCRIPTOR):
        return None
    # Integers say their sign here, which only an atomic minimum or maximum would ask for.
    block = re.sub(r"x[su](i\d+)", r"x\1", text.removeprefix(_DESCRIPTOR)[:-1])
    return convert_type(block, op)


def convert_types(text: str, op: MlirOp | None = None) -> list[Type]:
    """Return the types of the values of ours that stand for one value of Triton's.

    A tensor descriptor is: the address of its first element; its shape; its strides without the
    last, which is 1; and, if its elements are floats, what a load reads outside of it.

    Raises: UnsupportedError if tile IR has no such type.
    """
    block = descriptor_block(text, op)
    if block is None:
        return [convert_type(text, op)]
    rank = len(block.shape)
    padding = [Type(block.elem)] if block.is_float else []
    pointer = Type(Ptr(str(block.elem)))
    return [pointer, *[Type("i32")] * rank, *[Type("i64")] * (rank - 1), *padding]


def part_names(name: str, text: str) -> list[str]:
    """Name the values that stand for one of Triton's, in the order of `convert_types`."""
    block = descriptor_block(text)
    if block is None:
        return [name]
    rank = len(block.shape)
    shape = [f"{name}_shape_{d}" for d in range(rank)]
    strides = [f"{name}_stride_{d}" for d in range(rank - 1)]
    return [name, *shape, *strides, *([f"{name}_padding"] if block.is_float else [])]


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

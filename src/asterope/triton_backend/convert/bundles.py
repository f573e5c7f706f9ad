"""Values of Triton's that are several of ours: tensor descriptors and block pointers.

Both say where an array lies and move blocks of one shape between it and the kernel. A descriptor
is the address of its first element; its shape; its strides without the last, which is 1; and, if
its elements are floats, what a load reads outside. A block pointer is the address, the shape, all
strides, and the coordinates of the block it points to.
"""

from __future__ import annotations

import re

from asterope.ir import Ptr, Type
from asterope.triton_backend.convert.types import convert_type
from asterope.triton_backend.ttir import MlirOp

__all__ = ["convert_types", "descriptor_block", "part_names", "pointed_block"]

_DESCRIPTOR = "!tt.tensordesc<"
_BLOCK_POINTER = "!tt.ptr<tensor<"


def descriptor_block(text: str, op: MlirOp | None = None) -> Type | None:
    """Return the block that a tensor descriptor of this type moves; None for other types."""
    if not text.startswith(_DESCRIPTOR):
        return None
    # Integers say their sign here, which only an atomic minimum or maximum asks for.
    block = re.sub(r"x[su](i\d+)", r"x\1", text.removeprefix(_DESCRIPTOR)[:-1])
    return convert_type(block, op)


def pointed_block(text: str, op: MlirOp | None = None) -> Type | None:
    """Return the block that a block pointer of this type moves; None for other types."""
    if not text.startswith(_BLOCK_POINTER):
        return None
    block, _, _ = text.removeprefix("!tt.ptr<")[:-1].partition(">")
    return convert_type(f"{block}>", op)


def _parts(text: str, op: MlirOp | None) -> list[tuple[str, Type]] | None:
    """Return names and types of the parts, the address first; None for a type of one value."""
    block = descriptor_block(text, op) or pointed_block(text, op)
    if block is None:
        return None
    rank, is_descriptor = len(block.shape), text.startswith(_DESCRIPTOR)
    parts = [("", Type(Ptr(str(block.elem))))]
    parts += [(f"_shape_{d}", Type("i32")) for d in range(rank)]
    parts += [(f"_stride_{d}", Type("i64")) for d in range(rank - is_descriptor)]
    if not is_descriptor:
        parts += [(f"_start_{d}", Type("i32")) for d in range(rank)]
    elif block.is_float:
        parts.append(("_padding", Type(block.elem)))
    return parts


def convert_types(text: str, op: MlirOp | None = None) -> list[Type]:
    """Return the types of the values of ours that stand for one value of Triton's.

    Raises: UnsupportedError if tile IR has no such type.
    """
    parts = _parts(text, op)
    return [convert_type(text, op)] if parts is None else [type_ for _, type_ in parts]


def part_names(name: str, text: str) -> list[str]:
    """Name the values that stand for one of Triton's, in the order of `convert_types`."""
    parts = _parts(text, None)
    return [name] if parts is None else [name + suffix for suffix, _ in parts]

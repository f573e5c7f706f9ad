"""Checks of ops that make, rearrange or combine blocks."""

from __future__ import annotations

from asterope.ir.checks.common import count, require, types_of
from asterope.ir.program import Op
from asterope.ir.types import Type

__all__ = [
    "broadcast",
    "const",
    "exchange",
    "expand",
    "gather",
    "histogram",
    "iota",
    "join",
    "popcount",
    "reshape",
    "split",
    "transpose",
]


def const(op: Op) -> None:
    """A constant holds one number, the same in every element."""
    count(op, 0)
    value, t = op.attrs.get("value"), op.result.type
    require(isinstance(value, (int, float)), "has no number `value`")
    require(t.is_float or isinstance(value, int), f"{t} cannot be {value}")


def iota(op: Op) -> None:
    """One dimension of i32: start, start + 1, ..."""
    count(op, 0)
    t = op.result.type
    require(t.elem == "i32" and len(t.shape) == 1, f"gives {t}, not i32[n]")
    require(isinstance(op.attrs.get("start"), int), "has no integer `start`")


def broadcast(op: Op) -> None:
    """A scalar, or sizes of 1, stretch to the result's shape."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    require(a.elem == t.elem, f"changes the element of {a} to {t}")
    fits = not a.shape or (
        len(a.shape) == len(t.shape)
        and all(x in (1, y) for x, y in zip(a.shape, t.shape, strict=True))
    )
    require(fits, f"cannot stretch {a} to {t}")


def expand(op: Op) -> None:
    """A dimension of size 1 appears at `axis`."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    axis = op.attrs.get("axis")
    require(isinstance(axis, int) and 0 <= axis <= len(a.shape), f"has no axis {axis}")
    assert isinstance(axis, int)
    shape = (*a.shape[:axis], 1, *a.shape[axis:])
    require(t == a.with_shape(shape), f"gives {t} for {a} at axis {axis}")


def reshape(op: Op) -> None:
    """Elements keep their row-major order."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    require(a.elem == t.elem and a.num_elements == t.num_elements, f"cannot reshape {a} to {t}")


def transpose(op: Op) -> None:
    """Dimension i of the result is dimension order[i] of the operand."""
    count(op, 1)
    a, t = op.operands[0].type, op.result.type
    order = op.attrs.get("order", ())
    is_order = isinstance(order, tuple) and sorted(order) == list(range(len(a.shape)))
    require(is_order, f"has no order {order}")
    require(t == a.with_shape(tuple(a.shape[i] for i in order)), f"gives {t} for {a} in {order}")


def join(op: Op) -> None:
    """Two blocks interleave in a new last dimension of size 2."""
    count(op, 2)
    a, b = types_of(op)
    require(a == b and op.result.type == a.with_shape((*a.shape, 2)), f"cannot join {a} and {b}")


def split(op: Op) -> None:
    """The last dimension, of size 2, comes apart."""
    count(op, 1, 2)
    a = op.operands[0].type
    require(bool(a.shape) and a.shape[-1] == 2, f"cannot split {a}")
    require(all(r.type == a.with_shape(a.shape[:-1]) for r in op.results), "gives other types")


def exchange(op: Op) -> None:
    """Elements of one dimension, of a size that is a power of two, change places."""
    count(op, 1)
    a, axis, mask = op.operands[0].type, op.attrs.get("axis"), op.attrs.get("mask")
    require(isinstance(axis, int) and 0 <= axis < len(a.shape), f"has no axis {axis}")
    assert isinstance(axis, int)
    size = a.shape[axis]
    require(size & (size - 1) == 0, f"{size} is not a power of two")
    require(isinstance(mask, int) and 0 <= mask < size, f"has no mask {mask} below {size}")
    require(op.result.type == a, f"gives {op.result.type} for {a}")


def gather(op: Op) -> None:
    """An index block, equal to the source but in one dimension, picks along that one."""
    count(op, 2)
    a, index = types_of(op)
    axis = op.attrs.get("axis")
    require(isinstance(axis, int) and 0 <= axis < len(a.shape), f"has no axis {axis}")
    assert isinstance(axis, int)
    others = index.shape[:axis] + index.shape[axis + 1 :]
    fits = len(index.shape) == len(a.shape) and others == a.shape[:axis] + a.shape[axis + 1 :]
    require(index.is_int and fits, f"{index} does not pick from {a} along axis {axis}")
    require(op.result.type == a.with_shape(index.shape), f"gives {op.result.type}")


def histogram(op: Op) -> None:
    """Integers of one dimension are counted into bins, where a mask is on if there is one."""
    has_mask = bool(op.attrs.get("mask"))
    count(op, 1 + has_mask)
    a, *rest = types_of(op)
    require(a.is_int and len(a.shape) == 1, f"counts no {a}")
    require(rest == [a.with_elem("i1")] * has_mask, f"mask does not fit {a}")
    t = op.result.type
    require(t.elem == "i32" and len(t.shape) == 1, f"gives {t}, not i32[n]")


def popcount(op: Op) -> None:
    """How many elements of an i1 block are set, as an i32."""
    count(op, 1)
    require(op.operands[0].type.elem == "i1", "counts an i1 block")
    require(op.result.type == Type("i32"), "gives an i32")

"""Checks of address arithmetic, loads, stores and atomics."""

from __future__ import annotations

from asterope.ir.checks.by_element import COMBINERS
from asterope.ir.checks.common import count, require, types_of
from asterope.ir.program import Op
from asterope.ir.types import Type

__all__ = [
    "addptr",
    "atomic_cas",
    "atomic_rmw",
    "atomic_rmw_tile",
    "load",
    "load_tile",
    "store",
    "store_tile",
]

_MEMORY_ORDERS = ("relaxed", "acquire", "release", "acq_rel")


def addptr(op: Op) -> None:
    """Addresses move by a number of elements."""
    count(op, 2)
    p, o = types_of(op)
    require(p.is_ptr and o.is_int and p.shape == o.shape, f"cannot add {o} to {p}")
    require(op.result.type == p, f"gives {op.result.type} for {p}")


def _access(op: Op, pointers: Type, value: Type, rest: list[Type]) -> None:
    require(pointers.is_ptr, f"{pointers} is not a pointer")
    require(value == pointers.with_elem(pointers.pointee), f"{value} does not fit {pointers}")
    expected = op.attrs.get("mask", False) + op.attrs.get("other", False)
    require(len(rest) == expected, "mask and other do not match its operands")
    if op.attrs.get("mask"):
        require(rest[0] == pointers.with_elem("i1"), f"mask {rest[0]} does not fit {pointers}")
    if op.attrs.get("other"):
        require(rest[-1] == value, f"other {rest[-1]} does not fit {value}")


def load(op: Op) -> None:
    """Elements from addresses; where the mask is off, `other` or zero."""
    require(len(op.operands) >= 1 and len(op.results) == 1, "takes pointers, gives a value")
    types = types_of(op)
    _access(op, types[0], op.result.type, types[1:])


def store(op: Op) -> None:
    """Elements to addresses where the mask is on."""
    require(len(op.operands) >= 2 and not op.results, "takes pointers and a value")
    types = types_of(op)
    _access(op, types[0], types[1], types[2:])


def _tile(op: Op, value: Type, operands: list[Type], other: bool) -> None:
    base, rest = operands[0], operands[1:]
    require(base.is_ptr and not base.shape, f"base {base} is not one address")
    require(value.shape != () and value.elem == base.pointee, f"{value} does not fit {base}")
    rank = len(value.shape)
    dims = op.attrs.get("mask_dims", ())
    are_dims = isinstance(dims, tuple) and all(d in range(rank) for d in dims)
    require(are_dims, f"has no dimensions {dims}")
    require(len(rest) == rank + len(dims) + other, "operands do not match mask_dims and other")
    for d, offset in enumerate(rest[:rank]):
        require(
            offset.is_int and offset.shape == (value.shape[d],),
            f"offset {offset} of dimension {d} does not fit {value}",
        )
    for d, mask in zip(dims, rest[rank : rank + len(dims)], strict=True):
        require(mask == Type("i1", (value.shape[d],)), f"mask {mask} of dimension {d} does not fit")
    if other:
        require(rest[-1] == Type(value.elem), f"other {rest[-1]} is not a scalar of {value}")


def load_tile(op: Op) -> None:
    """Elements at base + offset_0[i] + offset_1[j] + ..., where every mask_d holds."""
    require(len(op.operands) >= 2 and len(op.results) == 1, "takes a base and offsets")
    _tile(op, op.result.type, types_of(op), bool(op.attrs.get("other")))


def store_tile(op: Op) -> None:
    """The first operand goes to base + offset_0[i] + ..., where every mask_d holds."""
    require(len(op.operands) >= 3 and not op.results, "takes a value, a base and offsets")
    types = types_of(op)
    _tile(op, types[0], types[1:], other=False)


def _atomic(op: Op, pointers: Type) -> None:
    order, elem = op.attrs.get("memory_order"), pointers.pointee
    require(order in _MEMORY_ORDERS, f"has no memory order {order!r}")
    require(elem != "i1", f"{pointers} points to single bits")
    require(len(op.results) == 1, "gives the old value")


def _read_modify_write(op: Op, pointers: Type) -> None:
    _atomic(op, pointers)
    combine, elem = op.attrs.get("combine"), pointers.pointee
    if combine == "exchange":
        return
    require(combine in COMBINERS, f"has no combiner {combine!r}")
    require(elem in COMBINERS[str(combine)], f"cannot combine {elem} by {combine}")


def atomic_rmw(op: Op) -> None:
    """Where the mask is on, what is in memory is combined with the value; gives what was there."""
    require(len(op.operands) >= 2, "takes pointers and a value")
    pointers, value, *rest = types_of(op)
    _access(op, pointers, value, rest)
    _read_modify_write(op, pointers)
    require(op.result.type == value, f"gives {op.result.type} for {value}")


def atomic_rmw_tile(op: Op) -> None:
    """The same at base + offset_0[i] + ..., where every mask_d holds."""
    require(len(op.operands) >= 3, "takes a value, a base and offsets")
    value, base, *rest = types_of(op)
    _tile(op, value, [base, *rest], other=False)
    _read_modify_write(op, base)
    require(op.result.type == value, f"gives {op.result.type} for {value}")


def atomic_cas(op: Op) -> None:
    """Where memory holds the expected bits, the value replaces them; gives what was there."""
    count(op, 3)
    pointers, expected, value = types_of(op)
    _access(op, pointers, value, [])
    _atomic(op, pointers)
    require(expected == value, f"compares {expected} and would write {value}")
    require(op.result.type == value, f"gives {op.result.type} for {value}")

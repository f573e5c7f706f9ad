"""What atomics mean: one element after the other is read, combined and written back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.ir.interpreter.elementwise import ELEMENTWISE, dtype_of
from asterope.ir.interpreter.memory import Memory, tile_addresses
from asterope.ir.program import Op, Value
from asterope.ir.types import Type

__all__ = ["ATOMIC"]

Array = npt.NDArray[Any]
_Step = Callable[[int, Array], Array]


def _one_by_one(memory: Memory, addresses: Array, mask: Array, like: Array, step: _Step) -> Array:
    """Replace what is at each address that is on by `step(place, old)`; return what was there."""
    old = np.zeros(like.shape, like.dtype)
    flat, on, where = old.reshape(-1), mask.reshape(-1), addresses.reshape(-1)
    for i in np.flatnonzero(on).tolist():
        flat[i] = memory.read(where[i : i + 1], like.dtype)[0]
        memory.write(where[i : i + 1], step(i, flat[i : i + 1]))
    return old


def _combining(op: Op, values: Array) -> _Step:
    name = str(op.attrs["combine"])
    flat = np.ascontiguousarray(values).reshape(-1)
    pair = Op(name, [], {}, [])
    pair.results = [Value(Type(op.result.type.elem, (1,)), pair)]

    def step(i: int, old: Array) -> Array:
        new = flat[i : i + 1]
        return new if name == "exchange" else np.asarray(ELEMENTWISE[name](pair, old, new))

    return step


def _rmw(memory: Memory, op: Op, pointers: Array, values: Array, *rest: Array) -> Array:
    mask = rest[0] if op.attrs.get("mask") else np.ones(pointers.shape, np.bool_)
    step = _combining(op, values)
    return _one_by_one(memory, np.asarray(pointers), np.asarray(mask), values, step)


def _rmw_tile(memory: Memory, op: Op, values: Array, base: Array, *rest: Array) -> Array:
    addresses, mask = tile_addresses(op, op.result.type, base, rest)
    return _one_by_one(memory, addresses, mask, values, _combining(op, values))


def _cas(memory: Memory, op: Op, pointers: Array, expected: Array, values: Array) -> Array:
    dtype = dtype_of(op.result.type)
    bits = np.dtype(f"u{dtype.itemsize}")
    awaited = np.ascontiguousarray(expected).reshape(-1).view(bits)
    flat = np.ascontiguousarray(values).reshape(-1)

    def step(i: int, old: Array) -> Array:
        return flat[i : i + 1] if old.view(bits)[0] == awaited[i] else old

    mask = np.ones(pointers.shape, np.bool_)
    return _one_by_one(memory, np.asarray(pointers), mask, values, step)


ATOMIC: dict[str, Callable[..., Array]] = {
    "atomic_rmw": _rmw,
    "atomic_rmw_tile": _rmw_tile,
    "atomic_cas": _cas,
}

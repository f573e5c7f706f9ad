"""Which delayed blocks a loop nest computes, and along which of its dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asterope.host.arithmetic import ARITHMETIC
from asterope.host.values import Lazy
from asterope.ir import Op, Value, masks_of

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["Dims", "Visit", "masks_along", "visits"]

# For each dimension of a block, the dimension of the loop nest it runs along, if it runs.
Dims = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """A delayed block, and how its dimensions lie in the loop nest that computes it."""

    value: Value
    op: Op
    dims: Dims


def visits(low: Lowering, roots: Iterable[tuple[Value, Dims]]) -> Iterator[Visit]:
    """Visit the delayed blocks that computing the roots goes through, each way once."""
    stack = list(roots)
    seen = set(stack)
    while stack:
        value, dims = stack.pop()
        state = low.env.get(value)
        if not isinstance(state, Lazy):
            continue
        yield Visit(value, state.op, dims)
        inner = [item for item in _operands(state.op, dims) if item not in seen]
        seen.update(inner)
        stack += inner


def _operands(op: Op, dims: Dims) -> list[tuple[Value, Dims]]:
    if op.name in ARITHMETIC or op.name == "load":
        return [(v, dims) for v in op.operands]
    blocks = [v for v in op.operands if v.type.shape]
    if op.name == "load_tile":
        return [(v, (d,)) for v, d in zip(blocks, _vector_dims(op, dims), strict=False)]
    if op.name == "broadcast":
        return [(v, _stretched(v, dims)) for v in blocks]
    if op.name == "expand":
        axis = op.attrs["axis"]
        return [(v, dims[:axis] + dims[axis + 1 :]) for v in blocks]
    if op.name == "transpose":
        order = list(op.attrs["order"])
        return [(v, tuple(dims[order.index(d)] for d in range(len(order)))) for v in blocks]
    return [(v, (None,) * len(v.type.shape)) for v in blocks]


def _stretched(source: Value, dims: Dims) -> Dims:
    return tuple(None if size == 1 else d for d, size in zip(dims, source.type.shape, strict=True))


def _vector_dims(op: Op, dims: Dims) -> Dims:
    """Return along which dimensions the offsets and then the masks of a tile run."""
    return (*dims, *(dims[d] for d in op.attrs.get("mask_dims", ())))


def masks_along(op: Op, dims: Dims) -> list[tuple[Value, int]]:
    """Return the masks of an access that are vectors, each with the dimension it runs along."""
    found: list[tuple[Value, int | None]] = []
    if op.name in ("load_tile", "store_tile"):
        found = [(mask, dims[d]) for d, mask in masks_of(op).items()]
    elif op.name in ("load", "store") and op.attrs.get("mask"):
        mask = op.operands[1 if op.name == "load" else 2]
        found = [(mask, dims[0])] if len(mask.type.shape) == 1 else []
    return [(mask, d) for mask, d in found if d is not None]

"""Where addresses come from: which parameters, and whether an index in memory says so."""

from __future__ import annotations

from asterope.ir import Kernel, Op, Value
from asterope.sim.slices import loop_sources

__all__ = ["Origins", "grows_by_one", "masks_of", "offsets_of", "pointer_of"]

_LOADS = ("load", "load_tile")


class Origins:
    """Answers for one kernel; `stored` are the origins of all that it writes."""

    def __init__(self, kernel: Kernel) -> None:
        self._params = set(kernel.body.args)
        self._sources = loop_sources(kernel)
        self.stored = {
            origin
            for op in kernel.walk()
            if op.name in ("store", "store_tile")
            for origin in self.of(pointer_of(op))
        }

    def of(self, pointer: Value) -> set[Value | None]:
        """Return the parameters that a pointer may come from, and None if from anywhere else."""
        found: set[Value | None] = set()
        seen: set[Value] = set()
        stack = [pointer]
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            givers = self._sources.get(value, [])
            if value.op is not None and not value.op.blocks and value.op.name not in _LOADS:
                givers = [v for v in value.op.operands if v.type.is_ptr]
            if value in self._params:
                found.add(value)
            elif givers:
                stack += givers
            else:
                found.add(None)
        return found

    def is_gather(self, op: Op) -> bool:
        """Whether an access fetches its elements or rows one by one, not as one regular block."""
        if op.name in ("load_tile", "store_tile"):
            return any(map(self.is_indexed, offsets_of(op)))
        return bool(pointer_of(op).type.shape)

    def is_indexed(self, vector: Value) -> bool:
        """Whether a vector of offsets is computed from a vector in memory."""
        seen: set[Value] = set()
        stack = [vector]
        while stack:
            value = stack.pop()
            if value in seen or not value.type.shape:
                continue
            seen.add(value)
            if value.op is not None and value.op.name in _LOADS:
                return True
            stack += self._sources.get(value, [])
            if value.op is not None and not value.op.blocks:
                stack += value.op.operands
        return False


def pointer_of(op: Op) -> Value:
    """Return the pointer operand of a load or store."""
    return op.operands[_pointer_at(op)]


def _pointer_at(op: Op) -> int:
    return 1 if op.name == "store_tile" else 0


def offsets_of(op: Op) -> list[Value]:
    """Return the offset vectors of a tile's load or store, one a dimension."""
    first = _pointer_at(op) + 1
    rank = len((op.operands[0] if op.name == "store_tile" else op.result).type.shape)
    return op.operands[first : first + rank]


def masks_of(op: Op) -> dict[int, Value]:
    """Return the mask vectors of a tile's load or store by dimension."""
    first = _pointer_at(op) + 1 + len(offsets_of(op))
    return dict(zip(op.attrs.get("mask_dims", ()), op.operands[first:], strict=False))


def grows_by_one(vector: Value) -> bool:
    """Whether a vector of offsets is start, start + 1, ..., as far as its ops show it."""
    op = vector.op
    if op is None:
        return False
    if op.name == "convert":
        return grows_by_one(op.operands[0])
    if op.name == "add":
        a, b = op.operands
        return (grows_by_one(a) and _is_uniform(b)) or (grows_by_one(b) and _is_uniform(a))
    return op.name == "iota"


def _is_uniform(vector: Value) -> bool:
    op = vector.op
    return op is not None and (
        op.name == "const" or (op.name == "broadcast" and not op.operands[0].type.shape)
    )

"""Where addresses come from: which parameters, and whether an index in memory says so."""

from __future__ import annotations

from asterope.ir import Kernel, Op, Roots, Value, loop_sources

__all__ = ["Origins", "masks_of", "offsets_of", "pointer_of"]

_LOADS = ("load", "load_tile")


class Origins:
    """Answers for one kernel; `stored` are the origins of all that it writes."""

    def __init__(self, kernel: Kernel) -> None:
        self.of = Roots(kernel).origins
        self._sources = loop_sources(kernel)
        self.stored = {
            origin
            for op in kernel.walk()
            if op.name in ("store", "store_tile")
            for origin in self.of(pointer_of(op))
        }

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
            if value.op is not None and not value.op.is_control_flow:
                stack += value.op.inputs
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

"""Where addresses come from: which parameters, and whether an index in memory says so."""

from __future__ import annotations

from collections.abc import Iterable

from asterope.ir import (
    READS,
    WRITES,
    Kernel,
    Op,
    Roots,
    Value,
    loop_sources,
    offsets_of,
    pointer_of,
)

__all__ = ["TILES", "Origins"]

TILES = ("load_tile", "store_tile", "atomic_rmw_tile")


class Origins:
    """Answers for one kernel; `stored` are the origins of all that it writes."""

    def __init__(self, kernel: Kernel) -> None:
        self.of = Roots(kernel).origins
        self.sources = loop_sources(kernel)
        self.stored = self.written_by(op for op in kernel.walk() if op.name in WRITES)

    def written_by(self, ops: Iterable[Op]) -> set[Value | None]:
        """Return the origins of all that some ops write."""
        return {origin for op in ops for origin in self.of(pointer_of(op))}

    def is_gather(self, op: Op) -> bool:
        """Whether an access fetches its elements or rows one by one, not as one regular block."""
        if op.name in TILES:
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
            if value.op is not None and value.op.name in READS:
                return True
            stack += self.sources.get(value, [])
            if value.op is not None and not value.op.is_control_flow:
                stack += value.op.inputs
        return False

"""Which kernel parameter a pointer comes from, and who uses what."""

from __future__ import annotations

from asterope.ir import Kernel, Op, Value

__all__ = ["Roots"]


class Roots:
    """Facts about a kernel that the translation asks for: use counts and pointer origins."""

    def __init__(self, kernel: Kernel) -> None:
        self.uses: dict[Value, int] = {}
        self._carried: dict[Value, Value] = {}
        self._params = set(kernel.body.args)
        for op in kernel.walk():
            inside_loop = 2 if op.name in ("yield", "condition") else 1
            for value in op.operands:
                self.uses[value] = self.uses.get(value, 0) + inside_loop
            if op.name == "for":
                self._carried.update(zip(op.blocks[0].args[1:], op.operands[3:], strict=True))
                self._carried.update(zip(op.results, op.operands[3:], strict=True))

    def root(self, value: Value) -> Value | None:
        """Return the parameter that a pointer is computed from, or None if that is unknown."""
        seen: set[Value] = set()
        while value not in self._params:
            if value in seen:
                return None
            seen.add(value)
            if value in self._carried:
                value = self._carried[value]
            elif value.op is not None and value.op.name in (
                "addptr",
                "broadcast",
                "expand",
                "transpose",
            ):
                value = value.op.operands[0]
            else:
                return None
        return value

    def fusible(self, consumer: Op, target: Value, disjoint: bool) -> bool:
        """Whether loads inside a delayed op may run chunk by chunk with a store to `target`."""
        if not disjoint:
            return False
        written = self.root(target)
        stack, seen = [consumer], {consumer}
        while stack:
            op = stack.pop()
            if op.name in ("load", "load_tile"):
                read = self.root(op.operands[0])
                if written is None or read is None or read is written:
                    return False
            inner = [v.op for v in op.operands if v.op is not None and v.op not in seen]
            seen.update(inner)
            stack += inner
        return True

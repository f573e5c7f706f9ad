"""Which kernel parameter a pointer comes from, and who uses what."""

from __future__ import annotations

from asterope.ir.program import Kernel, Value

__all__ = ["Roots"]


class Roots:
    """Use counts and pointer origins of one kernel; a use by a loop's next value counts twice."""

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

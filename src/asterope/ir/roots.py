"""Where values come from: which parameters a pointer, which values a loop's; and who uses what."""

from __future__ import annotations

from asterope.ir.accesses import READS
from asterope.ir.program import Kernel, Value

__all__ = ["Roots", "grows_by_one", "loop_sources"]


class Roots:
    """Use counts and pointer origins of one kernel; a use by a loop's next value counts twice."""

    def __init__(self, kernel: Kernel) -> None:
        self.uses: dict[Value, int] = {}
        self._params = set(kernel.body.args)
        self._sources = loop_sources(kernel)
        loops = [op for op in kernel.walk() if op.name == "for"]
        self._starts = {op.blocks[0].args[0]: op.operands[:1] for op in loops}
        for op in kernel.walk():
            inside_loop = 2 if op.name in ("yield", "condition") else 1
            for value in op.operands:
                self.uses[value] = self.uses.get(value, 0) + inside_loop

    def sources(self, value: Value) -> list[Value]:
        """Return what a value is computed from, for a loop's counter the number it begins with."""
        own = value.op.operands if value.op is not None else []
        return self._sources.get(value) or self._starts.get(value) or own

    def origins(self, pointer: Value) -> set[Value | None]:
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
            if value.op is not None and not value.op.blocks and value.op.name not in READS:
                givers = [v for v in value.op.operands if v.type.is_ptr]
            if value in self._params:
                found.add(value)
            elif givers:
                stack += givers
            else:
                found.add(None)
        return found

    def root(self, pointer: Value) -> Value | None:
        """Return the one parameter that a pointer comes from, None if that is not known."""
        found = self.origins(pointer)
        return found.pop() if len(found) == 1 else None


def loop_sources(kernel: Kernel) -> dict[Value, list[Value]]:
    """Map what blocks and loops define to what it is set from."""
    sources: dict[Value, list[Value]] = {}

    def add(targets: list[Value], *givers: list[Value]) -> None:
        for giver in givers:
            for target, value in zip(targets, giver, strict=True):
                sources.setdefault(target, []).append(value)

    for op in kernel.walk():
        if op.name == "for":
            (body,) = op.blocks
            add(body.args[1:], op.operands[3:], body.terminator.operands)
            add(op.results, op.operands[3:], body.terminator.operands)
        elif op.name == "while":
            before, after = op.blocks
            add(before.args, op.operands, after.terminator.operands)
            add(after.args, before.terminator.operands[1:])
            add(op.results, before.terminator.operands[1:])
        elif op.name == "if":
            add(op.results, *(b.terminator.operands for b in op.blocks))
    return sources


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

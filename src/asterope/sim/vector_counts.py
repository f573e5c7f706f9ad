"""How many element operations of which class an op asks of a vector engine and its reshaper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from asterope.ir import OPS, Engine, Op
from asterope.sim.instructions import LineWork, VectorWork

__all__ = ["vector_counts", "vector_work"]


def vector_work(ops: Sequence[Op]) -> tuple[VectorWork, tuple[LineWork, ...]]:
    """Add up the work of ops that are one instruction, and say what each of them asks for."""
    lines = tuple(
        LineWork(loc=op.loc, name=op.name, work=VectorWork(counts=vector_counts(op))) for op in ops
    )
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.work.counts)
    return VectorWork(counts=dict(counts)), lines


def vector_counts(op: Op) -> dict[str, int]:
    """Count the element operations of an op by class."""
    if op.blocks:
        return _counts_by_element(op)
    cost, times = OPS[op.name].cost, OPS[op.name].times
    types = [v.type for v in (*op.operands, *op.results)]
    elements = max(t.num_elements for t in types)
    bits = max(64 if t.is_ptr else t.bits for t in types)
    name = {"op": "op", "function": "function", "move": "move"}[cost]
    return {f"{name}{16 if bits <= 16 else 32}": elements * times * (2 if bits > 32 else 1)}


def _counts_by_element(op: Op) -> dict[str, int]:
    """Count what a block does for each element, both sides of a branch as a vector engine does.

    How often a loop inside runs depends on the element: its body counts once.
    """
    times = op.operands[0].type.num_elements // op.attrs.get("pack", 1)
    counts: dict[str, int] = {}
    for inner in (q for block in op.blocks for q in block.walk()):
        spec = OPS[inner.name]
        if spec.engine is Engine.VECTOR and spec.cost != "free":
            for key, number in vector_counts(inner).items():
                counts[key] = counts.get(key, 0) + number * times
    return counts

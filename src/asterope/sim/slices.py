"""Which values a program needs to know where it goes and what it moves, whatever the data.

These are loop bounds, conditions, addresses and masks, and what they are computed from. The time
reading computes them; of all other values it only knows when they are ready.
"""

from __future__ import annotations

from collections.abc import Iterator

from asterope.ir import Block, Kernel, Op, Value, loop_sources

__all__ = ["control_values", "pattern_values"]

_ACCESS = ("load", "store", "load_tile", "store_tile")


def control_values(kernel: Kernel) -> set[Value]:
    """Return the values that control flow and addresses depend on."""
    sources = loop_sources(kernel)
    found: set[Value] = set()
    stack = [v for op in _steps(kernel.body) for v in _seeds(op)]
    while stack:
        value = stack.pop()
        if value in found:
            continue
        found.add(value)
        stack += sources.get(value, [])
        if value.op is not None and not value.op.is_control_flow:
            stack += value.op.inputs
    return found


def pattern_values(kernel: Kernel) -> set[Value]:
    """Return the integers that depend on no data, such as bits of an index: compile-time work."""
    found: set[Value] = set()
    for op in kernel.walk():
        fixed = op.name in ("const", "iota") or (op.operands and found.issuperset(op.inputs))
        if fixed and not op.is_control_flow and all(r.type.is_int for r in op.results):
            found.update(op.results)
    return found


def _steps(block: Block) -> Iterator[Op]:
    """Visit the ops of a program, but not what others run for every element."""
    for op in block.ops:
        yield op
        for inner in op.blocks if op.is_control_flow else ():
            yield from _steps(inner)


def _seeds(op: Op) -> list[Value]:
    if op.name == "for":
        return op.operands[:3]
    if op.name in ("if", "condition"):
        return op.operands[:1]
    if op.name not in _ACCESS:
        return []
    operands = list(op.operands)
    if op.attrs.get("other"):
        operands.pop()
    if op.name == "store":
        del operands[1]
    elif op.name == "store_tile":
        del operands[0]
    return operands

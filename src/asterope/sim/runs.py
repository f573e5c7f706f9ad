"""How many elements of a block lie together in memory, as far as its offsets show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asterope.ir import Value

__all__ = ["run_elements"]

_Sources = Mapping[Value, list[Value]]


def run_elements(offsets: Sequence[Value], sources: _Sources) -> int:
    """Return the longest run of consecutive elements among the dimensions of a block.

    `sources` are the values that loops carry in.
    """
    return max((_run(v, sources, set()) for v in offsets), default=1)


def _run(vector: Value, sources: _Sources, seen: set[Value]) -> int:
    if vector in seen or not vector.type.shape:
        return 1
    seen.add(vector)
    op = vector.op
    if op is None or op.is_control_flow:
        return max((_run(v, sources, seen) for v in sources.get(vector, [])), default=1)
    name, operands = op.name, op.operands
    if name == "iota":
        return vector.type.num_elements
    if name in ("rems", "remu"):
        return min(_run(operands[0], sources, seen), _period(operands[1]))
    # What is added to offsets that grow by one is the same for all of a run, or the run ends.
    carried = {"convert": operands[:1], "sub": operands[:1], "add": operands,
               "select": operands[1:], "mins": operands, "maxs": operands}  # fmt: skip
    return max((_run(v, sources, seen) for v in carried.get(name, ())), default=1)


def _period(divisor: Value) -> int:
    """Return after how many elements a remainder starts again, where that is known."""
    op = divisor.op
    if op is not None and op.name == "broadcast":
        op = op.operands[0].op
    return abs(int(op.attrs["value"])) or 1 if op is not None and op.name == "const" else 1 << 62

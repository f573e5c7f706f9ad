"""What checks are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asterope.errors import IRError
from asterope.ir.program import Block, Op
from asterope.ir.types import Type

__all__ = ["Check", "count", "list_text", "require", "require_end", "types_of", "types_text"]

Check = Callable[[Op], None]


def require(holds: bool, what: str) -> None:
    """Raise IRError unless the condition holds."""
    if not holds:
        raise IRError(what)


def types_of(op: Op) -> list[Type]:
    """Return the types of the operands."""
    return [v.type for v in op.operands]


def count(op: Op, operands: int, results: int = 1) -> None:
    """Check the number of operands and results."""
    require(len(op.operands) == operands, f"takes {operands} operands, has {len(op.operands)}")
    require(len(op.results) == results, f"gives {results} results, has {len(op.results)}")


def types_text(op: Op) -> str:
    """Write the types of the operands."""
    return ", ".join(str(t) for t in types_of(op))


def list_text(types: Sequence[Type]) -> str:
    """Write types as a list."""
    return "(" + ", ".join(map(str, types)) + ")"


def require_end(block: Block, name: str, types: Sequence[Type]) -> None:
    """Check that a block ends with a terminator that gives values of these types."""
    require(bool(block.ops), f"block is empty, must end with {name}")
    last = block.terminator
    found = [v.type for v in last.operands]
    require(last.name == name, f"block ends with {last.name}, not {name}")
    require(found == list(types), f"{name} gives {list_text(found)}, not {list_text(types)}")

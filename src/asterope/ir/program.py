"""Programs of tile IR: values in single assignment, ops, blocks, kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asterope.ir.types import Type

__all__ = ["BY_ELEMENT", "Block", "Builder", "Kernel", "Op", "Param", "Value", "clone_block"]

# Ops whose one block is run for elements: it takes scalars and yields scalars.
BY_ELEMENT = ("reduce", "scan", "map")


@dataclass(slots=True, eq=False)
class Value:
    """One value, defined once: an op's result, a block's argument or a kernel's parameter."""

    type: Type
    op: Op | None = None
    hint: str = ""


@dataclass(slots=True, eq=False)
class Op:
    """One operation. What each name means is in `ops.py`."""

    name: str
    operands: list[Value]
    attrs: dict[str, Any]
    results: list[Value]
    blocks: list[Block] = field(default_factory=list)
    loc: str = ""

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    @property
    def is_control_flow(self) -> bool:
        """Whether its blocks say where the program goes, not what is done with elements."""
        return bool(self.blocks) and self.name not in BY_ELEMENT

    @property
    def inputs(self) -> list[Value]:
        """The operands, and what its blocks take from around it."""
        inner = [q for b in self.blocks for q in b.walk()]
        own = {a for q in (self, *inner) for b in q.blocks for a in b.args}
        own.update(r for q in inner for r in q.results)
        return [*self.operands, *(v for q in inner for v in q.operands if v not in own)]

    def walk(self) -> Iterator[Op]:
        """Visit this op and all ops inside it, outer before inner, in order."""
        yield self
        for block in self.blocks:
            yield from block.walk()


@dataclass(slots=True, eq=False)
class Block:
    """A straight list of ops that ends with a terminator, and the values it is entered with."""

    args: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def walk(self) -> Iterator[Op]:
        """Visit all ops, outer before inner, in order."""
        for op in self.ops:
            yield from op.walk()

    @property
    def terminator(self) -> Op:
        """The last op: `yield`, `condition` or `return`."""
        return self.ops[-1]


@dataclass(frozen=True, slots=True)
class Param:
    """A kernel parameter: its name in the user's source and what the front end knows of it."""

    name: str
    divisibility: int = 1


@dataclass(slots=True, eq=False)
class Kernel:
    """One program of a grid: every program runs the body with its own `program_id`."""

    name: str
    params: list[Param]
    body: Block
    attrs: dict[str, Any] = field(default_factory=dict)

    def walk(self) -> Iterator[Op]:
        """Visit all ops, outer before inner, in order."""
        yield from self.body.walk()

    def uses(self) -> dict[Value, list[Op]]:
        """Map each value to the ops that take it as an operand, once per use, in order."""
        users: dict[Value, list[Op]] = {}
        for op in self.walk():
            for value in op.operands:
                users.setdefault(value, []).append(op)
        return users


class Builder:
    """Append ops to a block; knows the current source location."""

    def __init__(self, block: Block, loc: str = "") -> None:
        self.block = block
        self.loc = loc

    def op(
        self,
        name: str,
        operands: Sequence[Value] = (),
        types: Sequence[Type] = (),
        attrs: Mapping[str, Any] | None = None,
        blocks: Sequence[Block] = (),
    ) -> Op:
        """Append one op and return it."""
        op = Op(name, list(operands), dict(attrs or {}), [], list(blocks), self.loc)
        op.results = [Value(t, op) for t in types]
        self.block.ops.append(op)
        return op

    def value(self, name: str, operands: Sequence[Value], type_: Type, **attrs: Any) -> Value:
        """Append an op with one result and return the result."""
        return self.op(name, operands, (type_,), attrs).result

    def const(self, type_: Type, number: float | int | bool) -> Value:
        """Append a constant, the same number in every element."""
        return self.value("const", (), type_, value=number)


def clone_block(
    block: Block, remap: dict[Value, Value], visit: Callable[[Op], None] | None = None
) -> Block:
    """Copy a block with all that is inside, replacing operands through `remap` and extending it."""
    copy = Block([Value(a.type, None, a.hint) for a in block.args])
    remap.update(zip(block.args, copy.args, strict=True))
    for op in block.ops:
        new = Op(op.name, [remap.get(v, v) for v in op.operands], dict(op.attrs), [], [], op.loc)
        new.results = [Value(v.type, new, v.hint) for v in op.results]
        remap.update(zip(op.results, new.results, strict=True))
        new.blocks = [clone_block(b, remap, visit) for b in op.blocks]
        if visit:
            visit(new)
        copy.ops.append(new)
    return copy

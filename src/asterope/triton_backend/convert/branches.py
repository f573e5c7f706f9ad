"""Regions of several blocks, which early returns make, as nested `if`s.

Loops are ops with regions of their own, so the blocks of a region form an acyclic graph. Blocks
that only one side of a branch leads to go inside the `if`; those that both lead to follow it, so
each block is emitted once. Where a branch leaves by several ways, the `if` also gives a flag for
each way, and the blocks of one way are emitted under its flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asterope.ir import Block, Builder, Type, Value
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirBlock

if TYPE_CHECKING:
    from asterope.triton_backend.convert.converter import Converter

__all__ = ["BRANCHES", "structured"]

BRANCHES = ("cf.br", "cf.cond_br", "tt.return")


def structured(
    cv: Converter, region: list[MlirBlock], args: Sequence[Value], b: Builder
) -> list[Value]:
    """Emit a region entered with `args`; return the values that it returns."""
    return _Graph(cv, region).emit(region[0], args, b)


@dataclass(frozen=True, slots=True)
class _Way:
    """Where control goes next, with which values; `taken` says whether it does, None is always."""

    target: MlirBlock
    values: tuple[Value, ...]
    taken: Value | None = None


class _Graph:
    """The blocks of a region, a block that stands for its end, and what each leads to."""

    def __init__(self, cv: Converter, region: list[MlirBlock]) -> None:
        self.cv = cv
        self.end = MlirBlock()
        self.reach: dict[MlirBlock, frozenset[MlirBlock]] = {self.end: frozenset({self.end})}
        self.rank: dict[MlirBlock, int] = {self.end: 0}
        self._visit(region[0], ())

    def _visit(self, block: MlirBlock, path: tuple[MlirBlock, ...]) -> None:
        """Find what a block leads to; a later block in the order of execution has a lower rank."""
        if block in path:
            raise unsupported(block.ops[-1], "a loop made of branches is not supported")
        if block in self.reach:
            return
        following = block.ops[-1].successors or [self.end]
        for successor in following:
            self._visit(successor, (*path, block))
        self.reach[block] = frozenset({block}).union(*(self.reach[s] for s in following))
        self.rank[block] = len(self.rank)

    def emit(self, entry: MlirBlock, args: Sequence[Value], b: Builder) -> list[Value]:
        """Emit everything from the entry to the end; return what the end is given."""
        inside = self.reach[entry] - {self.end}
        (way,) = self._follow([_Way(entry, tuple(args))], inside, b)
        return list(way.values)

    def _follow(self, ways: list[_Way], inside: frozenset[MlirBlock], b: Builder) -> list[_Way]:
        """Emit the blocks of `inside` that the ways lead to; return the ways out of them."""
        while here := [w for w in ways if w.target in inside]:
            first = max(here, key=lambda w: self.rank[w.target])
            rest = [w for w in ways if w is not first]
            if first.taken is None:
                ways = self._block(first, inside, b)
                continue
            mine = self.reach[first.target].difference(*(self.reach[w.target] for w in rest))
            then = Builder(Block(), b.loc)
            out = self._follow([_Way(first.target, first.values)], inside & mine, then)
            met = {w.target for w in out}
            others = [w for w in rest if w.target in met]
            # A way that only the others take is off whenever the first one is on.
            passed = [w for w in rest if w.target not in met]
            sides = ((then, out), (Builder(Block(), b.loc), others))
            ways = [*self._branch(first.taken, sides, b, alone=not passed), *passed]
        return ways

    def _block(self, way: _Way, inside: frozenset[MlirBlock], b: Builder) -> list[_Way]:
        """Emit one block; return where its last op goes."""
        cv, block = self.cv, way.target
        cv.bind(block.args, way.values)
        cv.convert(block.ops[:-1], b)
        last = block.ops[-1]
        b.loc = cv.location(last)
        if not last.successors:
            return [_Way(self.end, tuple(cv.values(last.operands)))]
        if last.name == "cf.br":
            return [self._way(last.successors[0], tuple(cv.values(last.operands)))]
        if last.name != "cf.cond_br":
            raise unsupported(last, f"{last.name} is not supported yet")
        given = last.attrs["operandSegmentSizes"][1]
        condition, *operands = last.operands
        then, other = last.successors
        ways = (
            self._way(then, tuple(cv.values(operands[:given]))),
            self._way(other, tuple(cv.values(operands[given:]))),
        )
        sides = []
        for mine, against in (ways, ways[::-1]):
            part = inside & (self.reach[mine.target] - self.reach[against.target])
            side = Builder(Block(), b.loc)
            sides.append((side, self._follow([mine], part, side)))
        return self._branch(cv.env[condition], sides, b, alone=True)

    def _way(self, target: MlirBlock, values: tuple[Value, ...]) -> _Way:
        """Go to a block; one that only returns is the end itself, so that it is never shared."""
        if len(target.ops) > 1 or target.ops[0].successors:
            return _Way(target, values)
        self.cv.bind(target.args, values)
        return _Way(self.end, tuple(self.cv.values(target.ops[0].operands)))

    def _branch(
        self, condition: Value, sides: Sequence[tuple[Builder, list[_Way]]], b: Builder,
        *, alone: bool,
    ) -> list[_Way]:  # fmt: skip
        """Emit an `if` of two filled blocks; return the ways that one or both of them take.

        `alone` says that there are no other ways, so that a single one needs no flag.
        """
        found = {w.target: w for _, ways in sides for w in ways}
        flagged = not (alone and len(found) == 1)
        for side, ways in sides:
            mine = {w.target: w for w in ways}
            given: list[Value] = []
            for target, example in found.items():
                if flagged:
                    given.append(_flag(mine.get(target), side))
                there = mine.get(target)
                given += there.values if there else [side.const(v.type, 0) for v in example.values]
            side.op("yield", given)
        blocks = [side.block for side, _ in sides]
        types = [v.type for v in blocks[0].terminator.operands]
        results = iter(b.op("if", [condition], types, {}, blocks).results)
        ways = []
        for target, example in found.items():
            taken = next(results) if flagged else None
            values = tuple(next(results) for _ in example.values)
            ways.append(_Way(target, values, taken))
        return ways


def _flag(way: _Way | None, b: Builder) -> Value:
    """Say inside one side of an `if` whether it takes a way."""
    if way is not None and way.taken is not None:
        return way.taken
    return b.const(Type("i1"), int(way is not None))

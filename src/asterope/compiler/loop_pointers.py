"""Loops that carry separable blocks: carry their scalar, or also their vectors, instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from asterope.compiler.separable import Parts, Separable
from asterope.ir import Block, Builder, Op, Value

if TYPE_CHECKING:
    from asterope.compiler.tiles import TileFinder

__all__ = ["LoopAttempt"]


class LoopAttempt:
    """One try at a loop under a plan for each separable carried value."""

    def __init__(
        self, inner: TileFinder, op: Op, operands: list[Value], plans: Mapping[int, str]
    ) -> None:
        self.inner, self.op, self.operands, self.plans = inner, op, operands, dict(plans)
        self.known = Separable(inner.known.parts)
        self.block = Block()
        self.inits: list[Value] = []
        self.layout: list[tuple[int, Parts | None]] = []

    def run(self) -> list[int]:
        """Rewrite the body; return the carried values whose plan does not hold."""
        (source,) = self.op.blocks
        counter = Value(source.args[0].type, None, source.args[0].hint)
        self.inner.env[source.args[0]] = counter
        self.block.args.append(counter)
        entry = Builder(self.block, self.op.loc)
        for i, (arg, init) in enumerate(zip(source.args[1:], self.operands[3:], strict=True)):
            self._carry(entry, i, arg, init)
        self.inner.fill(source.ops[:-1], self.block)
        return self._close(source)

    def _carry(self, entry: Builder, i: int, arg: Value, init: Value) -> None:
        plan = self.plans.get(i)
        start = self.known.of(init) if plan else None
        if start is None or start.scalar is None:
            new = Value(arg.type, None, arg.hint)
            self.block.args.append(new)
            self.inits.append(init)
            self.layout.append((i, None))
            self.inner.env[arg] = new
            return
        parts = Parts(start.rank, self._argument(start.scalar, arg.hint), dict(start.along))
        if plan == "all":
            parts.along = {d: self._argument(v, arg.hint) for d, v in start.along.items()}
        self.layout.append((i, parts))
        whole = self.inner.known.whole(parts, arg.type, entry)
        self.inner.env[arg] = whole
        self.inner.known.parts[whole] = parts

    def _argument(self, init: Value, hint: str) -> Value:
        new = Value(init.type, None, hint)
        self.block.args.append(new)
        self.inits.append(init)
        return new

    def _close(self, source: Block) -> list[int]:
        """Write the yield; return the indices whose next value does not follow the plan."""
        given = [self.inner.env[v] for v in source.terminator.operands]
        failed, yields = [], []
        for i, parts in self.layout:
            if parts is None:
                yields.append(given[i])
                continue
            after = self.inner.known.of(given[i])
            is_safe = after is not None and (after.exact or given[i].type.is_ptr)
            if after is None or not is_safe or not self._follows(parts, after, self.plans[i]):
                failed.append(i)
                continue
            assert after.scalar is not None
            yields.append(after.scalar)
            if self.plans[i] == "all":
                yields += [after.along[d] for d in parts.along]
        Builder(self.block, source.terminator.loc).op("yield", yields)
        return failed

    @staticmethod
    def _follows(before: Parts, after: Parts, plan: str) -> bool:
        if after.scalar is None or before.scalar is None:
            return False
        if after.scalar.type != before.scalar.type:
            return False
        if plan == "scalar":
            return before.same_vectors(after)
        return before.along.keys() == after.along.keys() and all(
            before.along[d].type == after.along[d].type for d in before.along
        )

    def commit(self, env: dict[Value, Value], known: Separable, b: Builder) -> None:
        """Put the loop in place and bind its results."""
        types = [v.type for v in self.inits]
        new = b.op("for", [*self.operands[:3], *self.inits], types, self.op.attrs, [self.block])
        results = iter(new.results)
        for i, parts in self.layout:
            old = self.op.results[i]
            if parts is None:
                env[old] = next(results)
                continue
            after = Parts(parts.rank, next(results), dict(parts.along))
            if self.plans[i] == "all":
                after.along = {d: next(results) for d in parts.along}
            else:
                start = known.of(self.operands[3 + i])
                assert start is not None
                after.along = dict(start.along)
            whole = known.whole(after, old.type, b)
            env[old] = whole
            known.parts[whole] = after

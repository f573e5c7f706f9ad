"""The state of one conversion; what each op becomes is said by rules, one family a file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asterope.ir import Block, Builder, Kernel, Op, Param, Value
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.convert.types import convert_types, part_names
from asterope.triton_backend.ttir import MlirBlock, MlirOp, MlirValue

__all__ = ["Converter", "Rule"]

_HINTS = {
    "cf.cond_br": "put the rest of the kernel under `if` instead of returning early",
    "tt.call": "remove noinline=True",
    "tt.elementwise_inline_asm": "inline assembly is for one GPU; write it in tl operations",
}

Rule = Callable[["Converter", MlirOp, Builder], None]


def _stem(value: MlirValue) -> str:
    """Return the user's name of a value without the number MLIR added, for people to read."""
    return re.sub(r"_\d+$", "", value.name)


class Converter:
    """Converts one function; `env` maps Triton's values to ours.

    A tensor descriptor is several values of ours, a bundle: `values` takes bundles apart,
    `bind` puts them together, and everything that carries values goes through these two.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        self.env: dict[MlirValue, Value] = {}
        self.bundles: dict[MlirValue, tuple[Value, ...]] = {}

    def function(self, op: MlirOp, attrs: dict[str, Any]) -> Kernel:
        """Convert a function; `attrs` become the kernel's."""
        if len(op.regions[0]) != 1:
            branch = next(q for b in op.regions[0] for q in b.ops if q.name.startswith("cf."))
            raise unsupported(branch, "returning early is not supported yet", _HINTS["cf.cond_br"])
        (source,) = op.regions[0]
        body = self._enter(source, op)
        given = op.attrs.get("arg_attrs") or [{}] * len(source.args)
        params = [
            Param(name, int(a.get("tt.divisibility", 1)))
            for i, (value, a) in enumerate(zip(source.args, given, strict=True))
            for name in part_names(value.name or f"arg{i}", value.type)
        ]
        self._fill(source, body)
        return Kernel(str(op.attrs["sym_name"]), params, body, attrs)

    def _enter(self, source: MlirBlock, op: MlirOp) -> Block:
        block = Block([Value(t) for a in source.args for t in convert_types(a.type, op)])
        self.bind(source.args, block.args)
        return block

    def _fill(self, source: MlirBlock, block: Block) -> None:
        builder = Builder(block)
        for op in source.ops:
            builder.loc = op.loc
            self.op(op, builder)

    def block(self, op: MlirOp, region: list[MlirBlock]) -> Block:
        """Convert the only block of a region of `op`."""
        if len(region) != 1:
            raise unsupported(op, "branches inside a loop are not supported yet")
        block = self._enter(region[0], op)
        self._fill(region[0], block)
        return block

    def op(self, op: MlirOp, b: Builder) -> None:
        """Convert one op by its rule."""
        rule = self.rules.get(op.name)
        if rule is None:
            raise unsupported(op, f"{op.name} is not supported yet", _HINTS.get(op.name, ""))
        rule(self, op, b)

    def emit(self, op: MlirOp, b: Builder, name: str, **attrs: Any) -> Op:
        """Append the op of ours that stands for one of Triton's, operand for operand."""
        types = [t for r in op.results for t in convert_types(r.type, op)]
        new = b.op(name, self.values(op.operands), types, attrs)
        self.name(op, new.results)
        return new

    def name(self, op: MlirOp, values: Sequence[Value]) -> None:
        """Remember which values of ours an op's results are."""
        self.bind(op.results, values)

    def values(self, theirs: Sequence[MlirValue]) -> list[Value]:
        """Return the values of ours that stand for values of Triton's, bundles taken apart."""
        return [v for t in theirs for v in self.bundles.get(t) or (self.env[t],)]

    def bind(self, theirs: Sequence[MlirValue], ours: Sequence[Value]) -> None:
        """Remember which values of ours stand for values of Triton's."""
        rest = iter(ours)
        for value in theirs:
            parts = tuple(itertools.islice(rest, len(part_names("", value.type))))
            if len(parts) == 1:
                self.env[value] = parts[0]
                parts[0].hint = _stem(value)
                continue
            self.bundles[value] = parts
            for part in parts:
                part.hint = part.hint or _stem(value)

"""The state of one conversion; what each op becomes is said by rules, one family a file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asterope.ir import Block, Builder, Kernel, Op, Param, Value
from asterope.triton_backend.convert.branches import structured
from asterope.triton_backend.convert.bundles import convert_types, part_names
from asterope.triton_backend.convert.refusal import unsupported
from asterope.triton_backend.ttir import MlirBlock, MlirOp, MlirValue

__all__ = ["Converter", "Rule"]

_HINTS = {
    "tt.elementwise_inline_asm": "inline assembly is for one GPU; write it in tl operations",
}

Rule = Callable[["Converter", MlirOp, Builder], None]


def _stem(value: MlirValue) -> str:
    """Return the user's name of a value without the number MLIR added, for people to read."""
    return re.sub(r"_\d+$", "", value.name)


class Converter:
    """Converts one function and those it calls; `env` maps Triton's values to ours.

    `functions` are those of the module by their symbols, `options` what rules ask of the launch.
    A tensor descriptor or block pointer is several values of ours, a bundle: `values` takes
    bundles apart, `bind` puts them together, and all that carries values goes through these two.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        functions: Mapping[str, MlirOp] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.rules = rules
        self.functions = functions or {}
        self.options = options or {}
        self.env: dict[MlirValue, Value] = {}
        self.bundles: dict[MlirValue, tuple[Value, ...]] = {}
        self._calls: list[tuple[MlirOp, str]] = []

    def function(self, op: MlirOp, attrs: dict[str, Any]) -> Kernel:
        """Convert a function; `attrs` become the kernel's."""
        source = op.regions[0][0]
        body = self._enter(source, op)
        given = op.attrs.get("arg_attrs") or [{}] * len(source.args)
        params = [
            Param(name, int(a.get("tt.divisibility", 1)))
            for i, (value, a) in enumerate(zip(source.args, given, strict=True))
            for name in part_names(value.name or f"arg{i}", value.type)
        ]
        b = Builder(body)
        structured(self, op.regions[0], body.args, b)
        b.op("return")
        return Kernel(str(op.attrs["sym_name"]), params, body, attrs)

    def call(self, op: MlirOp, b: Builder) -> list[Value]:
        """Emit the function that a call names in place of the call; return what it returns."""
        callee = self.functions[op.attrs["callee"]]
        if any(callee is function for function, _ in self._calls):
            raise unsupported(op, "a function that calls itself is not supported")
        self._calls.append((callee, self.location(op)))
        values = structured(self, callee.regions[0], self.values(op.operands), b)
        self._calls.pop()
        return values

    def location(self, op: MlirOp) -> str:
        """Return the user's line of an op: inside Triton's own library, that of the call."""
        if self._calls and (not op.loc or "/triton/language/" in op.loc):
            return self._calls[-1][1]
        return op.loc

    def _enter(self, source: MlirBlock, op: MlirOp) -> Block:
        block = Block([Value(t) for a in source.args for t in convert_types(a.type, op)])
        self.bind(source.args, block.args)
        return block

    def convert(self, ops: Sequence[MlirOp], b: Builder) -> None:
        """Convert ops in order."""
        for op in ops:
            b.loc = self.location(op)
            self.op(op, b)

    def block(self, op: MlirOp, region: list[MlirBlock]) -> Block:
        """Convert a region of `op` to one block; branches between several become `if`s."""
        block = self._enter(region[0], op)
        b = Builder(block)
        if len(region) == 1:
            self.convert(region[0].ops, b)
        else:
            b.op("yield", structured(self, region, block.args, b))
        return block

    def op(self, op: MlirOp, b: Builder) -> None:
        """Convert one op by its rule."""
        rule = self.rules.get(op.name)
        if rule is None:
            text = op.attrs.get("asm_string")
            what = f"{op.name} of {text!r}" if text else op.name
            raise unsupported(op, f"{what} is not supported", _HINTS.get(op.name, ""))
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
                parts[0].hint = _stem(value) or parts[0].hint
                continue
            self.bundles[value] = parts
            for part in parts:
                part.hint = part.hint or _stem(value)

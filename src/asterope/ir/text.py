"""The text form of tile IR: what is printed parses back to the same program.

kernel @double(%x: ptr<fp32> div 16, %n: i32) {num_stages = 2} {
  %0 = program_id() {axis = 0} : i32 loc "double.py:7"
  ...
  %8, %9 = for(%lo, %hi, %step, %a, %b) {
    (%i: i32, %c: fp32, %d: i32[4]):
    ...
    yield(%e, %f)
  } : fp32, i32[4]
  return()
}
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from asterope.errors import IRError
from asterope.ir.program import Block, Kernel, Op, Param, Value
from asterope.ir.types import Type, parse_type

__all__ = ["parse_kernel", "print_kernel"]


# -- printing ---------------------------------------------------------------------------------
class _Names:
    def __init__(self) -> None:
        self._of: dict[Value, str] = {}

    def define(self, value: Value) -> str:
        name = f"%{len(self._of)}"
        self._of[value] = name
        return name

    def __getitem__(self, value: Value) -> str:
        return self._of[value]


def _attribute(value: Any) -> str:
    if isinstance(value, float):
        return value.hex() if math.isfinite(value) else str(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _attributes(attrs: dict[str, Any]) -> str:
    if not attrs:
        return ""
    return " {" + ", ".join(f"{k} = {_attribute(v)}" for k, v in sorted(attrs.items())) + "}"


def _print_block(block: Block, names: _Names, indent: str, lines: list[str]) -> None:
    for op in block.ops:
        operands = ", ".join(names[v] for v in op.operands)
        text = f"{op.name}({operands}){_attributes(op.attrs)}"
        inner: list[str] = []
        for body in op.blocks:
            inner.append(f"{indent}  ({_arguments(body, names)}):")
            _print_block(body, names, indent + "  ", inner)
        results = ", ".join(names.define(v) for v in op.results)
        head = f"{indent}{results} = " if results else indent
        tail = f" : {', '.join(str(v.type) for v in op.results)}" if results else ""
        loc = f" loc {json.dumps(op.loc)}" if op.loc else ""
        if op.blocks:
            lines += [f"{head}{text} {{", *inner, f"{indent}}}{tail}{loc}"]
        else:
            lines.append(f"{head}{text}{tail}{loc}")


def _arguments(block: Block, names: _Names) -> str:
    return ", ".join(f"{names.define(v)}: {v.type}" for v in block.args)


def print_kernel(kernel: Kernel) -> str:
    """Write a kernel as text."""
    names = _Names()
    params = []
    for param, value in zip(kernel.params, kernel.body.args, strict=True):
        names.define(value)
        names._of[value] = f"%{param.name}"
        divisible = f" div {param.divisibility}" if param.divisibility != 1 else ""
        params.append(f"%{param.name}: {value.type}{divisible}")
    lines = [f"kernel @{kernel.name}({', '.join(params)}){_attributes(kernel.attrs)} {{"]
    _print_block(kernel.body, names, "  ", lines)
    return "\n".join([*lines, "}"]) + "\n"


# -- parsing ----------------------------------------------------------------------------------
_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\n\s*)*(?P<t>
      "(?:[^"\\]|\\.)*" | %[\w.]+ | @[\w.$-]+ | [(){}\[\],:=<>]
    | [-+]?0x[0-9a-f.]+p[-+]?\d+ | [-+]?(?:inf|nan)\b | [-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)? | \w+ )""",
    re.X,
)
_NUMBER = re.compile(r"[-+]?(?:0x|inf\b|nan\b|\d)")


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.values: dict[str, Value] = {}
        self.next()

    def next(self) -> str:
        match = _TOKEN.match(self.text, self.end)
        taken = getattr(self, "token", "")
        self.token = match["t"] if match else ""
        self.start = match.start("t") if match else len(self.text)
        if match is None and self.text[self.end :].strip():
            raise self.error(f"cannot read {self.text[self.end :].strip()[:20]!r}")
        self.end = match.end() if match else len(self.text)
        return taken

    def error(self, what: str) -> IRError:
        line = self.text.count("\n", 0, getattr(self, "start", 0)) + 1
        return IRError(what, where=f"tile IR line {line}")

    def expect(self, token: str) -> None:
        if self.token != token:
            raise self.error(f"expected {token!r}, found {self.token!r}")
        self.next()

    def accept(self, token: str) -> bool:
        if self.token != token:
            return False
        self.next()
        return True

    def type(self) -> Type:
        begin = self.start
        self.next()
        if self.accept("<"):
            while not self.accept(">"):
                self._skip_in_type()
        if self.token == "[":
            while not self.accept("]"):
                self._skip_in_type()
        text = self.text[begin : self.start].strip()
        try:
            return parse_type(text)
        except IRError as error:
            raise self.error(error.what) from None

    def _skip_in_type(self) -> None:
        if not self.token:
            raise self.error("the text ends inside a type")
        self.next()

    def attribute(self) -> Any:
        token = self.token
        if token == "[":
            self.next()
            items = []
            while not self.accept("]"):
                items.append(self.attribute())
                if self.token != "]":
                    self.expect(",")
            return tuple(items)
        self.next()
        if token in ("true", "false"):
            return token == "true"
        if token.startswith('"'):
            return json.loads(token)
        if not _NUMBER.match(token):
            raise self.error(f"{token!r} is not a number, string, list, true or false")
        if "0x" in token or "n" in token:
            return float.fromhex(token)
        return float(token) if "." in token or "e" in token else int(token)

    def attributes(self) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        self.expect("{")
        while not self.accept("}"):
            key = self.next()
            self.expect("=")
            attrs[key] = self.attribute()
            if self.token != "}":
                self.expect(",")
        return attrs

    def define(self, name: str, value: Value) -> None:
        if name in self.values:
            raise self.error(f"{name} is defined twice")
        self.values[name] = value

    def kernel(self) -> Kernel:
        self.expect("kernel")
        name = self.next().removeprefix("@")
        self.expect("(")
        params, body = [], Block()
        while not self.accept(")"):
            param, value, divisibility = self.next(), Value(Type("i32")), 1
            self.expect(":")
            value.type = self.type()
            if self.accept("div"):
                divisibility = int(self.next())
            self.define(param, value)
            params.append(Param(param.removeprefix("%"), divisibility))
            body.args.append(value)
            if self.token != ")":
                self.expect(",")
        attrs = self.attributes() if self._has_attributes() else {}
        self.expect("{")
        body.ops = self.ops()
        self.expect("}")
        return Kernel(name, params, body, attrs)

    def _has_attributes(self) -> bool:
        """Tell `{axis = 0}` and `{}` from a brace that opens blocks."""
        if self.token != "{":
            return False
        return bool(re.match(r"\s*(?:\w+\s*=(?!=)|\})", self.text[self.end :]))

    def ops(self) -> list[Op]:
        found = []
        while self.token not in ("}", "(", ""):
            found.append(self.op())
        return found

    def op(self) -> Op:
        names: list[str] = []
        while self.token.startswith("%"):
            names.append(self.next())
            if not self.accept(","):
                self.expect("=")
                break
        op_name = self.next()
        op = Op(op_name, self._operands_after("("), {}, [])
        if self._has_attributes():
            op.attrs = self.attributes()
        if self.accept("{"):
            while not self.accept("}"):
                op.blocks.append(self.block())
        if names:
            self.expect(":")
            for i, name in enumerate(names):
                if i:
                    self.expect(",")
                value = Value(self.type(), op)
                op.results.append(value)
                self.define(name, value)
        if self.accept("loc"):
            op.loc = str(self.attribute())
        return op

    def _operands_after(self, bracket: str) -> list[Value]:
        self.expect(bracket)
        operands = []
        while not self.accept(")"):
            name = self.next()
            if name not in self.values:
                raise self.error(f"{name} is not defined")
            operands.append(self.values[name])
            if self.token != ")":
                self.expect(",")
        return operands

    def block(self) -> Block:
        block = Block()
        self.expect("(")
        while not self.accept(")"):
            name = self.next()
            self.expect(":")
            value = Value(self.type())
            self.define(name, value)
            block.args.append(value)
            if self.token != ")":
                self.expect(",")
        self.expect(":")
        block.ops = self.ops()
        return block


def parse_kernel(text: str) -> Kernel:
    """Read a kernel from text.

    Raises: IRError with the line.
    """
    parser = _Parser(text)
    kernel = parser.kernel()
    if parser.token:
        raise parser.error(f"{parser.token!r} follows the kernel")
    return kernel

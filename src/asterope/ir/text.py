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


_HINT = re.compile(r"[A-Za-z_]\w*")


# -- printing ---------------------------------------------------------------------------------
class _Names:
    """Names of values: their hints where they have them, else numbers; each once."""

    def __init__(self) -> None:
        self._of: dict[Value, str] = {}
        self._used: set[str] = set()

    def define(self, value: Value, name: str = "") -> str:
        hint = name or (value.hint if _HINT.fullmatch(value.hint) else "")
        count = len(self._of)
        name = hint or str(count)
        while name in self._used:
            count += 1
            name = f"{hint}_{count}" if hint else str(count)
        self._used.add(name)
        self._of[value] = f"%{name}"
        return self._of[value]

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
        divisible = f" div {param.divisibility}" if param.divisibility != 1 else ""
        params.append(f"{names.define(value, param.name)}: {value.type}{divisible}")
    lines = [f"kernel @{kernel.name}({', '.join(params)}){_attributes(kernel.attrs)} {{"]
    _print_block(kernel.body, names, "  ", lines)
    return "\n".join([*lines, "}"]) + "\n"


# -- parsing ----------------------------------------------------------------------------------
_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*(?:\n\s*|$))*(?P<t>
      "(?:[^"\\]|\\.)*" | %[\w.]+ | @[\w.$-]+ | [(){}\[\],:=<>]
    | [-+]?0x[0-9a-f.]+p[-+]?\d+ | [-+]?(?:inf|nan)\b | [-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)? | \w+ )""",
    re.X,
)
_SPACE = re.compile(r"\s*(?:#[^\n]*(?:\n\s*|$))*")
_NUMBER = re.compile(r"[-+]?(?:0x|inf\b|nan\b|\d)")


class _Parser:
    """One token ahead: `token` is at `start`, the one before it ended at `taken_end`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.token = ""
        self.values: dict[str, Value] = {}
        self.next()

    def next(self) -> str:
        taken, self.taken_end = self.token, self.end
        match = _TOKEN.match(self.text, self.end)
        self.token = match["t"] if match else ""
        if match is None:
            rest = _SPACE.match(self.text, self.end)
            self.start = self.end = rest.end() if rest else self.end
            if self.text[self.end :]:
                raise self.error(f"cannot read {self.text[self.end :][:20]!r}")
            return taken
        self.start, self.end = match.span("t")
        return taken

    def error(self, what: str, at: int | None = None) -> IRError:
        line = self.text.count("\n", 0, self.start if at is None else at) + 1
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
        try:
            return parse_type(self.text[begin : self.taken_end])
        except IRError as error:
            raise self.error(error.what, begin) from None

    def _skip_in_type(self) -> None:
        if not self.token:
            raise self.error("the text ends inside a type")
        self.next()

    def attribute(self) -> Any:
        token, begin = self.token, self.start
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
        try:
            if token.startswith('"'):
                return json.loads(token)
            if not _NUMBER.match(token):
                raise ValueError(token)
            if "0x" in token or "n" in token:
                return float.fromhex(token)
            return float(token) if "." in token or "e" in token else int(token)
        except ValueError:
            what = f"{token!r} is not a number, string, list, true or false"
            raise self.error(what, begin) from None

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

    def name(self) -> tuple[str, int]:
        """Take the name of a value; return it and where it stands."""
        if not self.token.startswith("%"):
            raise self.error(f"expected a name with %, found {self.token!r}")
        begin = self.start
        return self.next(), begin

    def define(self, name: tuple[str, int], value: Value) -> None:
        word, begin = name
        if word in self.values:
            raise self.error(f"{word} is defined twice", begin)
        self.values[word] = value
        value.hint = "" if word[1:].isdecimal() else word[1:]

    def kernel(self) -> Kernel:
        self.expect("kernel")
        name = self.next().removeprefix("@")
        self.expect("(")
        params, body = [], Block()
        while not self.accept(")"):
            param = self.name()
            self.expect(":")
            value, divisibility = Value(self.type()), 1
            if self.accept("div"):
                divisibility = self._whole()
            self.define(param, value)
            value.hint = param[0][1:]
            params.append(Param(param[0][1:], divisibility))
            body.args.append(value)
            if self.token != ")":
                self.expect(",")
        attrs = self.attributes() if self._has_attributes() else {}
        self.expect("{")
        body.ops = self.ops()
        self.expect("}")
        return Kernel(name, params, body, attrs)

    def _whole(self) -> int:
        if not self.token.isdecimal():
            raise self.error(f"{self.token!r} is not a whole number")
        return int(self.next())

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
        names: list[tuple[str, int]] = []
        while self.token.startswith("%"):
            names.append(self.name())
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
            name, begin = self.name()
            if name not in self.values:
                raise self.error(f"{name} is not defined", begin)
            operands.append(self.values[name])
            if self.token != ")":
                self.expect(",")
        return operands

    def block(self) -> Block:
        block = Block()
        self.expect("(")
        while not self.accept(")"):
            name = self.name()
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

"""TTIR as data: ask Triton for the generic text of a module and parse it.

Triton's `str()` prints one pretty syntax an op. MLIR's generic form has one syntax for all ops;
it is chosen by an LLVM command-line option, which libtriton exports, so it can be switched on
around one print. `--mlir-print-local-scope` puts types and locations inline.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from asterope.errors import UnsupportedError

__all__ = ["MlirBlock", "MlirOp", "MlirValue", "generic_text", "parse_module"]

_lock = threading.Lock()


@functools.cache
def _library() -> ctypes.CDLL:
    from triton._C import libtriton

    library = ctypes.CDLL(libtriton.__file__)
    library.LLVMParseCommandLineOptions.argtypes = [
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_char_p,
    ]
    library.LLVMParseCommandLineOptions.restype = None
    library._ZN4mlir27registerAsmPrinterCLOptionsEv()
    return library


def _set_options(*options: str) -> None:
    library = _library()
    library._ZN4llvm2cl25ResetAllOptionOccurrencesEv()
    argv = (ctypes.c_char_p * (len(options) + 1))(b"asterope", *[o.encode() for o in options])
    library.LLVMParseCommandLineOptions(len(argv), argv, b"")


def generic_text(module: Any) -> str:
    """Print a Triton module in MLIR's generic form, with locations."""
    flags = ("--mlir-print-op-generic", "--mlir-print-local-scope")
    with _lock:
        _set_options(*flags)
        try:
            text = str(module.str())
        finally:
            _set_options(*(f"{flag}=false" for flag in flags))
    if not text.lstrip().startswith('"builtin.module"'):
        raise UnsupportedError(
            "Triton did not print its IR in generic form",
            where="triton",
            hint="Asterope is tested with triton 3.7.1: pip install triton==3.7.1",
        )
    return text


@dataclass(slots=True, eq=False)
class MlirValue:
    """An SSA value: its type as text, and the name the user gave it, if any.

    MLIR adds `_1`, `_2` to names that occur more than once.
    """

    type: str
    name: str


@dataclass(slots=True, eq=False)
class MlirOp:
    """One op in generic form; properties and attributes are merged."""

    name: str
    operands: list[MlirValue] = field(default_factory=list)
    results: list[MlirValue] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)
    regions: list[list[MlirBlock]] = field(default_factory=list)
    successors: list[MlirBlock] = field(default_factory=list)
    loc: str = ""


@dataclass(slots=True, eq=False)
class MlirBlock:
    """A block of a region."""

    args: list[MlirValue] = field(default_factory=list)
    ops: list[MlirOp] = field(default_factory=list)


_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(
    rf"""\s*(?://[^\n]*\n\s*)*(?P<t>
      {_STRING} | %[\w.$\#-]+(?::\d+)? | \^[\w.$-]+ | [@\#!][\w.$-]+ | -> | \{{-\# | \#-\}}
    | 0x[0-9A-Fa-f]+ | -?\d+(?:\.\d*(?:[eE][-+]?\d+)?)?(?!\w) | [A-Za-z_][\w.$]* | \S)""",
    re.X,
)
_TYPE_HEAD = re.compile(r"[!\w.$]+")
_STRING_RE = re.compile(_STRING)
_NUMBER = re.compile(r"-?\d|0x")


class _Parser:
    """Recursive descent over generic MLIR; values live in nested scopes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.token: str = ""
        self.start = 0
        self.scopes: list[dict[str, MlirValue]] = [{}]
        self.labels: list[dict[str, MlirBlock]] = [{}]
        self.advance()

    # -- tokens ---------------------------------------------------------------------------------
    def advance(self) -> str:
        taken = self.token
        if self.start == len(self.text):
            raise self.fail("more text")
        match = _TOKEN.match(self.text, self.end)
        self.token = match["t"] if match else ""
        self.start = match.start("t") if match else len(self.text)
        self.end = match.end() if match else len(self.text)
        return taken

    def resume_at(self, position: int) -> None:
        self.end = position
        self.advance()

    def fail(self, expected: str) -> UnsupportedError:
        near = self.text[max(0, self.start - 40) : self.start + 40].replace("\n", " ")
        return UnsupportedError(
            f"cannot read Triton's IR: expected {expected} near {near!r}",
            where="triton",
            hint="Asterope is tested with triton 3.7.1",
        )

    def expect(self, token: str) -> None:
        if self.token != token:
            raise self.fail(repr(token))
        self.advance()

    def accept(self, token: str) -> bool:
        if self.token != token:
            return False
        self.advance()
        return True

    # -- balanced text --------------------------------------------------------------------------
    def _skip_balanced(self, position: int) -> int:
        """Return the end of the bracket group that opens at `position`."""
        text, depth = self.text, 0
        while position < len(text):
            char = text[position]
            if char == '"':
                match = _STRING_RE.match(text, position)
                position = match.end() if match else len(text)
                continue
            if char in "<([{":
                depth += 1
            elif char in ")]}" or (char == ">" and text[position - 1] != "-"):
                depth -= 1
            position += 1
            if depth == 0:
                return position
        raise self.fail("a closing bracket")

    def group(self) -> str:
        """Take the bracket group that starts at the current token; return what is inside."""
        end = self._skip_balanced(self.start)
        inside = self.text[self.start + 1 : end - 1]
        self.resume_at(end)
        return inside

    def type(self) -> str:
        match = _TYPE_HEAD.match(self.text, self.start)
        if not match:
            raise self.fail("a type")
        begin, end = self.start, match.end()
        if self.text[end : end + 1] == "<":
            end = self._skip_balanced(end)
        self.resume_at(end)
        return self.text[begin:end]

    def types(self) -> list[str]:
        """Read a parenthesised list of types."""
        self.expect("(")
        found = []
        while not self.accept(")"):
            found.append(self.type())
            self.accept(",")
        return found

    # -- attributes -----------------------------------------------------------------------------
    def attribute(self) -> Any:
        token = self.token or self.advance()
        special = _ATTRIBUTES.get(token if token.isalpha() else token[0])
        if special:
            return special(self)
        if token[0] == "#":
            self.advance()
            return (token, self.group() if self.token == "<" else "")
        if _NUMBER.match(token):
            return self._number()
        if token == "(":
            begin = self.start
            self.types()
            self.expect("->")
            if self.token == "(":
                self.types()
            else:
                self.type()
            return self.text[begin : self.start]
        return self.type()

    def _list(self) -> list[Any]:
        self.expect("[")
        items = []
        while not self.accept("]"):
            items.append(self.attribute())
            self.accept(",")
        return items

    def _string(self) -> str:
        value = _unescaped(self.advance()[1:-1])
        if self.accept(":"):
            self.type()
        return value

    def _word(self) -> bool:
        return self.advance() != "false"

    def _symbol(self) -> str:
        """Read `@name` or `@"name"`, which is what a name with unusual characters becomes."""
        name = self.advance()[1:]
        return name or _unescaped(self.advance()[1:-1])

    def _dense(self) -> tuple[str, str, str]:
        self.advance()
        content = self.group()
        self.expect(":")
        return ("dense", content.strip(), self.type())

    def _array(self) -> list[int | bool]:
        self.advance()
        _, _, items = self.group().partition(":")
        words = [w.strip() for w in items.split(",") if w.strip()]
        return [w == "true" if w in ("true", "false") else int(w) for w in words]

    def _number(self) -> Any:
        text = self.advance()
        type_ = self.type() if self.accept(":") else ""
        if type_[:1] in ("f", "b") or (not type_ and "." in text):
            return ("float", text, type_)
        return int(text, 0)

    def dictionary(self) -> dict[str, Any]:
        self.expect("{")
        found: dict[str, Any] = {}
        while not self.accept("}"):
            key = self.advance().strip('"')
            found[key] = self.attribute() if self.accept("=") else True
            self.accept(",")
        return found

    # -- ops ------------------------------------------------------------------------------------
    def lookup(self, name: str) -> MlirValue:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise self.fail(f"a definition of {name}")

    def op(self) -> MlirOp:
        names = self._result_names()
        op = MlirOp(self.advance().strip('"'))
        self.expect("(")
        while not self.accept(")"):
            op.operands.append(self.lookup(self.advance()))
            self.accept(",")
        if self.accept("["):
            while not self.accept("]"):
                op.successors.append(self.label())
                self.accept(",")
        if self.token == "<":
            self.advance()
            op.attrs.update(self.dictionary())
            self.expect(">")
        if self.accept("("):
            while not self.accept(")"):
                op.regions.append(self.region())
                self.accept(",")
        if self.token == "{":
            op.attrs.update(self.dictionary())
        self.expect(":")
        self.types()
        self.expect("->")
        types = self.types() if self.token == "(" else [self.type()]
        self._define_results(op, names, types)
        if self.accept("loc"):
            op.loc = user_location(self.group())
        return op

    def _result_names(self) -> list[str]:
        names: list[str] = []
        while self.token.startswith("%"):
            names.append(self.advance())
            if not self.accept(","):
                self.expect("=")
        return names

    def _define_results(self, op: MlirOp, names: list[str], types: list[str]) -> None:
        scope, at = self.scopes[-1], 0
        for text in names:
            name, _, count = text.partition(":")
            for i in range(int(count or 1)):
                if at == len(types):
                    raise self.fail(f"{at + 1} result types")
                value = MlirValue(types[at], _given_name(name))
                op.results.append(value)
                scope[f"{name}#{i}" if count else name] = value
                at += 1

    def region(self) -> list[MlirBlock]:
        self.expect("{")
        self.scopes.append({})
        self.labels.append({})
        blocks: list[MlirBlock] = []
        if self.token != "}" and not self.token.startswith("^"):
            blocks.append(MlirBlock())
        while not self.accept("}"):
            if self.token.startswith("^"):
                blocks.append(self._block_head())
            else:
                blocks[-1].ops.append(self.op())
        self.scopes.pop()
        if set(self.labels.pop().values()) - set(blocks):
            raise self.fail("a block that is branched to")
        return blocks

    def label(self) -> MlirBlock:
        """Take the name of a block of this region, which may come before the block itself."""
        return self.labels[-1].setdefault(self.advance(), MlirBlock())

    def _block_head(self) -> MlirBlock:
        block = self.label()
        if self.accept("("):
            while not self.accept(")"):
                name = self.advance()
                self.expect(":")
                value = MlirValue(self.type(), _given_name(name))
                block.args.append(value)
                self.scopes[-1][name] = value
                if self.accept("loc"):
                    self.group()
                self.accept(",")
        self.expect(":")
        return block


_ATTRIBUTES: dict[str, Callable[[_Parser], Any]] = {
    "[": _Parser._list,
    "{": _Parser.dictionary,
    '"': _Parser._string,
    "@": _Parser._symbol,
    "true": _Parser._word,
    "false": _Parser._word,
    "unit": _Parser._word,
    "dense": _Parser._dense,
    "array": _Parser._array,
}
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)")
_POSITION = re.compile(r'"((?:[^"\\]|\\.)*)":(\d+):(\d+)')
_GENERATED_NAME = re.compile(r"%(?:\d+|arg\d+|cst(?:_\d+)?|c-?\d\w*)$")


def _unescaped(text: str) -> str:
    """Undo MLIR's escapes: a backslash and two hex digits are a byte of UTF-8."""
    if "\\" not in text:
        return text

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes.fromhex(code.decode()) if len(code) == 2 else code

    return _ESCAPE.sub(byte, text.encode()).decode()


def _given_name(name: str) -> str:
    """Return the user's name of a value, or "" for one that MLIR made up."""
    return "" if _GENERATED_NAME.match(name) else name[1:]


def user_location(text: str) -> str:
    """Return `file:line:column` of the innermost call that is not inside Triton itself."""
    positions = _POSITION.findall(text)
    own = [p for p in positions if "/triton/language/" not in p[0]]
    file, line, column = (own or positions or [("", "0", "0")])[0]
    return f"{file}:{line}:{column}" if file else ""


def parse_module(text: str) -> MlirOp:
    """Parse a module in generic form.

    Raises: UnsupportedError if the text is not what triton 3.7 prints.
    """
    parser = _Parser(text)
    module = parser.op()
    if parser.token:
        raise parser.fail("the end")
    return module

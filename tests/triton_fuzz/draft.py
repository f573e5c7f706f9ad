"""A kernel under construction: statements, values in scope, arrays and numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from triton_fuzz.elements import ELEMENTS, Element

__all__ = ["SLICE", "Array", "Draft", "Statement", "Var"]

SLICE = 512  # elements of each array that belong to one program


@dataclass
class Statement:
    """One line, or the head of a block with what is inside; `otherwise` is that of an `else`."""

    text: str
    body: list | None = None
    otherwise: list | None = None

    def lines(self, indent=1):
        pad = "    " * indent
        yield pad + self.text
        if self.body is None:
            return
        for block, head in ((self.body, None), (self.otherwise, "else:")):
            if block is None:
                continue
            if head:
                yield pad + head
            for inner in block:
                yield from inner.lines(indent + 1)
            if not block:
                yield f"{pad}    pass"


@dataclass
class Array:
    """An array parameter.

    `role` is "in", "inout", "out", or "shared" by all programs, which combine by `combine`.
    `content` is "wild" (any bits), "tame" (numbers near 1) or "whole" (small whole numbers).
    `kind` says how sure the numbers in it are, see `Var`.
    """

    name: str
    elem: Element
    role: str
    content: str = "wild"
    kind: str = "exact"
    combine: str = ""


@dataclass(frozen=True)
class Var:
    """A value in scope.

    `kind` is "exact" (one result is right), "ordered" (the order of a float sum decides: the host
    has the interpreter's bits, NumPy is near), or "loose" (a function was approximated: all are
    near). Numbers with a `bound` are whole and no larger; `tame` ones hold no NaN.
    """

    name: str
    elem: Element
    shape: tuple
    kind: str = "exact"
    bound: int | None = None
    tame: bool = False


@dataclass
class Draft:
    """What is written so far; the parts of the generator add to it."""

    rng: random.Random
    grid: tuple = (1, 1, 1)
    body: list = field(default_factory=list)
    vars: list = field(default_factory=list)
    arrays: list = field(default_factory=list)
    numbers: dict = field(default_factory=dict)
    ranges: dict = field(default_factory=dict)
    shapes: list = field(default_factory=list)
    elems: list = field(default_factory=list)
    depth: int = 0
    count: int = 0

    # -- choices --------------------------------------------------------------------------------
    def below(self, stop):
        return self.rng.randrange(stop)

    def one_of(self, options):
        return self.rng.choice(list(options))

    def chance(self, percent):
        return self.rng.randrange(100) < percent

    def weighted(self, weights):
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def elem(self):
        return self.one_of(self.elems) if self.chance(70) else self.one_of(ELEMENTS.values())

    def shape(self):
        return self.one_of(self.shapes)

    # -- writing --------------------------------------------------------------------------------
    def fresh(self, letter="v"):
        self.count += 1
        return f"{letter}{self.count}"

    def say(self, text):
        self.body.append(Statement(text))

    def let(self, text, elem, shape, **known):
        """Define a value and bring it into scope."""
        var = Var(self.fresh(), elem, tuple(shape), **known)
        self.say(f"{var.name} = {text}")
        self.vars.append(var)
        return var

    def inside(self, write):
        """Write a block of statements with a scope of its own; return the statements."""
        body, scope = self.body, list(self.vars)
        self.body, self.depth = [], self.depth + 1
        write()
        written, self.body, self.vars = self.body, body, scope
        self.depth -= 1
        return written

    # -- looking --------------------------------------------------------------------------------
    def find(self, elem=None, shape=None, *, kinds=("exact",), wanted=lambda v: True):
        """Return the values in scope that fit."""
        return [
            v
            for v in self.vars
            if (elem is None or v.elem == elem)
            and (shape is None or v.shape == shape)
            and v.kind in kinds
            and wanted(v)
        ]

    def number(self, value):
        """Return a count: as a constant, or as an argument of the kernel."""
        if self.chance(40):
            return str(value)
        for name, known in self.numbers.items():
            if known == value:
                return name
        name = f"n{len(self.numbers)}"
        self.numbers[name] = value
        return name

    def range(self, size, axis, rank):
        """Return 0, 1, ... along an axis: in place, or named once on top of the kernel."""
        text = f"tl.arange(0, {size})"
        if rank > 1:
            text += f"[{', '.join(':' if i == axis else 'None' for i in range(rank))}]"
        if self.chance(25):
            return text
        return self.ranges.setdefault(text, f"r{len(self.ranges)}")

    def prelude(self):
        return [Statement(f"{name} = {text}") for text, name in self.ranges.items()]

    def array(self, elem, roles, *, content="wild", kind="exact", combine=""):
        """Return an array parameter, perhaps one that exists."""
        wanted = (elem, content, kind, combine)
        fitting = [
            a
            for a in self.arrays
            if a.role in roles and (a.elem, a.content, a.kind, a.combine) == wanted
        ]
        if fitting and (self.chance(70) or len(self.arrays) > 7):
            return self.one_of(fitting)
        role = self.one_of(roles)
        self.arrays.append(Array(f"p{len(self.arrays)}", elem, role, content, kind, combine))
        return self.arrays[-1]

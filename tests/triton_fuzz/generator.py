"""Random well-typed Triton kernels: source, grid, and what they are launched with."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

import numpy as np

from triton_fuzz import block_places, control, inexact, memory, shapes
from triton_fuzz.draft import SLICE, Draft
from triton_fuzz.elements import ELEMENTS
from triton_fuzz.expressions import expression

__all__ = ["Kernel", "generate"]

_SHAPES = (
    (8,), (16,), (32,), (64,), (128,), (256,), (4, 8), (8, 16), (16, 16), (2, 32), (1, 16), (16, 1),
    (32, 8), (2, 4, 8), (4, 2, 16), (2, 8, 2), (1,), (2,), (512,), (16, 32), (4,),
)  # fmt: skip
_STEPS = {
    "let": 12, "load": 2, "reduce": 5, "scan": 2, "move": 4, "pick": 1.5, "dot": 1.5,
    "matrix_loop": 1, "outer": 0.7, "walk": 1, "function": 1, "inexact": 2, "whole": 1, "store": 3,
    "atomic": 1.5, "block_load": 1, "block_store": 0.6, "block_loop": 0.6, "for": 2, "while": 1,
    "branch": 2, "return": 0.3, "call": 0.5, "pointer_branch": 0.5,
}  # fmt: skip
_NESTING = 2


@dataclass
class Kernel:
    """A kernel as statements, which can be dropped, with its arrays and numbers."""

    name: str
    seed: int
    grid: tuple
    body: list
    arrays: list
    numbers: dict
    aliases: dict

    def source(self):
        names = ", ".join([*(a.name for a in self.arrays), *self.numbers])
        first = "(tl.program_id(0) + tl.program_id(1) * tl.num_programs(0))"
        wide = ".to(tl.int64)" if self.seed % 4 == 0 else ""
        lines = ["@triton.jit", f"def {self.name}({names}):", f"    base = {first}{wide} * {SLICE}"]
        for statement in self.body:
            lines += statement.lines()
        return "\n".join(lines) + "\n"

    def contents(self):
        """Return the arrays' numbers, by name; aliases are one array."""
        rng = np.random.default_rng(self.seed)
        count = SLICE * self.grid[0] * self.grid[1]
        made = {a.name: _content(rng, a, count) for a in self.arrays}
        return {name: made[self.aliases.get(name, name)] for name in made}


def _content(rng, array, count):
    elem = array.elem
    if elem.kind == "b":
        return rng.random(count) < 0.5
    if elem.is_integer:
        info = np.iinfo(elem.dtype)
        x = rng.integers(info.min, info.max, count, elem.dtype, endpoint=True)
        small = rng.integers(0, 10, count).astype(elem.dtype)
        edges = rng.choice(np.array([0, 1, info.min, info.max], elem.dtype), count)
        kind = rng.random(count)
        return np.where(kind < 0.3, edges, np.where(kind < 0.6, small, x))
    if array.content == "whole":
        return rng.integers(-4, 5, count).astype(np.float32).astype(elem.dtype)
    x = rng.standard_normal(count).astype(np.float32).astype(elem.dtype)
    if array.content == "tame":
        return x
    bits = rng.integers(0, 256, count * elem.dtype.itemsize, dtype=np.uint8).view(elem.dtype)
    with np.errstate(all="ignore"):
        specials = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan], np.float32)
        edges = rng.choice(specials.astype(elem.dtype), count)
    kind = rng.random(count)
    return np.where(kind < 0.2, bits, np.where(kind < 0.4, edges, x))


def _step(d, kind):
    leaves = {
        "load": lambda: memory.load(d, d.elem(), d.shape()),
        "reduce": lambda: shapes.reduce(d),
        "scan": lambda: shapes.scan(d),
        "move": lambda: shapes.move(d),
        "pick": lambda: shapes.pick(d),
        "whole": lambda: shapes.whole_numbers(d),
        "dot": lambda: inexact.dot(d),
        "matrix_loop": lambda: inexact.matrix_loop(d),
        "outer": lambda: inexact.outer(d),
        "block_load": lambda: block_places.block_load(d),
        "block_store": lambda: block_places.block_store(d),
        "block_loop": lambda: block_places.block_loop(d),
        "walk": lambda: control.walk(d),
        "function": lambda: inexact.function(d),
        "inexact": lambda: inexact.inexact(d),
        "atomic": lambda: memory.atomic(d),
        "return": lambda: control.early_return(d),
        "call": lambda: control.call(d),
        "pointer_branch": lambda: control.pointer_branch(d),
        "for": lambda: control.for_loop(d, _steps),
        "while": lambda: control.while_loop(d, _steps),
        "branch": lambda: control.branch(d, _steps),
        "store": lambda: _store(d),
        "let": lambda: _let(d),
    }
    leaves[kind]()


def _let(d):
    elem, shape = d.elem(), d.shape() if d.chance(85) else ()
    found = d.find(wanted=lambda v: v.shape)
    if found and d.chance(40):
        shape = d.one_of(found).shape
    d.let(expression(d, elem, shape, 1 + d.below(3)), elem, shape)


def _store(d):
    found = d.find(kinds=("exact", "ordered", "loose"))
    if found:
        memory.store(d, d.one_of(found[-5:]))


def _steps(d, count):
    for _ in range(count):
        kind = d.weighted(_STEPS)
        if kind in ("for", "while", "branch") and d.depth >= _NESTING:
            kind = "let"
        _step(d, kind)


def generate(seed, name="kernel"):
    """Write the kernel of a seed."""
    d = Draft(random.Random(seed))
    d.grid = d.one_of([(1, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1), (2, 2, 1)])
    d.shapes = [d.one_of(_SHAPES) for _ in range(2)]
    d.elems = [d.one_of(ELEMENTS.values()) for _ in range(2)] + [ELEMENTS["int32"]]
    d.elems += [ELEMENTS["float32"]]
    _steps(d, 2 + d.below(5))
    _let(d)
    used = " ".join(line for s in d.body for line in s.lines())
    for var in d.vars:
        if len(re.findall(rf"\b{var.name}\b", used)) == 1:  # where it was defined
            memory.store(d, var)
    return Kernel(name, seed, d.grid, d.prelude() + d.body, d.arrays, d.numbers, _aliases(d))


def _aliases(d):
    """Let an array sometimes be passed as another one, too."""
    plain = [a for a in d.arrays if (a.content, a.kind, a.combine) == ("wild", "exact", "")]
    pairs = [(a, b) for i, a in enumerate(plain) for b in plain[i + 1 :] if a.elem == b.elem]
    if not pairs or not d.chance(25):
        return {}
    first, second = d.one_of(pairs)
    return {second.name: first.name}

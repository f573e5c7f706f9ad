"""Random loops and branches, with values that they carry."""

from __future__ import annotations

from triton_fuzz.draft import SLICE, Statement, Var
from triton_fuzz.elements import ELEMENTS, FLOATS, INTEGERS
from triton_fuzz.expressions import expression
from triton_fuzz.memory import pointers

__all__ = [
    "branch", "call", "early_return", "for_loop", "pointer_branch", "walk", "while_loop",
]  # fmt: skip

BOOL, INT32 = ELEMENTS["int1"], ELEMENTS["int32"]


def _carried(d):
    """Choose values that the block gives anew, and forget what was known of their numbers."""
    found = d.find(wanted=lambda v: v.elem.kind != "8")
    chosen = d.rng.sample(found, min(len(found), 1 + d.below(2)))
    changed = {v.name: Var(v.name, v.elem, v.shape) for v in chosen}
    d.vars = [changed.get(v.name, v) for v in d.vars]
    return list(changed.values())


def _write(d, steps, carried):
    """Write a block that changes the carried values."""

    def write():
        steps(d, d.below(3))
        for var in carried:
            text = expression(d, var.elem, var.shape, 2)
            grown = var.elem.kind in "iuf" and d.chance(50)
            sign = d.one_of("+-*") if grown else ""
            d.say(f"{var.name} {sign}= {text}")

    return d.inside(write)


def for_loop(d, steps):
    """Write a loop with constant or given bounds."""
    carried, i = _carried(d), d.fresh("i")
    trips, first, step = d.below(4), d.below(3), d.one_of([1, 1, 2, 3])
    kind = d.weighted({"count": 4, "steps": 2, "static": 1, "down": 1})
    heads = {
        "count": f"range({d.number(trips)})",
        "steps": f"range({first}, {d.number(first + trips * step)}, {step})",
        "static": f"tl.static_range({trips})",
        "down": f"range({first + trips * step}, {first}, -{step})",
    }
    scope = list(d.vars)
    if kind != "static":
        d.vars.append(Var(i, INT32, ()))
    body = _write(d, steps, carried)
    d.vars = scope
    d.body.append(Statement(f"for {i} in {heads[kind]}:", body))


def while_loop(d, steps):
    """Write a loop that ends by its count, perhaps earlier."""
    carried, count = _carried(d), d.fresh("w")
    d.say(f"{count} = 0")
    again = f"{count} < {d.number(d.below(4))}"
    flags = d.find(BOOL, ())
    if flags and d.chance(40):
        again = f"({again}) & {d.one_of(flags).name}"
    body = _write(d, steps, carried)
    d.body.append(Statement(f"while {again}:", [*body, Statement(f"{count} += 1")]))


def branch(d, steps):
    """Write a branch on a scalar; with an `else` or without one."""
    condition = expression(d, BOOL, (), 2)
    carried = _carried(d)
    body = _write(d, steps, carried)
    otherwise = _write(d, steps, carried) if d.chance(60) else None
    d.body.append(Statement(f"if {condition}:", body, otherwise))


def walk(d):
    """Walk pointers through memory, with masks that move along."""
    elem = d.one_of([e for e in ELEMENTS.values() if e.is_integer or e.kind == "f"])
    size = d.one_of([8, 16, 32, 64])
    trips = 1 + d.below(4)
    content = "wild" if elem.is_integer else d.one_of(["wild", "whole"])
    source = d.array(elem, ["in"], content=content)
    acc, i, q = d.fresh(), d.fresh("i"), d.fresh("q")
    limit, places = d.number(d.below(size * trips) + 1), f"tl.arange(0, {size})"
    d.say(f"{acc} = tl.zeros(({size},), tl.{elem.name})")
    d.say(f"{q} = {source.name} + base + {places}{d.one_of(['', ' * 2', f' * {-1} + {size - 1}'])}")
    by = d.number(size) if trips * size * 2 <= SLICE else "0"
    mask = f"{places} < {limit} - {i} * {size}" if d.chance(60) else f"({places} + {i}) % 2 == 0"
    text = f"tl.load({q}, mask={mask}, other=0)"
    lines = [f"{acc} {d.one_of(['+', '-'])}= {text}", f"{q} += {by}"]
    if d.chance(40):
        target = d.array(elem, ["out"])
        at = f"({places} + {i} * {size}) % {SLICE}"
        lines.insert(1, f"tl.store({target.name} + base + {at}, {acc}, mask={mask})")
    head = f"for {i} in range({d.number(trips)}):"
    d.body.append(Statement(head, [Statement(text) for text in lines]))
    d.vars.append(Var(acc, elem, (size,)))


def call(d):
    """Call a function that returns early, or one that is not inlined."""
    elem, shape = d.one_of([*INTEGERS, *FLOATS]), d.shape()
    if d.chance(60):
        x, flag = expression(d, elem, shape, 1), expression(d, BOOL, (), 1)
        d.let(f"turned({x}, {flag})", elem, shape)
        return
    x, y = (expression(d, elem, (), 1) for _ in range(2))  # only scalars are passed
    d.let(f"repeated({x}, {y}, {d.number(d.below(4))})", elem, ())


def pointer_branch(d):
    """Let a branch decide where to load from."""
    elem, shape = d.elem(), d.shape()
    arrays = [d.array(elem, ["in", "inout"]) for _ in range(2)]
    q = d.fresh("q")
    ways = [Statement(f"{q} = {pointers(d, a, shape, unique=False)}") for a in arrays]
    condition = expression(d, BOOL, (), 1)
    d.body.append(Statement(f"if {condition}:", ways[:1], ways[1:]))
    d.let(f"tl.load({q})", elem, shape)


def early_return(d):
    """End some programs here."""
    if d.depth == 0:
        condition = expression(d, BOOL, (), 1)
        d.body.append(Statement(f"if {condition}:", [Statement("return")]))

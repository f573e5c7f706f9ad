"""Random products of matrices, functions, and arithmetic on what is only nearly known."""

from __future__ import annotations

from triton_fuzz.draft import SLICE, Statement, Var
from triton_fuzz.elements import ELEMENTS
from triton_fuzz.expressions import expression
from triton_fuzz.memory import load
from triton_fuzz.shapes import one_zero

__all__ = ["dot", "function", "inexact", "matrix_loop"]

FLOAT32 = ELEMENTS["float32"]
_OPERANDS = ("float32", "float16", "bfloat16", "int8", "float64", "float8e4nv", "float8e5")
_TOTALS = {"int8": ELEMENTS["int32"], "float64": ELEMENTS["float64"]}
_SIZES = (1, 2, 4, 8, 16, 32)


def _operand(d, elem, shape):
    """Return a matrix: one there is, or one from memory, perhaps of small whole numbers."""
    found = d.find(elem, shape, wanted=lambda v: v.tame or v.elem.is_integer)
    if found and d.chance(50):
        return d.one_of(found)
    if elem.is_integer:
        return load(d, elem, shape)
    return load(d, elem, shape, content=d.one_of(["whole", "tame"]))


def _known(a, b, depth, start=0):
    """Return what is known of a product's elements."""
    if a.elem.is_integer:
        return {}
    if a.bound is None or b.bound is None or start is None:
        return {"kind": "ordered"}
    bound = depth * a.bound * b.bound + start
    return {"bound": bound, "tame": True} if bound <= 1 << 24 else {"kind": "ordered"}


def _total(elem):
    return "" if elem == FLOAT32 else f", out_dtype=tl.{elem.name}"


def _rows_and_columns(d):
    m = d.one_of(_SIZES)
    return m, d.one_of([n for n in _SIZES if m * n <= SLICE])


def _sizes(d):
    m, n = _rows_and_columns(d)
    return m, n, d.one_of([k for k in _SIZES if k * max(m, n) <= SLICE])


def dot(d):
    """Multiply two matrices, or two batches of them, perhaps onto a third."""
    elem = ELEMENTS[d.one_of(_OPERANDS)]
    m, n, k = _sizes(d)
    batch = (2,) if d.chance(15) and 2 * k * max(m, n) <= SLICE and m * n <= 128 else ()
    other = ELEMENTS[d.one_of(_OPERANDS[-2:])] if elem.kind == "8" else elem
    a, b = _operand(d, elem, (*batch, m, k)), _operand(d, other, (*batch, k, n))
    total = _TOTALS.get(elem.name, FLOAT32)
    shape, start, option = (*batch, m, n), 0, ""
    found = d.find(total, shape, kinds=("exact", "ordered"), wanted=lambda v: v.tame)
    found = d.find(total, shape) if elem.is_integer else found
    if found and d.chance(60):
        acc = d.one_of(found)
        start, option = acc.bound, f", {acc.name}{_total(total)}"
    known = _known(a, b, k, start)
    if "bound" in known and elem == FLOAT32 and d.chance(30):
        option += ', input_precision="tf32"'  # which rounds no small whole number
    if "ordered" in (a.kind, b.kind):
        known = {"kind": "ordered"}
    d.let(f"tl.dot({a.name}, {b.name}{option})", total, shape, **known)


def matrix_loop(d):
    """Sum products in a loop, its pointers moving or computed anew."""
    elem = ELEMENTS[d.one_of(_OPERANDS[:4])]
    m, n = _rows_and_columns(d)
    k = d.one_of([k for k in _SIZES if 2 * k * max(m, n) <= SLICE] or [1])
    trips = d.below(min(4, SLICE // (k * max(m, n))) + 1)
    content = "wild" if elem.is_integer else d.one_of(["whole", "tame"])
    a, b = (d.array(elem, ["in"], content=content).name for _ in range(2))
    total = _TOTALS.get(elem.name, FLOAT32)
    acc, i, x, y = d.fresh(), d.fresh("i"), d.fresh(), d.fresh()
    rows = f"tl.arange(0, {m})[:, None] * {k * trips} + tl.arange(0, {k})[None, :]"
    columns = f"tl.arange(0, {k})[:, None] * {n} + tl.arange(0, {n})[None, :]"
    product = d.one_of(
        [f"{acc} = tl.dot({x}, {y}, {acc}{_total(total)})", f"{acc} += tl.dot({x}, {y})"]
    )
    limit = d.number(max(k * trips - d.below(k), 0))
    masks = ["", ""]
    if d.chance(40):
        masks = [
            f", mask=(tl.arange(0, {k}){place} < {limit} - {i} * {k}), other=0"
            for place in ("[None, :]", "[:, None]")
        ]
    d.say(f"{acc} = tl.zeros(({m}, {n}), tl.{total.name})")
    moving = d.chance(50)
    places = [f"{a} + base + {rows}", f"{b} + base + {columns}"]
    steps = [k, k * n]
    if moving:
        names = [d.fresh("q"), d.fresh("q")]
        for name, place in zip(names, places, strict=True):
            d.say(f"{name} = {place}")
        moves = [f"{q} += {by}" for q, by in zip(names, steps, strict=True)]
        places = names
    else:
        places = [f"{p} + {i} * {by}" for p, by in zip(places, steps, strict=True)]
        moves = []
    loads = [
        f"{name} = tl.load({place}{mask})"
        for name, place, mask in zip((x, y), places, masks, strict=True)
    ]
    lines = [Statement(text) for text in (*loads, product, *moves)]
    d.body.append(Statement(f"for {i} in range({d.number(trips)}):", lines))
    known = {} if elem.is_integer else {"kind": "ordered"}
    if content == "whole":
        known = {"bound": 16 * k * max(trips, 1), "tame": True}
    d.vars.append(Var(acc, total, (m, n), **known))


def outer(d):
    """Sum an outer product, which Triton makes a product of matrices."""
    elem = ELEMENTS[d.one_of(("float32", "float32", "float64", "int32"))]
    m, n = d.one_of((2, 4, 8)), d.one_of((2, 4, 8))
    k = d.one_of((2, 4, 8))
    a, b = _operand(d, elem, (m, k)), _operand(d, elem, (k, n))
    text = f"tl.sum({a.name}[:, :, None] * {b.name}[None, :, :], axis=1){one_zero(elem)}"
    d.let(text, elem, (m, n), **_known(a, b, k))


_FUNCTIONS = ("exp", "exp2", "log", "log2", "sin", "cos", "rsqrt", "erf")


def function(d):
    """Apply a function that is approximated."""
    elem = d.one_of([FLOAT32, FLOAT32, ELEMENTS["float64"]])
    found = d.find(elem, wanted=lambda v: v.tame)
    argument = d.one_of(found) if found and d.chance(60) else load(d, elem, d.shape(), "tame")
    name = d.one_of(_FUNCTIONS)
    inner = f"tl.abs({argument.name}) + 0.5" if name in ("log", "log2", "rsqrt") else argument.name
    d.let(f"tl.{name}({inner})", elem, argument.shape, kind="loose")


def inexact(d):
    """Compute with values that are only nearly known."""
    found = d.find(kinds=("ordered", "loose"), wanted=lambda v: v.elem.bits >= 32)
    if not found:
        return
    a = d.one_of(found)
    others = d.find(a.elem, a.shape, kinds=("exact", "ordered", "loose"))
    tame = [v for v in others if v.tame or v.kind != "exact"]
    b = d.one_of(tame)
    kind = "loose" if "loose" in (a.kind, b.kind) else "ordered"
    way = d.one_of(["{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} * 0.5", "1.5 - {a}", "where"])
    if way == "where":
        chooser = expression(d, ELEMENTS["int1"], a.shape, 1)
        way = f"tl.where({chooser}, {{a}}, {{b}})"
    d.let(way.format(a=a.name, b=b.name), a.elem, a.shape, kind=kind)

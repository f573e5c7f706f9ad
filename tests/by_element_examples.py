"""Examples of ops that run a block for every element, and of those that put elements elsewhere."""

from __future__ import annotations

from asterope.ir import ELEMENT_BITS, INTEGERS, Type
from op_case import Case

__all__ = ["by_block", "by_name", "mapped", "places"]


def by_name(name, elem, shape):
    """Scan along each axis by named combiners, forwards and backwards."""
    case = Case()
    a = case.load(elem, shape)
    sums = ("fadd", "fmax") if a.type.is_float else ("add", "maxu")
    for axis, combine in enumerate(sums):
        for reverse in (False, True):
            attrs = {"axis": axis, "combine": combine, "reverse": reverse}
            case.store(case.writer("scan", a, **attrs))
    flat = case.writer("reshape", a, to=Type(elem, (a.type.num_elements,)))
    combine = "fmul" if flat.type.is_float else "mul"
    case.store(case.writer("scan", flat, axis=0, combine=combine, reverse=True))
    return case


def larger_and_where(w, a, i, b, j):
    """Keep the larger of two values with its index."""
    wins = w("or", w.compare("oge" if a.type.is_float else "sge", a, b), w.compare("sgt", j, i))
    return [w("select", wins, x, y, to=x.type) for x, y in ((a, b), (i, j))]


def by_branch(w, a, i, b, j):
    """Choose by branches, one inside the other."""

    def inner():
        both = w("fadd" if a.type.is_float else "add", a, b)
        return w.if_(w.compare("sge", i, j), lambda: [both, j], lambda: [a, w("mul", i, j)])

    return w.if_(w.compare("slt", i, w.const("i32", 9)), inner, lambda: [b, w.const("i32", 5)])


def by_loop(w, a, i, b, j):
    """Swap as often as the index says."""
    few = w("and", j, w.const("i32", 3))
    x, _ = w.for_(0, few, 1, [a, b], lambda _, x, y: [y, x])
    return [x, w("sub", i, few)]


BODIES = (larger_and_where, by_branch, by_loop)


def body_for(elem):
    """Take another function for each element, a branching one among them."""
    return BODIES[list(ELEMENT_BITS).index(elem) % len(BODIES)]


def by_block(name, elem, shape):
    """Reduce and scan a block with its indices along each axis."""
    case = Case()
    w, body = case.writer, body_for(elem)
    a, i = case.load(elem, shape), case.load("i32", shape)

    def combine(*scalars):
        return body(w, *scalars)

    for axis in (0, 1):
        rest = shape[:axis] + shape[axis + 1 :]
        to = [v.type.with_shape(rest) for v in (a, i)]
        results = [*w.by_element("reduce", [a, i], combine, to=to, axis=axis)]
        attrs = {"axis": axis, "reverse": axis == 1}
        results += w.by_element("scan", [a, i], combine, to=[a.type, i.type], **attrs)
        for value in results:
            case.store(value)
    flat, at = (w("reshape", v, to=v.type.with_shape((v.type.num_elements,))) for v in (a, i))
    to = [Type(elem), Type("i32")]
    for value in w.by_element("reduce", [flat, at], combine, to=to, axis=0):
        case.store(value)
    return case


def mapped(name, elem, shape):
    """Run a function for each element, and for two at a time."""
    case = Case()
    w, body = case.writer, body_for(elem)
    a, i = case.load(elem, shape), case.load("i32", shape)
    to = [a.type, i.type]
    results = [*w.by_element("map", [a, i], lambda x, n: body(w, x, n, x, n), to=to, pack=1)]

    def pair(x, y, n, m):
        best, where = body(w, x, n, y, m)
        return [best, x, where, n]

    results += w.by_element("map", [a, i], pair, to=to, pack=2)
    for value in results:
        case.store(value)
    return case


def places(name, elem, shape):
    """Exchange, gather and count elements."""
    case = Case()
    w = case.writer
    a = case.load(elem, (4, 32))
    for axis, mask in ((0, 3), (1, 5), (1, 16), (1, 0)):
        once = w("exchange", a, axis=axis, mask=mask)
        case.store(w("exchange", once, axis=1, mask=19))
    case.store(w("exchange", case.load(elem, (1,)), axis=0, mask=0))
    for axis, picked in ((0, (16, 32)), (1, (4, 1))):
        index = case.load("i8", picked)
        case.store(w("gather", a, index, to=a.type.with_shape(picked), axis=axis))
        inside = w("and", index, w.const(index.type, 3))
        case.store(w("gather", a, inside, to=a.type.with_shape(picked), axis=axis))
    if elem in INTEGERS:
        few, on = case.load(elem, (48,)), case.load("i1", (48,))
        for bins in (1, 5, 32):
            case.store(w("histogram", few, to=f"i32[{bins}]", mask=False))
            case.store(w("histogram", few, on, to=f"i32[{bins}]", mask=True))
    return case

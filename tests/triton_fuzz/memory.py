"""Random accesses: where blocks lie in arrays, what masks them, loads, stores, atomics."""

from __future__ import annotations

import math

from triton_fuzz.draft import SLICE
from triton_fuzz.elements import ELEMENTS

__all__ = ["along", "atomic", "load", "pointers", "store"]

BOOL, INT32 = ELEMENTS["int1"], ELEMENTS["int32"]
_ATOMICS = ("add", "max", "min", "and", "or", "xor")


def along(text, axis, rank):
    """Return a one-dimensional text as one dimension of several."""
    if rank == 1:
        return text
    return f"{text}[{', '.join(':' if i == axis else 'None' for i in range(rank))}]"


def _layout(d, shape, *, unique):
    """Return strides and the first offset of a block that stays inside a slice."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    kind = d.one_of(["row", "row", "column", "reversed", "gaps", "repeated"])
    if kind == "column":
        strides = [math.prod(shape[:i]) for i in range(len(shape))]
    elif kind == "gaps" and math.prod(shape) * 2 <= SLICE:
        strides = [2 * s for s in strides]
    elif kind == "reversed" and shape:
        strides[d.below(len(shape))] *= -1
    elif kind == "repeated" and shape and not unique:
        strides[d.below(len(shape))] = 0
    steps = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    low, high = sum(min(s, 0) for s in steps), sum(max(s, 0) for s in steps)
    room = SLICE - 1 - (high - low)
    return strides, -low + (d.below(min(room, 40) + 1) if d.chance(50) else 0)


def _term(d, size, stride, axis, rank):
    place = d.range(size, axis, rank)
    if d.chance(15):
        start = d.one_of([8, 3])
        place = f"({along(f'tl.arange({start}, {start + size})', axis, rank)} - {start})"
    return place if stride == 1 else f"{place} * {d.number(stride) if stride > 1 else stride}"


def offsets(d, shape, *, unique):
    """Return the text of offsets inside the program's slice; `unique` ones meet no other."""
    if shape and d.chance(15):
        found = d.find(None, shape, wanted=lambda v: v.elem.is_integer)
        if found and not unique:
            return f"({d.one_of(found).name}.to(tl.int32) & {SLICE - 1})"
    strides, start = _layout(d, shape, unique=unique)
    rank = len(shape)
    terms = [_term(d, n, s, i, rank) for i, (n, s) in enumerate(zip(shape, strides, strict=True))]
    if start or not terms:
        terms.append(str(start))
    text = " + ".join(terms)
    kind = d.weighted({"plain": 7, "wrapped": 1, "swapped": 1, "halved": 0 if unique else 1})
    if kind == "wrapped":
        return f"({text} + {d.below(SLICE)}) % {SLICE}"
    if kind == "swapped":
        return f"(({text}) ^ {d.one_of([1, 5, 16, 256])})"
    return f"({text}) // 2" if kind == "halved" else text


def pointers(d, array, shape, *, unique):
    """Return the text of a block of pointers."""
    return f"{array.name} + base + {offsets(d, shape, unique=unique)}"


def _bounds(d, shape):
    """Return a mask of bounds along some dimensions."""
    parts = []
    for axis, size in enumerate(shape):
        if parts and d.chance(50):
            continue
        edge = d.one_of([0, 1, size - 1, size, *[d.below(size + 1) for _ in range(4)]])
        limit, sign = d.number(edge), d.weighted({"<": 5, ">=": 1})
        parts.append(f"({d.range(size, axis, len(shape))} {sign} {limit})")
    return " & ".join(parts)


def _mask(d, shape):
    kind = d.weighted({"none": 6, "bounds": 4, "any": 2})
    if kind == "bounds" and shape:
        return _bounds(d, shape)
    found = d.find(BOOL, shape) if kind == "any" else []
    return d.one_of(found).name if found else None


def _past_the_end(d, shape):
    """Return offsets that leave the slice where the mask is off, and the mask."""
    size = shape[0]
    limit, rest = d.below(size) + 1, math.prod(shape[1:])
    start = SLICE - limit * rest
    terms = [
        f"{d.range(n, i, len(shape))} * {math.prod(shape[i + 1 :])}" for i, n in enumerate(shape)
    ]
    mask = f"{d.range(size, 0, len(shape))} < {d.number(limit)}"
    return f"{' + '.join(terms)} + {start}", mask


def load(d, elem, shape, content=None):
    """Define a value that is read from memory."""
    if content is None:
        content = d.weighted({"wild": 3, "tame": 1}) if elem.kind in "f8" else "wild"
    array = d.array(elem, ["in", "in", "inout"] if content == "wild" else ["in"], content=content)
    where, mask = pointers(d, array, shape, unique=False), _mask(d, shape)
    if shape and d.chance(15):
        where, mask = _past_the_end(d, shape)
        where = f"{array.name} + base + {where}"
    if d.chance(10):
        where = _kept(d, where)
    options = "" if mask is None else f", mask={mask}"
    if mask is not None and elem.kind in "iuf" and d.chance(50):
        options += f", other={_other(d, elem, shape, content)}"
    known = {"bound": 4, "tame": True} if content == "whole" else {"tame": content == "tame"}
    return d.let(f"tl.load({where}{options})", elem, shape, **known)


def _kept(d, where):
    name = d.fresh("q")
    d.say(f"{name} = {where}")
    return name


def _other(d, elem, shape, content):
    found = d.find(elem, shape) if content == "wild" else []
    if found and d.chance(40):
        return d.one_of(found).name
    numbers = ["0.0", "1.0", "-2.0"] if elem.kind == "f" else ["0", "1", "7"]
    return d.one_of(numbers)


def store(d, var):
    """Write a value to memory."""
    exact = var.kind == "exact"
    content = "wild" if exact else "tame"
    roles = ["inout", "out"] if exact and var.elem.kind != "8" else ["out"]
    array = d.array(var.elem, roles, content=content, kind=var.kind)
    where, mask = pointers(d, array, var.shape, unique=True), _mask(d, var.shape)
    if var.shape and d.chance(10):
        where, mask = _past_the_end(d, var.shape)
        where = f"{array.name} + base + {where}"
    options = "" if mask is None else f", mask={mask}"
    d.say(f"tl.store({where}, {var.name}{options})")


def atomic(d):
    """Combine a value with memory: with what all programs share, or with the program's own."""
    found = d.find(wanted=lambda v: v.elem.is_integer and v.elem.bits >= 32)
    elem = ELEMENTS[d.one_of(["int32", "uint32", "int64", "uint64"])]
    var = d.one_of(found[-6:]) if found else load(d, elem, d.shape())
    mask = _mask(d, var.shape)
    options = "" if mask is None else f", mask={mask}"
    if d.chance(50):
        combine = d.one_of(_ATOMICS)
        array = d.array(var.elem, ["shared"], combine=combine)
        index = d.find(INT32, var.shape)
        place = f"({d.one_of(index).name} & 63)" if index else offsets(d, var.shape, unique=False)
        d.say(f"tl.atomic_{combine}({array.name} + {place}, {var.name}{options})")
        return
    array = d.array(var.elem, ["inout"])
    combine = d.one_of([*_ATOMICS, "xchg", "cas"])
    where = pointers(d, array, var.shape, unique=False)
    if combine == "cas":
        expected = load(d, var.elem, var.shape).name
        d.let(f"tl.atomic_cas({where}, {expected}, {var.name})", var.elem, var.shape)
        return
    d.let(f"tl.atomic_{combine}({where}, {var.name}{options})", var.elem, var.shape)

"""Random statements that move elements, and that combine them along an axis."""

from __future__ import annotations

import math

from triton_fuzz.combines import COMMUTATIVE, ORDERED
from triton_fuzz.draft import Var
from triton_fuzz.elements import ELEMENTS
from triton_fuzz.expressions import expression
from triton_fuzz.memory import load

__all__ = ["move", "one_zero", "pick", "reduce", "scan", "whole_numbers"]

INT32, UINT32, FLOAT32 = ELEMENTS["int32"], ELEMENTS["uint32"], ELEMENTS["float32"]
_LARGEST = 256
_INEXACT = ("exact", "exact", "ordered", "loose")


def _some(d, wanted=lambda v: True, kinds=("exact",)):
    """Return a value that is wanted: one there is, or one from memory; None if that is not one."""
    found = d.find(wanted=wanted, kinds=kinds)
    if found:
        return d.one_of(found[-8:])
    for _ in range(20):
        elem, shape = d.elem(), d.shape()
        tame = elem.kind == "f"
        if wanted(Var("", elem, shape, tame=tame)):
            return load(d, elem, shape, "tame" if tame else None)
    return None


def _kept(var):
    return {"kind": var.kind, "bound": var.bound, "tame": var.tame}


def move(d):
    """Move the elements of a value."""
    var = _some(d, lambda v: v.shape, _INEXACT)
    if var is None:
        return
    shape, size, name = var.shape, math.prod(var.shape), var.name
    kind = d.one_of(
        ["reshape", "permute", "join", "split", "expand", "broadcast", "interleave", "flip"]
    )
    if kind == "reshape":
        to = d.one_of([s for s in _factorings(size) if s != shape] or [shape])
        flat = to == (size,) and d.chance(30)
        d.let(
            f"tl.ravel({name})" if flat else f"tl.reshape({name}, {to})", var.elem, to, **_kept(var)
        )
    elif kind == "permute" and len(shape) > 1:
        order = list(range(len(shape)))
        d.rng.shuffle(order)
        text = f"tl.trans({name})" if order == [1, 0] else f"tl.permute({name}, {tuple(order)})"
        d.let(text, var.elem, [shape[i] for i in order], **_kept(var))
    elif kind in ("join", "interleave") and 2 * size <= _LARGEST and var.kind == "exact":
        if kind == "join" and len(shape) > 3:
            return
        other = expression(d, var.elem, shape, 1)
        to = (*shape, 2) if kind == "join" else (*shape[:-1], 2 * shape[-1])
        d.let(f"tl.{kind}({name}, {other})", var.elem, to)
    elif kind == "split" and shape[-1] == 2 and len(shape) > 1:
        names = [d.let("None", var.elem, shape[:-1], **_kept(var)).name for _ in range(2)]
        del d.body[-2:]
        d.say(f"{names[0]}, {names[1]} = tl.split({name})")
    elif kind == "expand" and len(shape) < 4:
        axis = d.below(len(shape) + 1)
        to = (*shape[:axis], 1, *shape[axis:])
        where = ", ".join("None" if i == axis else ":" for i in range(len(to)))
        text = f"{name}[{where}]" if d.chance(60) else f"tl.expand_dims({name}, {axis})"
        d.let(text, var.elem, to, **_kept(var))
    elif kind == "flip" and var.kind == "exact" and min(shape) > 1 and d.chance(40):
        d.let(f"tl.flip({name}, {d.below(len(shape))})", var.elem, shape, **_kept(var))
    elif kind == "broadcast" and 1 in shape and size <= _LARGEST // 4:
        axis = shape.index(1)
        to = (*shape[:axis], d.one_of([2, 4]), *shape[axis + 1 :])
        d.let(f"tl.broadcast_to({name}, {to})", var.elem, to, **_kept(var))


def _factorings(size):
    """Return shapes with so many elements."""
    found = [(size,), (1, size), (size, 1)]
    for first in (2, 4, 8, 16):
        if size % first == 0 and size > first:
            found += [(first, size // first), (first // 2, 2, size // first)]
    return [s for s in found if math.prod(s) == size]


def pick(d):
    """Pick elements by an index, count them, or sort some."""
    if d.chance(10):
        elem, size = d.one_of([ELEMENTS["int8"], ELEMENTS["uint16"], INT32]), d.one_of([4, 8])
        text = load(d, elem, (size,)).name
        d.let(f"tl.sort({text}, descending={d.chance(50)})", elem, (size,))
        return
    index = _some(d, lambda v: v.elem.is_integer and v.shape)
    if index is None:
        return
    if len(index.shape) == 1 and d.chance(40):
        bins = d.one_of([4, 8, 16])
        mask = d.find(ELEMENTS["int1"], index.shape)
        option = f", mask={d.one_of(mask).name}" if mask and d.chance(50) else ""
        d.let(f"tl.histogram({index.name}, {bins}{option})", INT32, (bins,))
        return
    source = _some(d, lambda v: len(v.shape) == len(index.shape) and v.elem.kind != "8")
    axis = d.below(len(index.shape))
    if source is None or any(
        a != b for i, (a, b) in enumerate(zip(source.shape, index.shape, strict=True)) if i != axis
    ):
        source = index
    inside = f"({index.name}.to(tl.int32) & {source.shape[axis] - 1})"
    d.let(f"tl.gather({source.name}, {inside}, {axis})", source.elem, index.shape)


def whole_numbers(d):
    """Make floats of small whole numbers, whose sums are exact in any order."""
    var = _some(d, lambda v: v.elem.is_integer)
    if var is None:
        return
    elem = d.one_of([FLOAT32, FLOAT32, ELEMENTS["float16"], ELEMENTS["float64"]])
    text = f"({var.name} & 7).to(tl.{elem.name})"
    d.let(text, elem, var.shape, bound=7, tame=True)


def one_zero(elem):
    """Leave one zero: which of the two a float sum or extreme gives depends on the order."""
    return " + 0.0" if elem.kind == "f" else ""


# -- along an axis --------------------------------------------------------------------------------
def _without(shape, axis):
    return shape[:axis] + shape[axis + 1 :]


def reduce(d):
    """Combine a value along an axis, or all of it."""
    kind = d.weighted({"sum": 5, "extreme": 3, "index": 2, "bits": 2, "function": 3})
    if kind == "function":
        _by_function(d, "reduce", COMMUTATIVE)
        return
    if kind == "sum":
        _sum(d)
        return
    var = _some(d, lambda v: v.shape and v.elem.kind in ("iuf" if kind == "extreme" else "iu"))
    if kind == "index":
        var = _some(d, lambda v: v.shape and (v.elem.is_integer or (v.tame and v.elem.kind == "f")))
    if var is None:
        return
    axis = d.below(len(var.shape))
    keep = d.chance(20)
    rest = (*var.shape[:axis], 1, *var.shape[axis + 1 :]) if keep else _without(var.shape, axis)
    option = ", keep_dims=True" if keep else ""
    if kind == "bits":
        name = d.one_of(["xor_sum", "reduce_or"])
        d.let(f"tl.{name}({var.name}, {axis}{option})", var.elem, rest)
    elif kind == "index":
        name = d.one_of(["argmax", "argmin"])
        d.let(f"tl.{name}({var.name}, {axis}{option})", INT32, rest)
    else:
        name, elem = d.one_of(["max", "min"]), var.elem
        if elem.bits < 32:
            elem = FLOAT32 if elem.kind == "f" else INT32
        d.let(f"tl.{name}({var.name}, axis={axis}{option}){one_zero(elem)}", elem, rest)


def _sum(d):
    var = _some(d, lambda v: v.shape and v.elem.kind in "biuf", _INEXACT)
    if var is None:
        return
    axis = d.below(len(var.shape)) if d.chance(85) else None
    rest = () if axis is None else _without(var.shape, axis)
    count = math.prod(var.shape) if axis is None else var.shape[axis]
    elem, known = _summed(var, count)
    where = "" if axis is None else f", axis={axis}"
    if elem in (INT32, UINT32) and d.chance(20):
        elem = ELEMENTS["int64"]
        where += ", dtype=tl.int64"
    d.let(f"tl.sum({var.name}{where}){one_zero(elem)}", elem, rest, **known)


def _summed(var, count, elem=None):
    """Return the element type of a sum, and what is known of it."""
    elem = elem or var.elem
    if elem.kind in "biu":
        return (elem if elem.bits >= 32 else INT32 if elem.kind == "i" else UINT32), {}
    if var.bound is not None and count * var.bound <= elem.whole:
        return elem, {"bound": count * var.bound, "tame": True}
    return elem, {"kind": "ordered" if var.kind == "exact" else var.kind}


def scan(d):
    """Keep the totals along an axis."""
    kind = d.weighted({"cumsum": 4, "cumprod": 1, "function": 3})
    if kind == "function":
        _by_function(d, "associative_scan", ORDERED)
        return
    wanted = "biuf" if kind == "cumsum" else "iu"
    kinds = _INEXACT if kind == "cumsum" else ("exact",)
    var = _some(d, lambda v: v.shape and v.elem.kind in wanted and v.elem.kind != "b", kinds)
    if var is None:
        return
    axis = d.below(len(var.shape))
    option = f", axis={axis}" + ", reverse=True" * d.chance(30)
    elem, known = var.elem, {}
    if kind == "cumsum":
        wide = FLOAT32 if elem.name == "bfloat16" else elem
        elem, known = _summed(var, var.shape[axis], wide)
    d.let(f"tl.{kind}({var.name}{option}){one_zero(elem)}", elem, var.shape, **known)


def _by_function(d, how, functions):
    var = _some(d, lambda v: v.shape and v.elem.is_integer)
    if var is None:
        return
    name = d.one_of(functions)
    axis = d.below(len(var.shape))
    rest = _without(var.shape, axis) if how == "reduce" else var.shape
    option = ", reverse=True" if how != "reduce" and d.chance(30) else ""
    if functions[name] == 1:
        d.let(f"tl.{how}({var.name}, {axis}, {name}{option})", var.elem, rest)
        return
    other = d.find(var.elem, var.shape)
    names = [d.let("None", var.elem, rest).name for _ in range(2)]
    del d.body[-2:]
    pair = f"({var.name}, {d.one_of(other).name})"
    d.say(f"{', '.join(names)} = tl.{how}({pair}, {axis}, {name}{option})")

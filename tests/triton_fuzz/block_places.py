"""Random loads and stores through block pointers and tensor descriptors, over their edges too."""

from __future__ import annotations

from triton_fuzz.draft import SLICE, Statement, Var
from triton_fuzz.elements import ELEMENTS

__all__ = ["block_load", "block_loop", "block_store"]


def _extents(d, shape):
    """Return the sizes of an array in a program's slice, its strides and a block's offsets."""
    rows, columns = (1, shape[0]) if len(shape) == 1 else shape
    width = min(columns + d.below(8), SLICE // rows)
    height = min(rows + d.below(8), SLICE // width)
    sizes, strides = (height, width), (width, 1)
    if d.chance(30):
        strides = (1, height)
    over = d.chance(50)
    offsets = [
        d.below(n + 1) - n // 2 if over else d.below(size - n + 1)
        for size, n in zip(sizes, (rows, columns), strict=True)
    ]
    if len(shape) == 1:
        return (width,), (strides[1],), (offsets[1],)
    return sizes, strides, tuple(offsets)


def _text(d, numbers):
    """Write a tuple whose numbers are constants or arguments."""
    texts = [d.number(n) if n > 1 else str(n) for n in numbers]
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"


def _block_pointer(d, array, shape, extents):
    sizes, strides, offsets = extents
    order = tuple(range(len(shape))) if strides[-1] != 1 else tuple(reversed(range(len(shape))))
    return (
        f"tl.make_block_ptr({array.name} + base, {_text(d, sizes)}, {_text(d, strides)}, "
        f"{_text(d, offsets)}, {tuple(shape)}, {order})"
    )


def _fits_descriptor(elem, shape, strides):
    return strides[-1] == 1 and shape[-1] * elem.bits >= 128 and elem.kind != "b"


def _descriptor(d, array, shape, extents):
    sizes, strides, offsets = extents
    name = d.fresh("q")
    lists = [f"[{_text(d, x)[1:-1].rstrip(',')}]" for x in (sizes, strides, offsets)]
    d.say(
        f"{name} = tl.make_tensor_descriptor({array.name} + base, {lists[0]}, {lists[1]}, "
        f"{list(shape)})"
    )
    return name, lists[2]


def _plain(d):
    shape = d.one_of([s for s in d.shapes if len(s) <= 2] or [(8, 16)])
    elem = d.elem()
    return (elem if elem.kind in "iuf" else ELEMENTS["int16"]), shape


def block_load(d):
    """Load a block by its place."""
    elem, shape = _plain(d)
    array, extents = d.array(elem, ["in", "inout"]), _extents(d, shape)
    if _fits_descriptor(elem, shape, extents[1]) and d.chance(50):
        name, offsets = _descriptor(d, array, shape, extents)
        d.let(f"{name}.load({offsets})", elem, shape)
        return
    checked = f", boundary_check={tuple(range(len(shape)))}, padding_option="
    padding = "nan" if elem.kind == "f" and d.chance(30) else "zero"
    pointer = _block_pointer(d, array, shape, extents)
    d.let(f'tl.load({pointer}{checked}"{padding}")', elem, shape)


def block_store(d):
    """Store a block by its place."""
    found = d.find(wanted=lambda v: v.shape and len(v.shape) <= 2 and v.elem.kind in "iuf")
    if not found:
        return
    var = d.one_of(found)
    array, extents = d.array(var.elem, ["inout", "out"]), _extents(d, var.shape)
    if _fits_descriptor(var.elem, var.shape, extents[1]) and d.chance(50):
        name, offsets = _descriptor(d, array, var.shape, extents)
        d.say(f"{name}.store({offsets}, {var.name})")
        return
    pointer = _block_pointer(d, array, var.shape, extents)
    d.say(f"tl.store({pointer}, {var.name}, boundary_check={tuple(range(len(var.shape)))})")


def block_loop(d):
    """Add up blocks along a row, the pointer advancing over the edge."""
    elem, shape = _plain(d)
    array, extents = d.array(elem, ["in"]), _extents(d, shape)
    acc, i, q = d.fresh(), d.fresh("i"), d.fresh("q")
    d.say(f"{acc} = tl.zeros({tuple(shape)}, tl.{elem.name})")
    d.say(f"{q} = {_block_pointer(d, array, shape, extents)}")
    by = (0,) * (len(shape) - 1) + (d.one_of([1, 2, shape[-1]]),)
    lines = [
        f'{acc} += tl.load({q}, boundary_check={tuple(range(len(shape)))}, padding_option="zero")',
        f"{q} = tl.advance({q}, {by})",
    ]
    head = f"for {i} in range({d.number(d.below(4))}):"
    d.body.append(Statement(head, [Statement(text) for text in lines]))
    d.vars.append(Var(acc, elem, shape))

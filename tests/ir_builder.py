"""Write tile IR in a few lines, and run it by both readers."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from asterope.host import HostKernel
from asterope.ir import (
    Block,
    Builder,
    Kernel,
    Param,
    Type,
    Value,
    interpret,
    parse_type,
    verify,
)
from asterope.native import isa_named

__all__ = [
    "Writer", "assert_same_bits", "describe", "differing", "extents_of", "interpreted", "launched",
]  # fmt: skip


class Writer:
    """Append ops to a kernel; types are given as text and default to the first operand's.

    w = Writer(x="ptr<fp32>", y="ptr<fp32>")
    a = w.load("x", (16,))
    w.store("y", w("fadd", a, a))
    kernel = w.done()
    """

    def __init__(self, **params):
        self.params = {}
        self.kernel = Kernel("k", [], Block())
        self.builder = Builder(self.kernel.body)
        for name, to in params.items():
            self.param(name, to)

    def __getitem__(self, name):
        return self.params[name]

    def param(self, name, to):
        """Add a kernel parameter."""
        self.params[name] = Value(parse_type(to) if isinstance(to, str) else to, None, name)
        self.kernel.params.append(Param(name))
        self.kernel.body.args.append(self.params[name])
        return self.params[name]

    def op(self, name, *operands, to=(), blocks=(), **attrs):
        types = [parse_type(t) if isinstance(t, str) else t for t in to]
        return self.builder.op(name, operands, types, attrs, blocks)

    def __call__(self, name, *operands, to=None, **attrs):
        return self.op(name, *operands, to=[to or operands[0].type], **attrs).result

    def const(self, to, value):
        return self("const", to=to, value=value)

    def broadcast(self, value, shape):
        return self("broadcast", value, to=value.type.with_shape(tuple(shape)))

    def convert(self, value, elem, how="float", **attrs):
        return self("convert", value, to=value.type.with_elem(elem), how=how, **attrs)

    def compare(self, pred, a, b):
        name = "fcmp" if a.type.is_float else "cmp"
        return self(name, a, b, to=a.type.with_elem("i1"), pred=pred)

    def reduce(self, value, axis, combine):
        shape = value.type.shape
        rest = value.type.with_shape(shape[:axis] + shape[axis + 1 :])
        return self("reduce", value, to=rest, axis=axis, combine=combine)

    def by_element(self, name, operands, body, *, to, **attrs):
        """Run `body`, which takes and returns scalars, by a reduce, scan or map."""
        elements = [Type(v.type.elem) for v in operands]
        if name == "map":
            types = [t for t in elements for _ in range(attrs["pack"])]
        else:
            types = elements * 2
        block = Block([Value(t) for t in types])
        with self.inside(block):
            self.yield_(*body(*block.args))
        return self.op(name, *operands, to=to, blocks=[block], **attrs).results

    # -- addresses ------------------------------------------------------------------------------
    def along(self, vector, axis, shape):
        """Stretch a vector over the other dimensions of a shape."""
        for d in range(len(shape)):
            if d != axis:
                at = vector.type.shape
                wider = vector.type.with_shape((*at[:d], 1, *at[d:]))
                vector = self("expand", vector, to=wider, axis=d)
        return vector if vector.type.shape == tuple(shape) else self.broadcast(vector, shape)

    def iota(self, size, start=0):
        return self("iota", to=Type("i32", (size,)), start=start)

    def offsets(self, shape, strides=None):
        """Offsets of a block's elements: row-major where no strides are given."""
        if strides is None:
            strides = [int(np.prod(shape[d + 1 :])) for d in range(len(shape))]
        total = None
        for d, (size, stride) in enumerate(zip(shape, strides, strict=True)):
            steps = self.iota(size)
            if stride != 1:
                steps = self("mul", steps, self.const(steps.type, stride))
            wide = self.along(steps, d, shape)
            total = wide if total is None else self("add", total, wide)
        return total

    def pointers(self, base, shape, strides=None, start=0):
        base = self[base] if isinstance(base, str) else base
        if not shape:
            return self("addptr", base, self.const("i32", start)) if start else base
        block = self.broadcast(base, shape)
        if start:
            block = self("addptr", block, self.const(Type("i32", tuple(shape)), start))
        return self("addptr", block, self.offsets(shape, strides))

    def load(self, base, shape=(), *, mask=None, other=None, **where):
        return self.load_at(self.pointers(base, shape, **where), mask=mask, other=other)

    def load_at(self, pointers, *, mask=None, other=None, volatile=False):
        operands = [v for v in (pointers, mask, other) if v is not None]
        attrs = {"mask": mask is not None, "other": other is not None}
        if volatile:
            attrs["volatile"] = True
        return self("load", *operands, to=pointers.type.with_elem(pointers.type.pointee), **attrs)

    def store(self, base, value, *, mask=None, **where):
        self.store_at(self.pointers(base, value.type.shape, **where), value, mask=mask)

    def store_at(self, pointers, value, *, mask=None):
        self.op(
            "store", *[v for v in (pointers, value, mask) if v is not None], mask=mask is not None
        )

    # -- control --------------------------------------------------------------------------------
    @contextmanager
    def inside(self, block):
        """Append to an inner block; end it with `yield_`."""
        outer, self.builder = self.builder, Builder(block)
        yield
        self.builder = outer

    def yield_(self, *values, name="yield"):
        self.op(name, *values)

    def for_(self, lo, hi, step, inits, body, counter="i32"):
        """Carry `inits` through `body(i, *carried)`, which returns the next values."""
        bounds = [self.const(counter, x) if isinstance(x, int) else x for x in (lo, hi, step)]
        block = Block([Value(v.type) for v in (bounds[0], *inits)])
        with self.inside(block):
            self.yield_(*body(*block.args))
        types = [v.type for v in inits]
        return list(self.op("for", *bounds, *inits, to=types, blocks=[block]).results)

    def while_(self, inits, before, after):
        """Carry `inits`: `before(*carried)` gives a condition and values, `after` the next ones."""
        first = Block([Value(v.type) for v in inits])
        with self.inside(first):
            again, *passed = before(*first.args)
            self.yield_(again, *passed, name="condition")
        second = Block([Value(v.type) for v in passed])
        with self.inside(second):
            self.yield_(*after(*second.args))
        types = [v.type for v in passed]
        return list(self.op("while", *inits, to=types, blocks=[first, second]).results)

    def if_(self, condition, then, otherwise=lambda: ()):
        blocks = [Block(), Block()]
        types = []
        for block, body in zip(blocks, (then, otherwise), strict=True):
            with self.inside(block):
                values = body()
                types = [v.type for v in values]
                self.yield_(*values)
        return list(self.op("if", condition, to=types, blocks=blocks).results)

    def done(self):
        self.op("return")
        verify(self.kernel)
        return self.kernel


# -- running --------------------------------------------------------------------------------------
def _copies(args):
    """Copy arrays; one that is passed twice stays one."""
    made = {}
    return [made.setdefault(id(a), a.copy()) if isinstance(a, np.ndarray) else a for a in args]


def interpreted(kernel, args, grid=(1, 1, 1)):
    """Return what the arrays hold after the reference interpreter ran on copies of them."""
    copies = _copies(args)
    interpret(kernel, grid, copies)
    return [a for a in copies if isinstance(a, np.ndarray)]


def extents_of(arrays):
    return [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays]


def launched(kernel, args, grid=(1, 1, 1), *, isa=None, disjoint=True):
    """Return what the arrays hold after native code ran on copies of them."""
    copies = _copies(args)
    arrays = [a for a in copies if isinstance(a, np.ndarray)]
    addresses = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in copies]
    host = HostKernel(kernel, isa_named(isa) if isa else None)
    host.launch(grid, addresses, extents_of(arrays) if disjoint else None)
    return arrays


def differing(got, expected):
    """Mark the elements whose bits differ; any NaN equals any NaN."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    differ = got.view(f"u{got.itemsize}") != expected.view(f"u{got.itemsize}")
    if got.dtype.kind not in "iub":
        with np.errstate(invalid="ignore"):
            differ &= ~(np.isnan(got) & np.isnan(expected))
    return differ


def describe(got, expected, differ):
    """Say where two arrays differ first, and how."""
    where = [tuple(int(i) for i in at) for at in np.argwhere(differ)[:4]]
    return "; ".join(f"{list(at)}: got {got[at]!r}, expected {expected[at]!r}" for at in where)


def assert_same_bits(kernel, args, grid=(1, 1, 1), *, isa=None, disjoint=True):
    """Assert that native code leaves the same bits in every array as the interpreter."""
    expected = interpreted(kernel, args, grid)
    got = launched(kernel, args, grid, isa=isa, disjoint=disjoint)
    for i, (g, e) in enumerate(zip(got, expected, strict=True)):
        differ = differing(g, e)
        assert not differ.any(), f"array {i}: {describe(g, e, differ)}"

"""Random well-typed tile IR: what a front end could write."""

from __future__ import annotations

import numpy as np

from asterope.ir import COMBINERS, FLOATS, INTEGERS, Type
from generated_kernel import SLICE, Array, Generated
from ir_builder import Writer
from kernel_choices import Choices
from kernel_vocabulary import (
    DOT_ELEMENTS,
    FLOAT_BINARY,
    FLOAT_PREDICATES,
    FLOAT_UNARY,
    FUNCTIONS,
    INT_BINARY,
    INT_PREDICATES,
    MEMORY_ORDERS,
    SCALED_FORMATS,
    SIZES,
    THEMES,
)

__all__ = ["generate"]


class _Generator:
    """Grows a kernel step by step; `pool` holds the exact values that may be used next."""

    def __init__(self, choices, theme):
        self.c, self.weights = choices, THEMES[theme]
        self.w = Writer()
        self.arrays, self.scalars = [], []
        self.pool, self.inexact = [], []
        self.bases = {}
        self.depth = 0
        self.program = self.w("program_id", to="i32", axis=0)

    # -- picking --------------------------------------------------------------------------------
    def shape(self, rank=None):
        rank = rank if rank is not None else self.c.one_of([1, 2, 2, 3, 0])
        shape = []
        for _ in range(rank):
            fitting = [s for s in SIZES if s * int(np.prod(shape)) <= 256]
            shape.append(self.c.one_of(fitting))
        return tuple(shape)

    def some(self, wanted):
        """Pick an existing value that is wanted, or None."""
        fitting = [v for v in self.pool if wanted(v.type)]
        return self.c.one_of(fitting[-8:]) if fitting else None

    def value(self, type_):
        """Return a value of a type: an existing one, one from memory, or a constant."""
        found = self.some(lambda t: t == type_) if self.c.chance(75) else None
        if found is not None:
            return found
        if self.c.chance(50):
            return self.from_memory(type_)
        return self.w.const(type_, self.number(type_))

    def number(self, type_):
        if type_.elem == "i1":
            return self.c.chance(50)
        if type_.is_int:
            return self.c.one_of([0, 1, -1, 3, 7, 100, -128])
        return self.c.one_of([0.0, 1.0, -0.5, 3.0, -0.0, 0.125])

    # -- memory ---------------------------------------------------------------------------------
    def array(self, elem, roles, exact=True):
        fitting = [a for a in self.arrays if (a.elem, a.exact) == (elem, exact) and a.role in roles]
        if fitting and (self.c.chance(60) or len(self.arrays) > 9):
            return self.c.one_of(fitting)
        array = Array(f"p{len(self.arrays)}", elem, self.c.one_of(roles), exact)
        self.arrays.append(array)
        self.w.param(array.name, f"ptr<{elem}>")
        return array

    def base(self, array):
        """Return the address of this program's slice."""
        first = self.w("mul", self.program, self.w.const("i32", SLICE))
        return self.w("addptr", self.w[array.name], first)

    def pointers(self, array, shape, *, unique):
        base = self.base(array)
        index = self.some(lambda t: t == Type("i32", shape)) if self.c.chance(25) else None
        if index is not None and shape and (not unique or len(shape) == 1):
            wrapped = self.w("remu", index, self.w.const(index.type, SLICE))
            return self.w("addptr", self.w.broadcast(base, shape), wrapped)
        strides, start = self.c.layout(shape, unique=unique)
        return self.w.pointers(base, shape, strides, start)

    def mask(self, shape):
        """Return no mask, bounds along some dimensions, or any i1 block."""
        kind = self.c.one_of(["none", "none", "bounds", "any"])
        if kind == "none" or not shape:
            return None
        if kind == "any":
            return self.value(Type("i1", shape))
        mask = None
        for d in range(len(shape)):
            if mask is not None and self.c.chance(50):
                continue
            limit = self.w.const(Type("i32", (shape[d],)), self.c.below(shape[d] + 1))
            inside = self.w.compare("slt", self.w.iota(shape[d]), limit)
            wide = self.w.along(inside, d, shape)
            mask = wide if mask is None else self.w("and", mask, wide)
        return mask

    def from_memory(self, type_):
        array = self.array(type_.elem, ["in", "inout"])
        shape = type_.shape
        mask = self.mask(shape)
        other = self.w.const(type_, self.number(type_)) if mask and self.c.chance(50) else None
        if other and self.c.chance(30):
            other = self.value(type_)
        pointers = self.pointers(array, shape, unique=False)
        volatile = "atomic" in self.weights and self.c.chance(20)
        return self.add(self.w.load_at(pointers, mask=mask, other=other, volatile=volatile))

    def add(self, value):
        self.pool.append(value)
        return value

    # -- steps ----------------------------------------------------------------------------------
    def steps(self, count):
        for _ in range(count):
            kind = self.c.weighted(self.weights)
            if kind in ("loop", "while", "branch", "pointers") and self.depth >= 2:
                kind = "elementwise"
            getattr(self, f"step_{kind}")()

    def step_load(self):
        elem = self.c.one_of(["fp32", "i32", "fp16", "bf16", *FLOATS, *INTEGERS])
        self.from_memory(Type(elem, self.shape()))

    def step_store(self):
        if self.inexact and self.c.chance(50):
            value, exact = self.c.one_of(self.inexact[-4:]), False
        else:
            value, exact = self.some(lambda t: not t.is_ptr), True
        if value is None:
            return
        array = self.array(value.type.elem, ["inout", "out"] if exact else ["out"], exact)
        pointers = self.pointers(array, value.type.shape, unique=True)
        self.w.store_at(pointers, value, mask=self.mask(value.type.shape))

    def step_atomic(self):
        """Combine a value with memory; several elements may meet at one address."""
        value = self.some(lambda t: not t.is_ptr and t.elem != "i1")
        if value is None:
            return
        t, order = value.type, self.c.one_of(MEMORY_ORDERS)
        array = self.array(t.elem, ["inout"])
        pointers = self.pointers(array, t.shape, unique=False)
        if t.is_int and self.c.chance(25):
            operands = (pointers, self.value(t), value)
            self.add(self.w("atomic_cas", *operands, to=t, memory_order=order))
            return
        names = [n for n, elements in COMBINERS.items() if t.elem in elements]
        mask = self.mask(t.shape)
        attrs = {"combine": self.c.one_of([*names, "exchange"]), "mask": mask is not None}
        operands = [v for v in (pointers, value, mask) if v is not None]
        self.add(self.w("atomic_rmw", *operands, to=t, memory_order=order, **attrs))

    def step_elementwise(self):
        a = self.some(lambda t: not t.is_ptr) or self.from_memory(Type("fp32", self.shape()))
        kind = self.c.one_of(["binary", "binary", "unary", "compare", "select", "function"])
        w, t = self.w, a.type
        if kind == "select":
            chooser = t.with_elem("i1") if self.c.chance(70) else Type("i1")
            self.add(w("select", self.value(chooser), a, self.value(t), to=t))
        elif kind == "compare":
            pred = self.c.one_of(FLOAT_PREDICATES if t.is_float else INT_PREDICATES)
            self.add(w.compare(pred, a, self.value(t)))
        elif t.is_int:
            self.add(w("iabs", a) if kind == "unary" else self.binary(INT_BINARY, a))
        elif kind == "function":
            self.inexact.append(w(self.c.one_of(FUNCTIONS), a))
        elif kind == "unary":
            self.add(w(self.c.one_of(FLOAT_UNARY), a))
        elif self.c.chance(20):
            self.add(w("fma", a, self.value(t), self.value(t)))
        else:
            self.add(self.binary(FLOAT_BINARY, a))

    def binary(self, names, a):
        return self.w(self.c.one_of(names), a, self.value(a.type))

    def step_convert(self):
        a = self.some(lambda t: not t.is_ptr) or self.from_memory(Type("fp32", self.shape()))
        w, t = self.w, a.type
        to = self.c.one_of([*FLOATS, *INTEGERS])
        if self.c.chance(20) and to != t.elem and Type(to).bits == t.bits and t.elem != "i1":
            # The bits of a NaN are nobody's promise.
            zero = w.const(t, 0.0 if t.is_float else 0)
            number = w("select", w.compare("ord", a, a), a, zero, to=t) if t.is_float else a
            self.add(w("bitcast", number, to=t.with_elem(to)))
        elif t.is_float and to in FLOATS:
            rounding = {"rounding": "toward_zero"} if self.c.chance(20) else {}
            self.add(w.convert(a, to, **rounding))
        elif t.is_float or to in FLOATS:
            signed = "signed" if self.c.chance(60) else "unsigned"
            self.add(w.convert(a, to, f"{'to' if t.is_float else 'from'}_{signed}"))
        elif Type(to).bits < t.bits:
            self.add(w.convert(a, to, "trunc"))
        elif Type(to).bits > t.bits:
            self.add(w.convert(a, to, self.c.one_of(["sext", "zext"])))

    def step_shape(self):
        a = self.some(lambda t: not t.is_ptr) or self.from_memory(Type("fp32", self.shape()))
        w, shape = self.w, a.type.shape
        kind = self.c.one_of(["transpose", "broadcast", "expand", "reshape", "join", "split"])
        if kind == "transpose" and shape:
            order = self.c.one_of(_permutations(len(shape)))
            to = a.type.with_shape(tuple(shape[i] for i in order))
            self.add(w("transpose", a, to=to, order=order))
        elif kind == "broadcast":
            ones = [d for d, n in enumerate(shape) if n == 1]
            if not shape:
                self.add(w.broadcast(a, self.shape(self.c.one_of([1, 2]))))
            elif ones and a.type.num_elements <= 64:
                d = self.c.one_of(ones)
                self.add(w.broadcast(a, (*shape[:d], self.c.one_of([2, 4]), *shape[d + 1 :])))
        elif kind == "expand" and len(shape) < 4:
            axis = self.c.below(len(shape) + 1)
            to = a.type.with_shape((*shape[:axis], 1, *shape[axis:]))
            self.add(w("expand", a, to=to, axis=axis))
        elif kind == "reshape":
            self.add(w("reshape", a, to=a.type.with_shape(self.factors(a.type.num_elements))))
        elif kind == "join" and a.type.num_elements <= 128 and len(shape) < 4:
            to = a.type.with_shape((*shape, 2))
            self.add(w("join", a, self.value(a.type), to=to))
        elif kind == "split" and shape and shape[-1] == 2:
            to = a.type.with_shape(shape[:-1])
            self.pool += w.op("split", a, to=[to, to]).results

    def factors(self, count):
        """Split a number of elements into sizes; none for a scalar where that is possible."""
        sizes = []
        if count & (count - 1):
            return self.c.one_of([(count,), (1, count), (count, 1)])
        while count > 1 and len(sizes) < 3:
            size = self.c.one_of([s for s in (2, 4, 8, 16, 32, 64, 128, 256) if s <= count])
            sizes.append(size)
            count //= size
        rest = (count,) if count > 1 or self.c.chance(20) else ()
        return (*sizes, *rest)

    def step_reduce(self):
        a = self.some(lambda t: t.shape and not t.is_ptr)
        if a is None:
            return
        if a.type.elem == "i1" and self.c.chance(40):
            self.add(self.w("popcount", a, to="i32"))
            return
        combine = self.c.one_of([n for n, found in COMBINERS.items() if a.type.elem in found])
        axes = [d for d, size in enumerate(a.type.shape) if size & (size - 1) == 0]
        if self.c.chance(30):
            axis, reverse = self.c.below(len(a.type.shape)), self.c.chance(50)
            self.add(self.w("scan", a, axis=axis, combine=combine, reverse=reverse))
        elif axes and self.c.chance(20):
            axis = self.c.one_of(axes)
            mask = self.c.below(a.type.shape[axis])
            self.add(self.w("exchange", a, axis=axis, mask=mask))
        elif axes:
            self.add(self.w.reduce(a, self.c.one_of(axes), combine))

    def step_dot(self):
        elem = self.c.one_of(DOT_ELEMENTS)
        m, n = self.c.one_of([1, 2, 4, 8, 16, 3, 5]), self.c.one_of([1, 2, 4, 8, 16, 32, 6])
        k = self.c.one_of([k for k in (1, 2, 4, 8, 16, 32, 33) if k * max(m, n) <= SLICE])
        largest = max(k * max(m, n), m * n)
        batch = (2,) if self.c.chance(25) and 2 * largest <= SLICE else ()
        a, b = self.matrix(elem, m, k, batch), self.matrix(elem, k, n, batch)
        total = {"i8": "i32", "fp64": "fp64"}.get(elem, "fp32")
        acc = self.value(Type(total, (*batch, m, n)))
        order = self.c.one_of(["pairs", "sequential"])
        self.add(self.w("dot", a, b, acc, to=acc.type, order=order))

    def matrix(self, elem, rows, columns, batch=()):
        """Return a matrix, or a batch of them, sometimes as the transpose of one."""
        to = Type(elem, (*batch, rows, columns))
        if self.c.chance(30):
            turned = self.value(Type(elem, (*batch, columns, rows)))
            order = (*range(len(batch)), len(batch) + 1, len(batch))
            return self.w("transpose", turned, to=to, order=order)
        return self.value(to)

    def step_scaled(self):
        names = [self.c.one_of(SCALED_FORMATS) for _ in range(2)]
        m, n, k = self.c.one_of([1, 2, 4, 8]), self.c.one_of([1, 2, 4, 8, 16]), 32
        depths = [k // 2 if name == "e2m1" else k for name in names]
        a = self.matrix(SCALED_FORMATS[names[0]], m, depths[0])
        b = self.matrix(SCALED_FORMATS[names[1]], depths[1], n)
        acc = self.value(Type("fp32", (m, n)))
        has = [self.c.chance(75) for _ in range(2)]
        group = self.c.one_of([32, 16, 8])
        kinds = [self.c.one_of(["i8", "e4m3"]) for _ in range(2)]
        scales = [
            self.value(Type(kind, (rows, k // group)))
            for kind, rows, there in zip(kinds, (m, n), has, strict=True)
            if there
        ]
        self.add(
            self.w(
                "dot_scaled", a, b, acc, *scales, to=acc.type,
                a_format=names[0], b_format=names[1], a_scale=has[0], b_scale=has[1],
            )
        )  # fmt: skip

    # -- control --------------------------------------------------------------------------------
    def number_of(self, elem, largest):
        """Return a small count: a constant or a scalar argument."""
        number = self.c.below(largest + 1)
        if self.c.chance(50):
            return self.w.const(elem, number)
        name = f"n{len(self.scalars)}"
        self.scalars.append((name, number))
        return self.w.param(name, elem)

    def inner(self, args, types, leading=0):
        """Grow a block on `args`; return values of the wanted types, after `leading` scalars."""
        before, inexact = list(self.pool), list(self.inexact)
        self.pool += [a for a in args if not a.type.is_ptr]
        self.depth += 1
        self.steps(self.c.below(4))
        flags = [self.value(Type("i1")) for _ in range(leading)]
        values = [self.next_value(t, args) for t in types]
        self.depth -= 1
        self.pool, self.inexact = before, inexact
        return [*flags, *values]

    def next_value(self, type_, args):
        """Return a carried value (perhaps another one than before), or any other."""
        same = [a for a in args if a.type == type_]
        if same and self.c.chance(40):
            return self.c.one_of(same)
        if same and not type_.is_ptr and type_.is_float and self.c.chance(50):
            return self.add(self.w("fadd", self.c.one_of(same), self.value(type_)))
        return self.value(type_)

    def carried(self):
        found = [self.some(lambda t: not t.is_ptr) for _ in range(self.c.below(3) + 1)]
        values = [v for v in found if v is not None]
        if values and self.c.chance(50):
            values.append(self.value(values[0].type))  # two of one type can swap
        return values

    def step_loop(self):
        elem = self.c.one_of(["i32", "i64"])
        inits = self.carried()
        types = [v.type for v in inits]
        lo, hi = self.w.const(elem, self.c.below(2)), self.number_of(elem, 4)
        step = self.w.const(elem, self.c.below(2) + 1)
        results = self.w.for_(lo, hi, step, inits, lambda *a: self.inner(a, types))
        self.pool += results

    def step_while(self):
        inits = self.carried()
        types = [v.type for v in inits]
        limit, one = self.number_of("i32", 3), self.w.const("i32", 1)

        def before(i, *args):
            again = self.w.compare("slt", i, limit)
            more, *values = self.inner(args, types, leading=1)
            if self.c.chance(30):
                again = self.w("and", again, more)
            return again, i, *values

        def after(i, *args):
            return self.w("add", i, one), *self.inner(args, types)

        results = self.w.while_([self.w.const("i32", 0), *inits], before, after)
        self.pool += results[1:]

    def step_branch(self):
        condition = self.value(Type("i1"))
        types = [v.type for v in self.carried()] if self.c.chance(70) else []
        results = self.w.if_(
            condition, lambda: self.inner([], types), lambda: self.inner([], types)
        )
        self.pool += results

    def step_pointers(self):
        """Walk a block of pointers through memory, as a matrix product does."""
        elem = self.c.one_of(["fp32", "fp16", "i32"])
        shape = self.shape(self.c.one_of([1, 2]))
        array = self.array(elem, ["in", "inout"])
        pointers = self.w.pointers(self.base(array), shape)
        total = self.value(Type(elem, shape))
        room = (SLICE - total.type.num_elements) // 4
        by = self.c.below(min(room, 64) + 1)

        def body(i, p, acc):
            mask = self.w.compare("slt", self.w.iota(shape[0]), self.w.broadcast(i, shape[:1]))
            mask = self.w.along(mask, 0, shape) if self.c.chance(50) else None
            x = self.w.load_at(p, mask=mask)
            acc = self.w("fadd" if x.type.is_float else "add", acc, x)
            return self.w("addptr", p, self.w.const(Type("i32", shape), by)), acc

        _, result = self.w.for_(0, self.number_of("i32", 3), 1, [pointers, total], body)
        self.add(result)

    def finish(self):
        """Store what was computed last."""
        for value in [*self.pool[-5:], *self.inexact[-2:]]:
            exact = value not in self.inexact
            array = self.array(value.type.elem, ["inout", "out"] if exact else ["out"], exact)
            self.w.store_at(self.pointers(array, value.type.shape, unique=True), value)
        return self.w.done()


def _permutations(rank):
    table = {1: [(0,)], 2: [(0, 1), (1, 0)], 3: [(0, 1, 2), (2, 0, 1), (0, 2, 1), (1, 0, 2)]}
    return table.get(rank, [tuple(reversed(range(rank))), tuple(range(rank))])


def generate(draw, theme, *, num_steps=10):
    """Draw a kernel about a theme, with its grid and arguments."""
    choices = Choices(draw)
    generator = _Generator(choices, theme)
    generator.steps(2 + choices.below(num_steps))
    kernel = generator.finish()
    return Generated(
        kernel,
        (choices.one_of([1, 1, 2, 3]), 1, 1),
        generator.arrays,
        generator.scalars,
        seed=choices.below(1000),
        tame=choices.chance(70),
        alias=choices.chance(30),
    )

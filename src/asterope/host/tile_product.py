"""Matrix products of bf16 on AMX tile registers or by AVX-512's dot products of pairs of bf16.

Both sum in the `pairs` order. Operands are codes of bf16, or fp32 that should be exact in bf16 and
is narrowed first. They are laid out as tiles are read, A in rows, B in pairs of rows. On the way
the smallest exponents are noted: the instructions take subnormals for zero, which changes nothing
where there are none among the operands and all sums are multiples of 2^-126, and that follows from
the smallest exponents of A, B and C. Where it does not, or narrowing lost a bit, fused
multiply-adds run instead.

C takes longer to pass through the registers than a block of A and B to multiply. Products that one
sum gets one after the other are therefore collected and computed together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from asterope.host.microkernel import Product, emit_fma_product, panel_bytes
from asterope.host.pair_dot import multiply_pairs, reordered_bytes
from asterope.host.tile_pack import (
    Area,
    Notes,
    Smallest,
    copy_rows,
    narrow,
    pack_pairs,
    smallest_exponent,
    widen,
    widen_pairs,
)
from asterope.host.tile_registers import TileRegisters
from asterope.native import Function, Isa, Module, Val

__all__ = [
    "PAIRS",
    "emit_collected",
    "emit_tile_product",
    "first_pair",
    "first_row",
    "fits_tiles",
    "most_collected",
    "pack_bytes",
    "panels_bytes",
]

PAIRS = "pairs"  # the kind of a right operand that is in its panel already
_K, _N, _M = 32, 16, 16
# With biased exponents ea, eb: a and b are multiples of 2^(ea-134), 2^(eb-134), so their product is
# one of 2^-126 if ea + eb >= 142.
_MIN_SUM = 142
_CONFIG_BYTES = 64
_MAX_DEPTH, _MAX_PANEL_BYTES = 256, 1 << 19  # of what is collected
_MAX_UNROLLED = 4 * _K


def fits_tiles(m: int, n: int, k: int) -> bool:
    """Whether the shape is made of whole tiles."""
    return (m % _M == 0 or m < _M) and n % _N == 0 and k % _K == 0


def most_collected(m: int, n: int, k: int) -> int:
    """Return how many products are worth collecting: their panels stay in the second cache."""
    return max(1, min(_MAX_DEPTH // k, _MAX_PANEL_BYTES // (2 * k * (m + n))))


def panels_bytes(shape: tuple[int, int, int], most: int, isa: Isa) -> int:
    """Return the bytes of the panels of so many products, tile registers' shapes in front.

    Where there are none, operands in another order are behind.
    """
    behind = reordered_bytes(shape, most) if isa.has_bf16_dot else 0
    return _operands_end(shape, most) + behind


def _operands_end(shape: tuple[int, int, int], most: int) -> int:
    m, n, k = shape
    return _CONFIG_BYTES + most * 2 * k * (m + n)


def first_row(panels: Val) -> Val:
    """Return where the rows of the first product's A are."""
    return panels.offset(_CONFIG_BYTES)


def first_pair(panels: Val, m: int, k: int, most: int) -> Val:
    """Return where the pairs of the first product's B are."""
    return first_row(panels).offset(most * 2 * k * m)


def _in_fp32(p: Product) -> Product:
    """Return the product that fused multiply-adds compute instead; codes are widened for it."""
    if p.a_kind == "f32":
        return p
    strides = (p.n, 1) if p.b_kind == PAIRS else p.b_strides
    return dataclasses.replace(p, a_kind="f32", b_kind="f32", b_strides=strides)


def pack_bytes(p: Product, isa: Isa) -> int:
    """Return the scratch bytes beside the panels, also where other instructions run instead."""
    other_form = (2 if p.a_kind == "f32" else 4) * p.k * (p.m + p.n)
    return other_form + panel_bytes(_in_fp32(p), isa)


def emit_tile_product(module: Module, p: Product, most: int) -> str:
    """Add `f(a, b, c, pack, panels, count, known, of_a, of_b)` for a product once; return its name.

    `count` in memory says how many products are collected in the panels, which hold `most`; their
    turn comes when there are as many, or when one cannot be collected. `known` is a byte that says
    whether C is known to be made of multiples of 2^-126. `of_a` is the smallest exponent of A, or
    negative as long as nobody has looked; `of_b` is that of B, which is known where B is of kind
    `PAIRS`: in its panel already. A may be there as well.
    """
    name = f"tiles_{most}_{p.name}"
    if module.has(name):
        return name
    fallback = emit_fma_product(module, _in_fp32(p))
    multiply = emit_collected(module, (p.m, p.n, p.k), most, from_zero=p.from_zero)
    names = ("a", "b", "c", "pack", "panels", "count", "known", "of_a", "of_b")
    fn = module.function(name, [("ptr" if x in "ab" else "ptr noalias", x) for x in names])
    a, b, c, pack, panels, count, known, *_ = fn.args
    before = fn.load(count, "i64")
    safe, rows, pairs = _lay_out(fn, p, before, most)
    panel = pairs.offset(before * (-2 * p.k * p.n)), panels
    if not p.from_zero:
        with fn.if_(safe & before.eq(0) & fn.load(known, "i8").eq(0)):
            fn.store(_is_coarse(fn, p, c).zext("i8"), known)
        safe = safe & (before.ne(0) | fn.load(known, "i8").ne(0))
    with fn.if_else(safe) as otherwise:
        fn.store(before + 1, count)
        with fn.if_((before + 1).eq(most)):
            fn.call(multiply, (c, rows, *panel, count, known))
        otherwise()
        with fn.if_(before.ne(0)):
            fn.call(multiply, (c, rows, *panel, count, known))
        fn.store(fn.const("i8", 0), known)
        area = Area(pack)
        if p.a_kind != "f32":
            a = widen(fn, a, area, p.m * p.k)
            if p.b_kind == PAIRS:
                b = widen_pairs(fn, b, area, (p.k, p.n))
            else:
                b = widen(fn, b, area, p.k * p.n)
        fn.call(fallback, (a, b, c, area.take(0)))
    fn.finish("noinline")
    return name


def _lay_out(fn: Function, p: Product, before: Val, most: int) -> tuple[Val, Val, Val]:
    """Write A and B to their panels, but A where it may stay.

    Returns: whether tile registers compute the exact product; where the rows of A begin and this
    product's pairs of B.
    """
    a, b, _, pack, panels, *_, of_a, of_b = fn.args
    first = first_row(panels)
    pairs = (
        b
        if p.b_kind == PAIRS
        else first_pair(panels, p.m, p.k, most).offset(before * (2 * p.k * p.n))
    )
    exact = fn.const("i1", 1)
    if p.a_kind == "f32":
        area, dropped = Area(pack), Notes(fn, "umax")
        a = narrow(fn, a, area, (p.m, p.k), p.a_strides, dropped)
        b = narrow(fn, b, area, (p.k, p.n), p.b_strides, dropped)
        exact = dropped.value().eq(0)
    if most == 1 and p.a_strides[1] == 1:
        first = rows = a
    else:
        rows = first.offset(before * (2 * p.k * p.m))
        with fn.if_(fn.line(f"icmp ne {a.text}, {rows.ref}", "i1")):
            copy_rows(fn, a, rows, (p.m, p.k), p.a_strides)
    if p.b_kind != PAIRS:
        seen = Notes(fn, "umin")
        pack_pairs(fn, b, pairs, (p.k, p.n), p.b_strides, seen)
        fn.store(seen.smallest_exponent(), of_b)
    with fn.if_(fn.load(of_a, "i32").lt(0)):
        fn.store(smallest_exponent(fn, rows, p.m * p.k), of_a)
    ea, eb = (fn.load(exponent, "i32") for exponent in (of_a, of_b))
    return exact & ea.gt(0) & eb.gt(0) & (ea + eb).ge(_MIN_SUM), first, pairs


def _is_coarse(fn: Function, p: Product, c: Val) -> Val:
    """Whether all numbers of C are multiples of 2^-126."""
    seen = Smallest(fn)
    with fn.loop(0, p.m * p.n, 16) as i:
        seen.add(fn.load(c.offset(i * 4), "f32", 16))
    return seen.is_coarse()


def emit_collected(
    module: Module, shape: tuple[int, int, int], most: int, *, from_zero: bool = False
) -> str:
    """Add `f(c, rows, pairs, area, count, known)`, which computes what is collected, once; name it.

    The `area` is that of the panels. Where one product is the `most`, that is the `count`.
    """
    start = "_from_zero" if from_zero else ""
    name = f"collected_{'many' if most > 1 else 'one'}_{'x'.join(map(str, shape))}{start}"
    if module.has(name):
        return name
    names = ("c", "rows", "pairs", "area", "count", "known")
    fn = module.function(name, [("ptr noalias", x) for x in names])
    count, known = fn.args[4:]
    number = fn.load(count, "i64") if most > 1 else None
    if fn.isa.has_bf16_dot:
        behind = fn.args[3].offset(_operands_end(shape, most))
        multiply_pairs(fn, shape, number, behind, from_zero=from_zero)
    else:
        _multiply(fn, shape, number, from_zero=from_zero)
    fn.store(fn.const("i64", 0), count)
    fn.store(fn.const("i8", 1), known)
    fn.finish("noinline")
    return name


def _multiply(
    fn: Function, shape: tuple[int, int, int], count: Val | None, *, from_zero: bool
) -> None:
    """Run over blocks of 2 x 2 tiles of C, what is left in single tiles; of one product or more."""
    c, _, _, area = fn.args[:4]
    size_m, size_n, size_k = shape
    height = min(size_m, _M)
    tiles = TileRegisters(fn, height)
    tiles.configure(area)
    many_m, many_n = (2 if size_m % (2 * _M) == 0 else 1), (2 if size_n % (2 * _N) == 0 else 1)
    with fn.loop(0, size_m, many_m * height) as m, fn.loop(0, size_n, many_n * _N) as n:
        places = [
            [c.offset(((m + i * _M) * size_n + n + j * _N) * 4) for j in range(many_n)]
            for i in range(many_m)
        ]
        for i in range(many_m):
            for j in range(many_n):
                if from_zero:
                    tiles.clear(2 * i + j)
                else:
                    tiles.load(2 * i + j, places[i][j], size_n * 4)
        for rows, pairs, k in _steps(fn, shape, count):
            for j in range(many_n):
                tiles.load(6 + j, pairs.offset((n + j * _N) * (2 * size_k) + k * 32), 64)
            for i in range(many_m):
                tiles.load(4 + i, rows.offset(((m + i * _M) * size_k + k) * 2), size_k * 2)
                for j in range(many_n):
                    tiles.multiply(2 * i + j, 4 + i, 6 + j)
        for i in range(many_m):
            for j in range(many_n):
                tiles.store(2 * i + j, places[i][j], size_n * 4)
    tiles.release()


def _steps(
    fn: Function, shape: tuple[int, int, int], count: Val | None
) -> Iterator[tuple[Val, Val, Val]]:
    """Go over the depth of all products: yields where operands begin, and how deep it is there."""
    a, b = fn.args[1:3]
    size_m, size_n, size_k = shape
    if count is None and size_k <= _MAX_UNROLLED:
        yield from ((a, b, fn.const("i64", k)) for k in range(0, size_k, _K))
        return
    with fn.loop(0, 1 if count is None else count) as block, fn.loop(0, size_k, _K) as k:
        yield a.offset(block * (2 * size_k * size_m)), b.offset(block * (2 * size_k * size_n)), k

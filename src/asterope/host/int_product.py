"""Products of int8 matrices: two neighbours along K in one multiply-add of int16, as x86 has it.

The instruction multiplies pairs of int16 and adds the two products into an int32, in which those of
int8 are exact. Sums wrap, so their order does not matter. K is filled up with zeros to pairs.
"""

from __future__ import annotations

from asterope.host.layout import turn
from asterope.host.microkernel import Product, row_blocks
from asterope.native import Function, Isa, Module, Val

__all__ = ["emit_int_product", "fits_pairs", "pair_bytes"]


def _lanes(isa: Isa) -> int:
    return 16 if isa.has_wide_masks else 8


def fits_pairs(p: Product, isa: Isa) -> bool:
    """Whether a product is one of int8 on a CPU with the instruction, with whole vectors in N."""
    return isa.has_fma and p.total == "i32" and p.n % _lanes(isa) == 0


def _pairs(p: Product) -> int:
    return (p.k + 1) // 2


def pair_bytes(p: Product) -> int:
    """Return the scratch bytes that packing takes."""
    return 4 * _pairs(p) * (p.m + p.n)


def emit_int_product(module: Module, p: Product) -> str:
    """Add `f(a, b, c, pack)` for a product to the module once; return its name."""
    name = f"pairs_{p.name}"
    if module.has(name):
        return name
    fn = module.function(name, [("ptr noalias", x) for x in ("a", "b", "c", "pack")])
    lanes, depth = _lanes(fn.isa), _pairs(p)
    a, b, c, a_pack = fn.args
    b_pack = a_pack.offset(4 * depth * p.m)
    _pack_a(fn, p, a, a_pack)
    _pack_b(fn, p, b, b_pack, lanes)
    vectors = 2 if p.n % (2 * lanes) == 0 else 1
    with fn.loop(0, p.n, vectors * lanes) as n:
        for start, stop, rows in row_blocks(p.m, fn.isa.dot_rows + 1):
            with fn.loop(start, stop, rows) as m:
                _block(fn, p, a_pack, b_pack, c, (m, n), (rows, vectors))
    fn.finish("noinline")
    return name


def _load_pairs(fn: Function, p: Product, place: Val, step: int, k: Val, count: int) -> Val:
    """Load `count` pairs of a row from pair k on as int32; elements lie `step` apart."""
    at = place.offset(k * (2 * step))
    if step == 1:
        wide = fn.load(at, "i8", 2 * count).sext("i16")
        return fn.line(f"bitcast {wide.text} to <{count} x i32>", "i32", count)
    steps = fn.iota("i64", count) * (2 * step)
    on = fn.const("i1", 1, count)
    low, high = (
        fn.gather(x.offset(steps), on, fn.undef("i8", count)).sext("i32")
        for x in (at, at.offset(step))
    )
    return (low & 0xFFFF) | (high << 16)


def _last_pair(fn: Function, place: Val, step: int, k: int) -> Val:
    """Load the last element of a row of odd length, beside a zero."""
    return fn.load(place.offset(k * step), "i8").sext("i32") & 0xFFFF


def _pack_a(fn: Function, p: Product, a: Val, target: Val) -> None:
    """Write the pairs of each row of A."""
    down, across = p.a_strides
    whole, depth = p.k // 2, _pairs(p)
    with fn.loop(0, p.m) as m:
        row, to = a.offset(m * down), target.offset(m * (4 * depth))
        if whole:
            size = min(16, whole & -whole)
            with fn.loop(0, whole, size) as k:
                fn.store(_load_pairs(fn, p, row, across, k, size), to.offset(k * 4))
        if p.k % 2:
            fn.store(_last_pair(fn, row, across, p.k - 1), to.offset(4 * whole))


def _pack_b(fn: Function, p: Product, b: Val, target: Val, lanes: int) -> None:
    """Write, for each pair along K, the pairs of all columns."""
    down, across = p.b_strides
    whole = p.k // 2
    if across != 1 and whole:
        size = min(lanes, whole & -whole)

        def load(k: Val, n: Val) -> Val:
            return _load_pairs(fn, p, b.offset(n * across), down, k, size)

        turn(fn, (whole, p.n), size, load, target, p.n)
    with fn.loop(0, p.n, lanes) as n:
        place = b.offset(n * across)
        if across == 1:
            with fn.loop(0, whole) as k:
                low, high = (
                    fn.load(place.offset((k * 2 + i) * down), "i8", lanes).sext("i32")
                    for i in range(2)
                )
                fn.store((low & 0xFFFF) | (high << 16), target.offset((k * p.n + n) * 4))
        if p.k % 2:
            with fn.loop(0, lanes) as i:
                pair = _last_pair(fn, place.offset(i * across), down, p.k - 1)
                fn.store(pair, target.offset((n + i + whole * p.n) * 4))


def _block(
    fn: Function, p: Product, a: Val, b: Val, c: Val, at: tuple[Val, Val], size: tuple[int, int]
) -> None:
    """Add to rows x vectors sums."""
    (m, n), (rows, vectors) = at, size
    lanes, depth = _lanes(fn.isa), _pairs(p)
    places = [
        [c.offset(((m + i) * p.n + n + v * lanes) * 4) for v in range(vectors)] for i in range(rows)
    ]
    sums = [[fn.slot("i32", lanes) for _ in line] for line in places]
    for line, slots in zip(places, sums, strict=True):
        for place, slot in zip(line, slots, strict=True):
            start = fn.const("i32", 0, lanes) if p.from_zero else fn.load(place, "i32", lanes)
            fn.store(start, slot)
    with fn.loop(0, depth) as k:
        right = [
            fn.load(b.offset((k * p.n + n + v * lanes) * 4), "i32", lanes) for v in range(vectors)
        ]
        for i in range(rows):
            left = fn.load(a.offset(((m + i) * depth + k) * 4), "i32").splat(lanes)
            for slot, pairs in zip(sums[i], right, strict=True):
                fn.store(fn.load(slot, "i32", lanes) + _multiply_add(fn, left, pairs), slot)
    for line, slots in zip(places, sums, strict=True):
        for place, slot in zip(line, slots, strict=True):
            fn.store(fn.load(slot, "i32", lanes), place)


def _multiply_add(fn: Function, a: Val, b: Val) -> Val:
    lanes = a.lanes
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    halves = [fn.line(f"bitcast {x.text} to <{2 * lanes} x i16>", "i16", 2 * lanes) for x in (a, b)]
    return fn.call(name, halves, "i32", lanes)

"""Matrix products by AVX-512's dot product of pairs of bf16, in the `pairs` order.

VDPBF16PS adds two products to a sum, one after the other: fma(a0, b0, fma(a1, b1, sum)). Even
products have a chain of their own, and odd ones, so a pair is made of two even or two odd
neighbours, the first in its upper half: of 4 numbers along K, 0 and 2, then 1 and 3. Panels hold
neighbours as pairs, as tile registers read them (`tile_pack`). They are put together anew in other
memory, rows of A once, columns of B a block at a time.

Source: Intel 64 and IA-32 Software Developer's Manual, volume 2, VDPBF16PS. Subnormal operands and
results are zero.
"""

from __future__ import annotations

from itertools import chain

from asterope.host.microkernel import row_blocks
from asterope.host.tile_registers import flushed, half_of_pair
from asterope.native import Function, Val

__all__ = ["multiply_pairs", "reordered_bytes"]

_CHUNK, _QUAD, _LANES = 32, 4, 16
_SUMS = 12  # of even and of odd products, in 24 registers
_VECTORS = 2  # of columns; two vectors share what is read of A
_ORDER = (2, 0, 3, 1)


def reordered_bytes(shape: tuple[int, int, int], most: int) -> int:
    """Return the scratch bytes for the rows, and a block of columns, of so many products."""
    m, _, k = shape
    return 2 * most * k * (m + _VECTORS * _LANES)


def multiply_pairs(
    fn: Function, shape: tuple[int, int, int], count: Val | None, reordered: Val, *, from_zero: bool
) -> None:
    """Add to C what is in the panels, `count` products or one; arguments are c, rows and pairs."""
    size_m, size_n, size_k = shape
    many = fn.const("i64", 1) if count is None else count
    rows, columns = reordered, reordered.offset(many * (2 * size_m * size_k))
    _reorder_rows(fn, many * (size_m * size_k), rows)
    whole = size_n - size_n % (_VECTORS * _LANES)
    parts = ((0, whole, _VECTORS), (whole, size_n, 1))
    for first, last, vectors in (part for part in parts if part[0] < part[1]):
        with fn.loop(first, last, vectors * _LANES) as n:
            _reorder_columns(fn, shape, many, n, vectors, columns)
            for start, stop, height in row_blocks(size_m, _SUMS // vectors):
                with fn.loop(start, stop, height) as m:
                    c = fn.args[0].offset((m * size_n + n) * 4)
                    places = [
                        [c.offset((i * size_n + v * _LANES) * 4) for v in range(vectors)]
                        for i in range(height)
                    ]
                    left = rows.offset(m * (2 * size_k))
                    _block(fn, shape, many, left, columns, places, from_zero=from_zero)


def _reorder_rows(fn: Function, size: Val, target: Val) -> None:
    """Copy all rows with each 4 numbers in the order of their pairs."""
    order = [4 * (i // _QUAD) + _ORDER[i % _QUAD] for i in range(_CHUNK)]
    with fn.loop(0, size, _CHUNK) as i:
        codes = fn.load(fn.args[1].offset(i * 2), "i16", _CHUNK, align=2)
        fn.store(codes.shuffle(order), target.offset(i * 2))


def _reorder_columns(
    fn: Function, shape: tuple[int, int, int], many: Val, n: Val, vectors: int, target: Val
) -> None:
    """Copy 16 columns or more: for each 4 numbers even pairs, then odd ones, of each vector."""
    _, size_n, size_k = shape
    with fn.loop(0, many) as block, fn.loop(0, size_k, _QUAD) as k:
        to = target.offset((block * size_k + k) * (2 * vectors * _LANES))
        for v in range(vectors):
            at = (block * size_n + n + v * _LANES) * (2 * size_k) + k * (2 * _LANES)
            upper, lower = (
                fn.load(fn.args[2].offset(at + 64 * i), "i32", _LANES) for i in range(2)
            )
            even, odd = upper << 16 | lower & 0xFFFF, upper & -65536 | lower >> 16
            fn.store(even, to.offset(64 * v))
            fn.store(odd, to.offset(64 * (vectors + v)))


def _block(
    fn: Function, shape: tuple[int, int, int], many: Val, rows: Val, columns: Val,
    places: list[list[Val]], *, from_zero: bool,
) -> None:  # fmt: skip
    """Compute a block of rows and vectors of columns."""
    size_m, _, size_k = shape
    height, vectors = len(places), len(places[0])
    zero = fn.const("f32", 0.0, _LANES)
    if from_zero:
        for place in chain(*places):
            fn.store(zero, place)
    sums = [
        [[fn.slot("f32", _LANES) for _ in range(vectors)] for _ in range(height)] for _ in range(2)
    ]
    with fn.loop(0, many) as block, fn.loop(0, size_k, _CHUNK, rolled=True) as k:
        left = rows.offset(block * (2 * size_m * size_k) + k * 2)
        right = columns.offset((block * size_k + k) * (2 * vectors * _LANES))
        for slot in chain(*sums[0], *sums[1]):
            fn.store(zero, slot)
        with fn.loop(0, _CHUNK, _QUAD, rolled=True) as quad:
            for is_odd, slots in enumerate(sums):
                at = right.offset(quad * (2 * vectors * _LANES) + is_odd * (64 * vectors))
                b = [fn.load(at.offset(64 * v), "i32", _LANES) for v in range(vectors)]
                for i, line in enumerate(slots):
                    at = left.offset(quad * 2 + (2 * size_k * i + 4 * is_odd))
                    a = fn.load(at, "i32").splat(_LANES)
                    for pairs, slot in zip(b, line, strict=True):
                        fn.store(_dot(fn, fn.load(slot, "f32", _LANES), a, pairs), slot)
        for place, *both in zip(chain(*places), chain(*sums[0]), chain(*sums[1]), strict=True):
            even, odd = (fn.load(slot, "f32", _LANES) for slot in both)
            fn.store(fn.load(place, "f32", _LANES) + (even + odd), place)


def _dot(fn: Function, total: Val, a: Val, b: Val) -> Val:
    """Add the products of 16 pairs, given as 32 bits each, the upper ones first."""
    if fn.isa.emulates_products:
        for is_odd in (True, False):
            x, y = (half_of_pair(pairs, is_odd=is_odd) for pairs in (a, b))
            total = flushed(x.fma(y, total))
        return total
    codes = [fn.line(f"bitcast {x.text} to <32 x bfloat>", "bfloat", 2 * _LANES) for x in (a, b)]
    return fn.call("llvm.x86.avx512bf16.dpbf16ps.512", (total, *codes), "f32", _LANES)

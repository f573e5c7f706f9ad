"""Matrix products on AMX tile registers, in the `pairs` order that the instruction sums in.

Operands come as fp32 whose values should be exact in bf16. They are packed to bf16, A in rows, B
in pairs of rows, and on the way the bits that bf16 drops and the smallest exponents are noted. The
instruction takes subnormals for zero; that changes nothing as long as all sums are multiples of
2^-126, which follows from the smallest exponents of A, B and C. Where it does not, or a bit was
lost, fused multiply-adds run instead.
"""

from __future__ import annotations

from asterope.host.microkernel import Product, emit_fma_product, panel_bytes
from asterope.host.tile_registers import TileRegisters
from asterope.native import Function, Isa, Module, Val

__all__ = ["emit_tile_product", "fits_tiles", "pack_bytes"]

_K, _N, _M = 32, 16, 16
_EXPONENT = 0x7F80_0000
# With biased exponents ea, eb: a and b are multiples of 2^(ea-134), 2^(eb-134), so their product is
# one of 2^-126 if ea + eb >= 142. C of at least 2^-103 is one of 2^-126 itself.
_MIN_SUM, _MIN_C = 142, 24
_CONFIG_BYTES = 64


def fits_tiles(product: Product) -> bool:
    """Whether the shape is made of whole tiles."""
    rows = product.m % _M == 0 or product.m < _M
    return rows and product.n % _N == 0 and product.k % _K == 0


def pack_bytes(product: Product, isa: Isa) -> int:
    """Return the scratch bytes that packing takes, also where other instructions run instead."""
    tiles = _CONFIG_BYTES + 2 * product.k * (product.m + product.n)
    return max(tiles, panel_bytes(product, isa))


def emit_tile_product(module: Module, product: Product) -> str:
    """Add `f(a, b, c, pack)` for a product to the module once; return its name."""
    name = f"tiles_{product.name}"
    if module.has(name):
        return name
    fallback = emit_fma_product(module, product)
    kind = "ptr noalias"
    fn = module.function(name, [(kind, "a"), (kind, "b"), (kind, "c"), (kind, "pack")])
    a, b, c, pack = fn.args
    a_pack = pack.offset(_CONFIG_BYTES)
    b_pack = a_pack.offset(2 * product.k * product.m)
    notes = [_Notes(fn) for _ in range(3)]
    _pack_a(fn, product, a, a_pack, notes[0])
    _pack_b(fn, product, b, b_pack, notes[1])
    _note_c(fn, product, c, notes[2])
    ea, eb, ec = (n.smallest_exponent() for n in notes)
    exact = notes[0].lost_bits().eq(0) & notes[1].lost_bits().eq(0)
    safe = exact & (ea + eb).ge(_MIN_SUM) & ec.ge(_MIN_C)
    with fn.if_else(safe) as otherwise:
        _multiply(fn, product, a_pack, b_pack, c, pack)
        otherwise()
        fn.call(fallback, (a, b, c, pack))
    fn.finish("noinline")
    return name


class _Notes:
    """What was seen of a matrix: the smallest exponent but of zeros, and bits that bf16 drops."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.exponent, self.dropped = fn.slot("i32", 16), fn.slot("i32", 16)
        fn.store(fn.const("i32", _EXPONENT, 16), self.exponent)
        fn.store(fn.const("i32", 0, 16), self.dropped)

    def add(self, x: Val) -> None:
        fn, bits = self.fn, x.bits_as("i32")
        exponent = (bits & 0x7FFF_FFFF).eq(0).where(bits.like(_EXPONENT), bits & _EXPONENT)
        fn.store(fn.load(self.exponent, "i32", 16).minimum("umin", exponent), self.exponent)
        fn.store(fn.load(self.dropped, "i32", 16) | (bits & 0xFFFF), self.dropped)

    def smallest_exponent(self) -> Val:
        found = self.fn.load(self.exponent, "i32", 16)
        return self.fn.call("llvm.vector.reduce.umin.v16i32", (found,), "i32") >> 23

    def lost_bits(self) -> Val:
        found = self.fn.load(self.dropped, "i32", 16)
        return self.fn.call("llvm.vector.reduce.or.v16i32", (found,), "i32")


def _pack_a(fn: Function, p: Product, a: Val, target: Val, notes: _Notes) -> None:
    """Write rows of bf16: element k of row m at 2 (m K + k)."""
    down, across = p.a_strides
    with fn.loop(0, p.m) as m, fn.loop(0, p.k, 16) as k:
        at = a.offset((m * down + k * across) * 4)
        if across == 1:
            x = fn.load(at, "f32", 16)
        else:
            steps = fn.iota("i64", 16) * (across * 4)
            x = fn.gather(at.offset(steps), fn.const("i1", 1, 16), fn.undef("f32", 16))
        notes.add(x)
        codes = (x.bits_as("i32") >> 16).zext("i16")
        fn.store(codes, target.offset((m * p.k + k) * 2))


def _pack_b(fn: Function, p: Product, b: Val, target: Val, notes: _Notes) -> None:
    """Write pairs of rows: for each pair the even element of a column below the odd one."""
    with fn.loop(0, p.k, 2) as k, fn.loop(0, p.n, 16) as n:
        at = b.offset((k * p.b_strides[0] + n) * 4)
        even, odd = fn.load(at, "f32", 16), fn.load(at.offset(p.b_strides[0] * 4), "f32", 16)
        notes.add(even)
        notes.add(odd)
        pair = (even.bits_as("i32") >> 16) | (odd.bits_as("i32") & -65536)
        fn.store(pair, target.offset((k * p.n + n * 2) * 2))


def _note_c(fn: Function, p: Product, c: Val, notes: _Notes) -> None:
    with fn.loop(0, p.m * p.n, 16) as i:
        notes.add(fn.load(c.offset(i * 4), "f32", 16))


def _multiply(fn: Function, p: Product, a: Val, b: Val, c: Val, area: Val) -> None:
    """Run over blocks of 2 x 2 tiles of C, what is left in single tiles."""
    rows = min(p.m, _M)
    tiles = TileRegisters(fn, rows)
    tiles.configure(area)
    many_m, many_n = (2 if p.m % (2 * _M) == 0 else 1), (2 if p.n % (2 * _N) == 0 else 1)
    with fn.loop(0, p.m, many_m * rows) as m, fn.loop(0, p.n, many_n * _N) as n:
        places = [
            [c.offset(((m + i * _M) * p.n + n + j * _N) * 4) for j in range(many_n)]
            for i in range(many_m)
        ]
        for i in range(many_m):
            for j in range(many_n):
                tiles.load(2 * i + j, places[i][j], p.n * 4)
        with fn.loop(0, p.k, _K) as k:
            for i in range(many_m):
                tiles.load(4 + i, a.offset(((m + i * _M) * p.k + k) * 2), p.k * 2)
            for j in range(many_n):
                tiles.load(6 + j, b.offset((k * p.n + (n + j * _N) * 2) * 2), p.n * 4)
            for i in range(many_m):
                for j in range(many_n):
                    tiles.multiply(2 * i + j, 4 + i, 6 + j)
        for i in range(many_m):
            for j in range(many_n):
                tiles.store(2 * i + j, places[i][j], p.n * 4)
    tiles.release()

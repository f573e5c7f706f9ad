"""The inner loops of a matrix product, blocked into registers.

A panel of B, as many columns as one block has, is first copied to where its rows are neighbours and
its numbers as wide as the sums: it then stays in the first-level cache while A passes by. Where A
has too few rows to make that worthwhile, B is read as it lies.

`sequential`: acc = fma(a_k, b_k, acc) for k ascending. `pairs`: for each 32 values of k, the even
and the odd products are summed in two chains of fma from zero, then acc += even + odd. Every
instruction set gives the same bits (`asterope.formats.dot` is the definition).
"""

from __future__ import annotations

from dataclasses import dataclass

from asterope.host.layout import copy_turned
from asterope.native import BITS, Function, Isa, Module, Val

__all__ = ["Product", "emit_fma_product", "panel_bytes", "row_blocks"]

_CHUNK = 32
_WORTH_PACKING = 4  # blocks of rows that read a panel


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """C[m, n] += A[m, k] B[k, n], = where it is `from_zero`: strides in elements, C row-major."""

    m: int
    n: int
    k: int
    order: str
    a_kind: str
    b_kind: str
    total: str
    a_strides: tuple[int, int]
    b_strides: tuple[int, int]
    from_zero: bool = False

    @property
    def name(self) -> str:
        """The name of the generated function."""
        kinds = f"{self.a_kind}_{self.b_kind}_{self.total}"
        strides = "_".join(map(str, (*self.a_strides, *self.b_strides)))
        start = "_from_zero" if self.from_zero else ""
        return f"dot_{self.order}_{kinds}_{self.m}x{self.n}x{self.k}_{strides}{start}"

    @property
    def lanes(self) -> int:
        """Columns in one vector."""
        return min(8 if self.total == "f64" else 16, self.n & -self.n)

    @property
    def in_pairs(self) -> bool:
        """Whether even and odd products have sums of their own; order is nothing to integers."""
        return self.order == "pairs" and self.total == "f32"

    def block(self, isa: Isa) -> tuple[int, int]:
        """Return how many rows, and vectors in each, fill the registers with sums."""
        sums = isa.dot_rows * isa.dot_vectors * (1 if self.in_pairs else 2)
        rows = min(self.m, sums // isa.dot_vectors)
        return rows, min(sums // rows, self.n // self.lanes)

    def packs(self, isa: Isa) -> bool:
        """Whether panels of B are copied before they are used."""
        rows, _ = self.block(isa)
        return (self.b_strides[1] != 1 and self.n > 1) or self.m > _WORTH_PACKING * rows


def panel_bytes(p: Product, isa: Isa) -> int:
    """Return the scratch bytes that a product takes; it may be none."""
    _, vectors = p.block(isa)
    return p.k * vectors * p.lanes * BITS[p.total] // 8 if p.packs(isa) else 0


def emit_fma_product(module: Module, product: Product) -> str:
    """Add `f(a, b, c, panel)` for a product to the module once; return its name."""
    if module.has(product.name):
        return product.name
    names = ("a", "b", "c", "panel")
    fn = module.function(product.name, [("ptr noalias", name) for name in names])
    _, vectors = product.block(fn.isa)
    step = vectors * product.lanes
    whole = product.n - product.n % step
    if whole:
        with fn.loop(0, whole, step) as n:
            _columns(fn, product, n, vectors)
    if whole < product.n:
        with fn.loop(whole, product.n, product.lanes) as n:
            _columns(fn, product, n, 1)
    fn.finish("noinline")
    return product.name


def _columns(fn: Function, p: Product, n: Val, vectors: int) -> None:
    if p.packs(fn.isa):
        _pack(fn, p, n, vectors * p.lanes)
    for start, stop, rows in row_blocks(p.m, p.block(fn.isa)[0]):
        with fn.loop(start, stop, rows) as m:
            _block(fn, p, m, n, rows, vectors)


def row_blocks(m: int, rows: int) -> list[tuple[int, int, int]]:
    """Split m rows into as few blocks as can be, of sizes as equal as can be, at most `rows`.

    Returns: start, stop and size for each of the one or two sizes; a block of a single row left
    over would take nearly as long as a whole one.
    """
    size, larger = divmod(m, -(-m // rows))
    middle = larger * (size + 1)
    parts = [(0, middle, size + 1), (middle, m, size)]
    return [part for part in parts if part[0] < part[1]]


def _pack(fn: Function, p: Product, n: Val, width: int) -> None:
    """Copy columns n, n + 1, ... of B, widened, to where their rows are neighbours."""
    down, across = p.b_strides
    source, panel = fn.args[1].offset(n * (across * BITS[p.b_kind] // 8)), fn.args[3]
    if across != 1:
        copy_turned(fn, source, panel, (p.k, width), (down, across), width, p.b_kind, p.total)
        return
    with fn.loop(0, p.k) as k:
        for v in range(0, width, p.lanes):
            row = source.offset(k * (down * BITS[p.b_kind] // 8) + v * BITS[p.b_kind] // 8)
            value = _widened(fn.load(row, p.b_kind, p.lanes), p.total)
            fn.store(value, panel.offset((k * width + v) * (BITS[p.total] // 8)))


def _widened(x: Val, kind: str) -> Val:
    return x if x.kind == kind else x.fext(kind) if x.is_float else x.sext(kind)


class _Accumulators:
    """A block of rows x vectors sums in registers."""

    def __init__(self, fn: Function, p: Product, rows: int, vectors: int) -> None:
        self.fn, self.p = fn, p
        self.slots = [[fn.slot(p.total, p.lanes) for _ in range(vectors)] for _ in range(rows)]

    def set(self, values: list[list[Val]]) -> None:
        for slots, row in zip(self.slots, values, strict=True):
            for slot, value in zip(slots, row, strict=True):
                self.fn.store(value, slot)

    def get(self) -> list[list[Val]]:
        load, p = self.fn.load, self.p
        return [[load(slot, p.total, p.lanes) for slot in row] for row in self.slots]

    def clear(self) -> None:
        zero = self.fn.const(self.p.total, 0, self.p.lanes)
        self.set([[zero for _ in row] for row in self.slots])

    def add_product(self, a: list[Val], b: list[Val]) -> None:
        sums = self.get()
        if a[0].is_float:
            self.set(
                [
                    [x.fma(y, s) for y, s in zip(b, row, strict=True)]
                    for x, row in zip(a, sums, strict=True)
                ]
            )
        else:
            self.set(
                [
                    [s + y * x for y, s in zip(b, row, strict=True)]
                    for x, row in zip(a, sums, strict=True)
                ]
            )


class _Sums:
    """A block of C in memory, rows x vectors."""

    def __init__(self, fn: Function, p: Product, m: Val, n: Val, rows: int, vectors: int) -> None:
        self.fn, self.p = fn, p
        num_bytes = BITS[p.total] // 8
        self.places = [
            [
                fn.args[2].offset(((m + i) * p.n + n + v * p.lanes) * num_bytes)
                for v in range(vectors)
            ]
            for i in range(rows)
        ]

    def load(self) -> list[list[Val]]:
        p = self.p
        return [[self.fn.load(x, p.total, p.lanes) for x in row] for row in self.places]

    def store(self, values: list[list[Val]]) -> None:
        for row, line in zip(self.places, values, strict=True):
            for place, value in zip(row, line, strict=True):
                self.fn.store(value, place)

    def zeros(self) -> list[list[Val]]:
        zero = self.fn.const(self.p.total, 0, self.p.lanes)
        return [[zero for _ in row] for row in self.places]


def _block(fn: Function, p: Product, m: Val, n: Val, rows: int, vectors: int) -> None:
    block = _Sums(fn, p, m, n, rows, vectors)
    if not p.in_pairs:
        sums = _Accumulators(fn, p, rows, vectors)
        sums.set(block.zeros() if p.from_zero else block.load())
        with fn.loop(0, p.k) as k:
            sums.add_product(*_operands(fn, p, m, n, k, rows, vectors))
        block.store(sums.get())
        return
    if p.from_zero:
        block.store(block.zeros())
    whole = p.k - p.k % _CHUNK

    def chunk(start: Val, size: int) -> None:
        even, odd = (_Accumulators(fn, p, rows, vectors) for _ in range(2))
        even.clear()
        odd.clear()
        with fn.loop(start, start + size - size % 2, 2) as k:
            even.add_product(*_operands(fn, p, m, n, k, rows, vectors))
            odd.add_product(*_operands(fn, p, m, n, k + 1, rows, vectors))
        if size % 2:
            even.add_product(*_operands(fn, p, m, n, start + size - 1, rows, vectors))
        pairs = zip(block.load(), even.get(), odd.get(), strict=True)
        block.store([[c + (e + o) for c, e, o in zip(*row, strict=True)] for row in pairs])

    if whole:
        # Written out, two chunks would be scheduled into each other and their sums spilled.
        with fn.loop(0, whole, _CHUNK, rolled=True) as start:
            chunk(start, _CHUNK)
    if p.k % _CHUNK:
        chunk(fn.const("i64", whole), p.k % _CHUNK)


def _operands(
    fn: Function, p: Product, m: Val, n: Val, k: Val, rows: int, vectors: int
) -> tuple[list[Val], list[Val]]:
    """Load a column of A, one scalar a row, and a row of B, in the accumulator's kind."""
    if p.packs(fn.isa):
        kind, place, at = p.total, fn.args[3], k * (vectors * p.lanes)
    else:
        kind, place, at = p.b_kind, fn.args[1], k * p.b_strides[0] + n
    b = []
    for v in range(vectors):
        address = place.offset((at + v * p.lanes) * (BITS[kind] // 8))
        b.append(_widened(fn.load(address, kind, p.lanes), p.total))
    a = []
    for i in range(rows):
        at = (m + i) * p.a_strides[0] + k * p.a_strides[1]
        one = fn.load(fn.args[0].offset(at * (BITS[p.a_kind] // 8)), p.a_kind)
        a.append(_widened(one, p.total).splat(p.lanes))
    return a, b

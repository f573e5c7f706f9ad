"""The inner loops of a matrix product, blocked into registers.

`sequential`: acc = fma(a_k, b_k, acc) for k ascending. `pairs`: for each 32 values of k, the even
and the odd products are summed in two chains of fma from zero, then acc += even + odd. Every
instruction set gives the same bits (`asterope.formats.dot` is the definition).
"""

from __future__ import annotations

from dataclasses import dataclass

from asterope.native import BITS, Function, Module, Val

__all__ = ["Product", "emit_fma_product"]

_CHUNK = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """C[m, n] += A[m, k] B[k, n]: strides in elements, C row-major, rows of B contiguous."""

    m: int
    n: int
    k: int
    order: str
    a_kind: str
    b_kind: str
    total: str
    a_strides: tuple[int, int]
    b_stride: int

    @property
    def name(self) -> str:
        """The name of the generated function."""
        kinds = f"{self.a_kind}_{self.b_kind}_{self.total}"
        strides = f"{self.a_strides[0]}_{self.a_strides[1]}_{self.b_stride}"
        return f"dot_{self.order}_{kinds}_{self.m}x{self.n}x{self.k}_{strides}"

    @property
    def lanes(self) -> int:
        """Columns in one vector."""
        return min(8 if self.total == "f64" else 16, self.n & -self.n)


def emit_fma_product(module: Module, product: Product) -> str:
    """Add the function for a product to the module once; return its name."""
    if module.has(product.name):
        return product.name
    fn = module.function(
        product.name, [("ptr noalias", "a"), ("ptr noalias", "b"), ("ptr noalias", "c")]
    )
    step = fn.isa.dot_vectors * product.lanes
    whole = product.n - product.n % step
    if whole:
        with fn.loop(0, whole, step) as n:
            _columns(fn, product, n, fn.isa.dot_vectors)
    for start in range(whole, product.n, product.lanes):
        _columns(fn, product, fn.const("i64", start), 1)
    fn.finish("noinline")
    return product.name


def _columns(fn: Function, p: Product, n: Val, vectors: int) -> None:
    rows = fn.isa.dot_rows
    whole = p.m - p.m % rows
    if whole:
        with fn.loop(0, whole, rows) as m:
            _block(fn, p, m, n, rows, vectors)
    if p.m % rows:
        _block(fn, p, fn.const("i64", whole), n, p.m % rows, vectors)


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


def _block(fn: Function, p: Product, m: Val, n: Val, rows: int, vectors: int) -> None:
    total_bytes = BITS[p.total] // 8
    places = [
        [fn.args[2].offset(((m + i) * p.n + n + v * p.lanes) * total_bytes) for v in range(vectors)]
        for i in range(rows)
    ]

    def stored() -> list[list[Val]]:
        return [[fn.load(place, p.total, p.lanes) for place in row] for row in places]

    def store(values: list[list[Val]]) -> None:
        for row, line in zip(places, values, strict=True):
            for place, value in zip(row, line, strict=True):
                fn.store(value, place)

    if p.order == "sequential" or p.total != "f32":
        sums = _Accumulators(fn, p, rows, vectors)
        sums.set(stored())
        with fn.loop(0, p.k) as k:
            sums.add_product(*_operands(fn, p, m, n, k, rows, vectors))
        store(sums.get())
        return
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
        pairs = zip(stored(), even.get(), odd.get(), strict=True)
        store([[c + (e + o) for c, e, o in zip(*row, strict=True)] for row in pairs])

    if whole:
        with fn.loop(0, whole, _CHUNK) as start:
            chunk(start, _CHUNK)
    if p.k % _CHUNK:
        chunk(fn.const("i64", whole), p.k % _CHUNK)


def _operands(
    fn: Function, p: Product, m: Val, n: Val, k: Val, rows: int, vectors: int
) -> tuple[list[Val], list[Val]]:
    """Load a column of A, one scalar a row, and a row of B, in the accumulator's kind."""
    a_bytes, b_bytes = BITS[p.a_kind] // 8, BITS[p.b_kind] // 8
    a_ptr, b_ptr = fn.args[0], fn.args[1]

    def widen(x: Val) -> Val:
        return x if x.kind == p.total else x.fext(p.total) if x.is_float else x.sext(p.total)

    b_row = b_ptr.offset((k * p.b_stride + n) * b_bytes)
    b = [
        widen(fn.load(b_row.offset(v * p.lanes * b_bytes), p.b_kind, p.lanes))
        for v in range(vectors)
    ]
    a = []
    for i in range(rows):
        at = (m + i) * p.a_strides[0] + k * p.a_strides[1]
        a.append(widen(fn.load(a_ptr.offset(at * a_bytes), p.a_kind)).splat(p.lanes))
    return a, b

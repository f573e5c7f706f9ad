"""Products of a few rows: weights are decoded in registers straight from where they lie.

A panel that few rows of A pass by is used once or twice, so that packing it takes longer than the
product. Here 16 columns of B, which are rows of the stored weight, are read 16 bytes each at a
time, turned in registers so that lanes are columns, decoded and multiplied at once. Sums are in the
`pairs` order (`asterope.formats.dot` is the definition): chains run along K, lanes are columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from asterope.formats import ELEMENTS, emit_decode
from asterope.host.microkernel import row_blocks
from asterope.host.narrow_codes import decode_word
from asterope.native import Function, Isa, Module, Val

__all__ = ["CHUNK", "RowProduct", "emit_row_product", "row_lanes"]

CHUNK = 32  # products in a pair of chains
_PIECE_BYTES = 16
_CHUNKS_AT_ONCE = 4
_LINE_BYTES = 64


def row_lanes(isa: Isa) -> int:
    """Return how many columns are computed at once."""
    return 16 if isa.has_wide_masks else 8 if isa.has_fma else 4


@dataclass(frozen=True, kw_only=True, slots=True)
class RowProduct:
    """C[m, n] += A[m, k] B[k, n], = where it is `from_zero`; C row-major, columns of B lie apart.

    B's codes are in `format`; with a `scale` format, each `group` of them along K is multiplied by
    one scale, in float32. A is float32 with strides in elements.
    """

    m: int
    n: int
    k: int
    format: str
    a_strides: tuple[int, int]
    scale: str = ""
    group: int = CHUNK
    from_zero: bool = False

    @property
    def name(self) -> str:
        """The name of the generated function."""
        scale = f"_{self.scale}_{self.group}" if self.scale else ""
        strides = "_".join(map(str, self.a_strides))
        start = "_from_zero" if self.from_zero else ""
        return f"rows_{self.format}{scale}_{self.m}x{self.n}x{self.k}_{strides}{start}"

    @property
    def chunks(self) -> int:
        """Chunks of K in one round of the inner loop."""
        return _CHUNKS_AT_ONCE if self.k % (CHUNK * _CHUNKS_AT_ONCE) == 0 else 1


def emit_row_product(module: Module, p: RowProduct) -> str:
    """Add `f(a, columns, scales, c)` for a product to the module once; return its name.

    `columns` holds the address of the first code of each column of B, `scales` that of its first
    scale.
    """
    if module.has(p.name):
        return p.name
    fn = module.function(p.name, [("ptr noalias", x) for x in ("a", "columns", "scales", "c")])
    lanes = row_lanes(fn.isa)
    most = {16: 8, 8: 3, 4: 2}[lanes]
    with fn.loop(0, p.n, lanes) as n:
        for start, stop, rows in row_blocks(p.m, most):
            with fn.loop(start, stop, rows) as m:
                _block(fn, p, m, n, rows)
    fn.finish("noinline")
    return p.name


def _block(fn: Function, p: RowProduct, m: Val, n: Val, rows: int) -> None:
    """Compute the sums of some rows with one vector of columns."""
    lanes, bits = row_lanes(fn.isa), ELEMENTS[p.format].bits
    a, columns, scales, c = fn.args
    places = [c.offset(((m + i) * p.n + n) * 4) for i in range(rows)]
    totals = [fn.slot("f32", lanes) for _ in places]
    for place, total in zip(places, totals, strict=True):
        zero = fn.const("f32", 0.0, lanes)
        fn.store(zero if p.from_zero else fn.load(place, "f32", lanes), total)
    codes = _Apart(fn, columns.offset(n * 8), lanes)
    factors = _Factors(fn, p, scales.offset(n * 8), lanes) if p.scale else None
    with fn.loop(0, p.k, p.chunks * CHUNK, rolled=True) as start:
        if factors:
            factors.load(start)
        codes.ask_for_next(start * bits >> 3, p.chunks * CHUNK * bits >> 3)
        # Written out, chunks would be scheduled into each other and their sums spilled.
        with fn.loop(0, p.chunks, rolled=True) as chunk:
            _add_chunk(fn, p, (a, m, start), chunk, codes, factors, totals)
    for place, total in zip(places, totals, strict=True):
        fn.store(fn.load(total, "f32", lanes), place)


def _add_chunk(
    fn: Function, p: RowProduct, left: tuple[Val, Val, Val], chunk: Val, codes: _Apart,
    factors: _Factors | None, totals: list[Val],
) -> None:  # fmt: skip
    """Add one chunk's even and odd chains to the totals."""
    a, m, round_start = left
    start = round_start + chunk * CHUNK
    lanes, bits = row_lanes(fn.isa), ELEMENTS[p.format].bits
    zero = fn.const("f32", 0.0, lanes)
    chains = [[zero, zero] for _ in totals]
    per_word = 32 // bits
    first = start * bits >> 3
    scales = factors.of(chunk) if factors else []
    for word_index in range(CHUNK * bits // 32):
        if word_index % 4 == 0:
            words = codes.load(first + word_index * 4)
        for i, value in enumerate(decode_word(words[word_index % 4], p.format)):
            at = word_index * per_word + i
            scaled = value * scales[at // p.group] if scales else value
            for row, pair in enumerate(chains):
                place = (m + row) * p.a_strides[0] + (start + at) * p.a_strides[1]
                one = fn.load(a.offset(place * 4), "f32").splat(lanes)
                pair[at % 2] = one.fma(scaled, pair[at % 2])
    for total, (even, odd) in zip(totals, chains, strict=True):
        fn.store(fn.load(total, "f32", lanes) + (even + odd), total)


class _Apart:
    """Rows that lie apart in memory, as many as a vector has lanes; addresses are in a table."""

    def __init__(self, fn: Function, table: Val, lanes: int) -> None:
        self.fn, self.table, self.lanes = fn, table, lanes

    def _row(self, row: int, offset: Val) -> Val:
        return self.fn.load(self.table.offset(row * 8), "ptr").offset(offset)

    def load(self, offset: Val) -> list[Val]:
        """Return the four words that begin so many bytes into each row, a vector for each."""
        fn, lanes = self.fn, self.lanes
        quarters = []
        for i in range(4):
            parts = [
                fn.load(self._row(g + i, offset), "i32", 4, align=1) for g in range(0, lanes, 4)
            ]
            while len(parts) > 1:
                pairs = zip(parts[::2], parts[1::2], strict=True)
                parts = [x.shuffle(range(2 * x.lanes), y) for x, y in pairs]
            quarters.append(parts[0])
        return _turned(quarters)

    def numbers(self, offset: Val, kind: str) -> Val:
        """Return one integer of each row, widened to a word."""
        found = self.fn.undef(kind, self.lanes)
        for row in range(self.lanes):
            found = found.with_lane(row, self.fn.load(self._row(row, offset), kind, align=1))
        return found.zext("i32")

    def ask_for_next(self, offset: Val, num_bytes: int) -> None:
        """Ask for the same bytes of the rows that are computed next."""
        for first in range(0, num_bytes, _LINE_BYTES):
            for row in range(self.lanes, 2 * self.lanes):
                self.fn.prefetch(self._row(row, offset + first))


def _turned(quarters: list[Val]) -> list[Val]:
    """Turn each 4 x 4 block of four vectors."""
    lanes = quarters[0].lanes
    groups = range(0, lanes, 4)

    def merge(x: Val, y: Val, order: tuple[int, int, int, int]) -> Val:
        return x.shuffle([g + (i if i < 4 else i - 4 + lanes) for g in groups for i in order], y)

    a, b, c, d = quarters
    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    ab, cd = [merge(a, b, o) for o in (low, high)], [merge(c, d, o) for o in (low, high)]
    first, second = (0, 1, 4, 5), (2, 3, 6, 7)
    return [merge(x, y, o) for x, y in zip(ab, cd, strict=True) for o in (first, second)]


class _Factors:
    """The scales of one round's chunks, decoded as they are needed."""

    def __init__(self, fn: Function, p: RowProduct, table: Val, lanes: int) -> None:
        self.fn, self.p, self.apart = fn, p, _Apart(fn, table, lanes)
        self.per_chunk = max(1, CHUNK // p.group)
        self._words: list[Val] = []

    def load(self, start: Val) -> None:
        """Load the scales from column `start` of K on: a word holds one of each chunk."""
        first = start.op("udiv", self.p.group)
        count = max(1, self.p.chunks * CHUNK // self.p.group)
        step = min(count, 4)
        self._words = [self.apart.numbers(first + i, f"i{8 * step}") for i in range(0, count, step)]

    def of(self, chunk: Val) -> list[Val]:
        """Return the scales of a chunk of the round, one after the other along K."""
        bits = chunk * (CHUNK * 8 // self.p.group)
        word = self._words[0]
        if len(self._words) > 1:
            word = chunk.cmp("ult", 2).where(word, self._words[1])
        word = word >> (bits & 31).zext("i32")
        fmt = ELEMENTS[self.p.scale]
        return [emit_decode((word >> 8 * i) & 0xFF, fmt) for i in range(self.per_chunk)]

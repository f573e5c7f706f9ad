"""Products of a few rows: weights are decoded in registers straight from where they lie.

A panel that few rows of A pass by is used once or twice, so that packing it takes longer than the
product. Here 16 columns of B, which are rows of the stored weight, are read 16 bytes each at a
time, turned in registers so that lanes are columns, decoded and multiplied at once. Sums are in the
`pairs` order (`asterope.formats.dot` is the definition): chains run along K, lanes are columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asterope.formats import ELEMENTS, emit_decode
from asterope.host.microkernel import row_blocks
from asterope.host.narrow_codes import decode_word
from asterope.native import Function, Isa, Module, Val

__all__ = ["CHUNK", "DEPTH_STEP", "RowProduct", "emit_row_product", "most_rows", "row_lanes"]

CHUNK = 32  # products in a pair of chains
_PIECE_BYTES = 16
_CHUNKS_AT_ONCE = 4
DEPTH_STEP = CHUNK * _CHUNKS_AT_ONCE  # of the inner loop, where it divides K
_LINE_BYTES = 64
_AHEAD_BYTES = 1 << 14
# Exponents of scales that sums may be multiplied by instead; their codes.
_TAME_SCALES = -40, 40
_TAME_CODES = _TAME_SCALES[0] + 127, _TAME_SCALES[1] + 127


def row_lanes(isa: Isa) -> int:
    """Return how many columns are computed at once."""
    return 16 if isa.has_wide_masks else 8 if isa.has_fma else 4


def _block_rows(isa: Isa) -> int:
    """Return of how many rows the sums stay in registers."""
    return 8 if row_lanes(isa) == 16 else 4


def most_rows(isa: Isa) -> int:
    """Return with how many rows decoding twice, or less, beats packing panels."""
    return 2 * _block_rows(isa) if isa.has_wide_masks and not isa.has_tiles else _block_rows(isa)


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
        return _CHUNKS_AT_ONCE if self.k % DEPTH_STEP == 0 else 1

    def ahead(self, lanes: int) -> int:
        """Return how many columns further on memory is asked for: enough to hide its latency."""
        block_bytes = lanes * self.k * ELEMENTS[self.format].bits // 8
        return lanes * min(self.n // lanes, max(1, _AHEAD_BYTES // block_bytes))

    @property
    def has_powers_of_two(self) -> bool:
        """Whether a chunk is scaled by one power of two, and A can be looked at by rows."""
        return self.scale == "e8m0" and self.group == CHUNK and self.a_strides[1] == 1


def emit_row_product(module: Module, p: RowProduct) -> str:
    """Add `f(a, columns, scales, c, live)` for a product to the module once; return its name.

    `columns` holds the address of the first code of each column of B, and of `ahead` further ones
    that need not be there; `scales` holds those of the first scales. From `live` on, a multiple of
    the inner loop's step, B is zeros that nobody reads.
    """
    if module.has(p.name):
        return p.name
    pointers = [("ptr noalias", x) for x in ("a", "columns", "scales", "c")]
    fn = module.function(p.name, [*pointers, ("i64", "live")])
    lanes = row_lanes(fn.isa)
    is_tame = _is_tame(fn, p) if p.has_powers_of_two else None
    with fn.loop(0, p.n, lanes) as n:
        for start, stop, rows in row_blocks(p.m, _block_rows(fn.isa)):
            with fn.loop(start, stop, rows) as m:
                _Block(fn, p, m, n, rows).emit(is_tame)
    fn.finish("noinline")
    return p.name


def _is_tame(fn: Function, p: RowProduct) -> Val:
    """Whether numbers of A are such that scaling sums is the same as scaling what is summed.

    It is where neither sums are subnormal or infinite: those of A's multiples of 2^least, at most
    2^most in size, times codes and scales of `_TAME_SCALES`.
    """
    fmt, live = ELEMENTS[p.format], fn.args[4]
    unit, largest = (math.frexp(x)[1] - 1 for x in (fmt.min_subnormal, fmt.max_value))
    least, most = -126 + 23 - unit - _TAME_SCALES[0], 120 - largest - _TAME_SCALES[1]
    smallest_seen, largest_seen = fn.slot("i32", 16), fn.slot("i32", 16)
    fn.store(fn.const("i32", -1, 16), smallest_seen)
    fn.store(fn.const("i32", 0, 16), largest_seen)
    with fn.loop(0, p.m) as row, fn.loop(0, live, 16) as k:
        place = row * p.a_strides[0] + k
        size = fn.load(fn.args[0].offset(place * 4), "i32", 16) & 0x7FFF_FFFF
        before = fn.load(smallest_seen, "i32", 16)
        fn.store(before.minimum("umin", size - 1), smallest_seen)  # so that zero is the largest
        fn.store(fn.load(largest_seen, "i32", 16).minimum("umax", size), largest_seen)
    is_large = fn.load(smallest_seen, "i32", 16).cmp("uge", (least + 127 << 23) - 1)
    is_small = fn.load(largest_seen, "i32", 16).cmp("ult", most + 127 << 23)
    return (is_large & is_small).all_lanes()


class _Block:
    """The sums of some rows with one vector of columns."""

    def __init__(self, fn: Function, p: RowProduct, m: Val, n: Val, rows: int) -> None:
        self.fn, self.p, self.m, self.n = fn, p, m, n
        self.lanes = lanes = row_lanes(fn.isa)
        columns, scales, c, self.live = fn.args[1:]
        self.codes = _Apart(fn, columns.offset(n * 8), lanes)
        self.factors = _Factors(fn, p, scales.offset(n * 8), lanes)
        self.places = [c.offset(((m + i) * p.n + n) * 4) for i in range(rows)]
        self.totals = [fn.slot("f32", lanes) for _ in self.places]

    def emit(self, is_tame: Val | None) -> None:
        """Add to the block of C in memory; scale sums, where that is the same, A being tame."""
        fn = self.fn
        if is_tame is None:
            self._emit(scales_sums=False)
            return
        is_done = fn.slot("i1")
        fn.store(is_tame, is_done)
        with fn.if_(is_tame):
            fn.store(self._emit(scales_sums=True), is_done)
        # Rare, so that less code counts more here than decoding once for all rows.
        with fn.if_(~fn.load(is_done, "i1")), fn.loop(0, len(self.places), rolled=True) as row:
            _Block(fn, self.p, self.m + row, self.n, 1).emit(None)

    def _emit(self, *, scales_sums: bool) -> Val:
        """Compute the block and store it, unless scaling sums is not the same: return whether."""
        fn, p = self.fn, self.p
        bits = ELEMENTS[p.format].bits
        odd_scales = fn.slot("i32", self.lanes)
        fn.store(fn.const("i32", 0, self.lanes), odd_scales)
        for place, total in zip(self.places, self.totals, strict=True):
            zero = fn.const("f32", 0.0, self.lanes)
            fn.store(zero if p.from_zero else fn.load(place, "f32", self.lanes), total)
        with fn.loop(0, self.live, p.chunks * CHUNK, rolled=True) as start:
            self.factors.load(start)
            ahead = p.ahead(self.lanes)
            self.codes.ask_for(ahead, start * bits >> 3, p.chunks * CHUNK * bits >> 3)
            # Written out, chunks would be scheduled into each other and their sums spilled.
            with fn.loop(0, p.chunks, rolled=True) as chunk:
                scales = self._scales(chunk, odd_scales if scales_sums else None)
                self._add_chunk(start + chunk * CHUNK, scales, scales_sums=scales_sums)
        is_same = fn.load(odd_scales, "i32", self.lanes).eq(0).all_lanes()
        with fn.if_(is_same):
            for place, total in zip(self.places, self.totals, strict=True):
                value = fn.load(total, "f32", self.lanes)
                # Chains of zeros add zero, which leaves all but a negative zero as it is.
                fn.store(self.live.lt(p.k).where(value + 0.0, value), place)
        return is_same

    def _scales(self, chunk: Val, odd_scales: Val | None) -> list[Val]:
        """Return the scales of a chunk; note those that are too large or small to scale sums."""
        fn, codes = self.fn, self.factors.codes(chunk)
        if odd_scales is None:
            return [emit_decode(code, ELEMENTS[self.p.scale]) for code in codes]
        least, most = _TAME_CODES
        is_odd = (codes[0] - least).cmp("ugt", most - least)
        fn.store(fn.load(odd_scales, "i32", self.lanes) | is_odd.sext("i32"), odd_scales)
        return [(codes[0] << 23).bits_as("f32")]

    def _add_chunk(self, start: Val, scales: list[Val], *, scales_sums: bool) -> None:
        """Add one chunk's even and odd chains to the totals."""
        fn, p, bits = self.fn, self.p, ELEMENTS[self.p.format].bits
        zero = fn.const("f32", 0.0, self.lanes)
        chains = [[zero, zero] for _ in self.totals]
        words: list[Val] = []
        for index in range(CHUNK * bits // 32):
            if index % 4 == 0:
                words = self.codes.load((start * bits >> 3) + index * 4)
            for i, value in enumerate(decode_word(words[index % 4], p.format)):
                at = index * 32 // bits + i
                is_plain = scales_sums or not scales
                scaled = value if is_plain else value * scales[at // p.group]
                self._add_column(start + at, scaled, chains, at % 2)
        for total, (even, odd) in zip(self.totals, chains, strict=True):
            before = fn.load(total, "f32", self.lanes)
            sum_ = even + odd
            fn.store(sum_.fma(scales[0], before) if scales_sums else before + sum_, total)

    def _add_column(self, k: Val, right: Val, chains: list[list[Val]], odd: int) -> None:
        """Multiply one column of A with one row of B."""
        down, across = self.p.a_strides
        for row, pair in enumerate(chains):
            place = (self.m + row) * down + k * across
            one = self.fn.load(self.fn.args[0].offset(place * 4), "f32").splat(self.lanes)
            pair[odd] = one.fma(right, pair[odd])


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

    def ask_for(self, ahead: int, offset: Val, num_bytes: int) -> None:
        """Ask for the same bytes of the rows that are so many further on."""
        for first in range(0, num_bytes, _LINE_BYTES):
            for row in range(ahead, ahead + self.lanes):
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
    """The codes of the scales of one round's chunks."""

    def __init__(self, fn: Function, p: RowProduct, table: Val, lanes: int) -> None:
        self.fn, self.p, self.apart = fn, p, _Apart(fn, table, lanes)
        self._words: list[Val] = []

    def load(self, start: Val) -> None:
        """Load the scales from column `start` of K on, if there are any."""
        if not self.p.scale:
            return
        first = start.op("udiv", self.p.group)
        count = max(1, self.p.chunks * CHUNK // self.p.group)
        step = min(count, 4)
        self._words = [self.apart.numbers(first + i, f"i{8 * step}") for i in range(0, count, step)]

    def codes(self, chunk: Val) -> list[Val]:
        """Return the scales of a chunk of the round as words, one after the other along K."""
        if not self._words:
            return []
        word = self._words[0]
        if len(self._words) > 1:
            word = chunk.cmp("ult", 2).where(word, self._words[1])
        bits = chunk * (CHUNK * 8 // self.p.group)
        word = word >> (bits & 31).zext("i32")
        return [(word >> 8 * i) & 0xFF for i in range(max(1, CHUNK // self.p.group))]

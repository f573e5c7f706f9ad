"""Which products have few rows and weights that may be read where they lie, and whether they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asterope.formats import ELEMENTS
from asterope.host.bounds import no_wrap, reach_of, spacing
from asterope.host.narrow_codes import WORD_FORMATS
from asterope.host.row_product import (
    CHUNK,
    DEPTH_STEP,
    RowProduct,
    emit_row_product,
    most_rows,
    row_lanes,
)
from asterope.host.values import At, Buffer, Lazy, storage_kind
from asterope.ir import Op, Type, Value, masks_of
from asterope.native import BITS, Isa, Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["FewRows", "few_rows_of", "has_few_rows"]

_SCALE_FORMATS = {"i8": "e8m0", "e4m3": "e4m3"}
_GROUPS = (16, 32)
_INFINITE = 0x7F80_0000


@dataclass(frozen=True, kw_only=True, slots=True)
class FewRows:
    """A product of few rows: the tile of its right operand's codes, and that [N, groups] of scales.

    The tile is [N, K] where it is turned on its way into the product, else [K, N]; `between` are
    the values that it becomes on the way.
    """

    op: Op
    format: str
    codes: Op
    is_turned: bool
    between: tuple[Value, ...]
    scales: Op | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """M, N and K."""
        m, n = self.op.result.type.shape
        type_ = self.codes.result.type
        depth = type_.shape[self._depth_dim]
        return m, n, depth * type_.bits // ELEMENTS[self.format].bits

    @property
    def group(self) -> int:
        """How many codes along K share a scale."""
        return self.shape[2] // self.scales.result.type.shape[1] if self.scales else CHUNK

    @property
    def scale(self) -> str:
        """The format of the scales; empty where there are none."""
        return _SCALE_FORMATS[str(self.scales.result.type.elem)] if self.scales else ""

    @property
    def _depth_dim(self) -> int:
        return 1 if self.is_turned else 0

    def depth(self, low: Lowering) -> Val | None:
        """Return how far along K the operand can be read where it lies, 0 if it cannot.

        None if it never can. What is off behind is zeros; in front all is on and rows are runs.
        """
        k = self.shape[2]
        live = _depth(low, self.codes, self._depth_dim, k)
        if self.scales is None or live is None:
            return live
        also = _depth(low, self.scales, 1, k)
        return None if also is None else live.eq(also).where(live, 0)

    def fits(self, low: Lowering, left: Buffer, live: Val) -> Val:
        """Whether codes can be read up to `live`, and nothing behind makes more than zeros."""
        fn, (m, _, k) = low.fn, self.shape
        if left.strides[1] != 1:
            return live.eq(k)
        step = DEPTH_STEP if k % DEPTH_STEP == 0 else CHUNK
        fits = fn.slot("i1")
        fn.store(live.gt(0) & (live & (step - 1)).eq(0), fits)
        with fn.if_(fn.load(fits, "i1")), fn.loop(0, m) as row, fn.loop(live, k, 16) as at:
            sizes = fn.load(left.address((row, at)), "i32", 16) & _INFINITE
            is_finite = ~sizes.eq(_INFINITE).any_lane()
            fn.store(fn.load(fits, "i1") & is_finite, fits)
        return fn.load(fits, "i1")

    def multiply(
        self, low: Lowering, left: Buffer, live: Val, target: Buffer,
        temporary: Callable[..., Buffer], *, from_zero: bool,
    ) -> None:  # fmt: skip
        """Add the product to the target, where `fits` says so."""
        m, n, k = self.shape
        product = RowProduct(
            m=m, n=n, k=k, format=self.format, a_strides=(left.strides[0], left.strides[1]),
            scale=self.scale, group=self.group, from_zero=from_zero,
        )  # fmt: skip
        name = emit_row_product(low.fn.module, product)
        ahead = product.ahead(row_lanes(low.fn.isa))
        columns = _addresses(low, self.codes, self._depth_dim, ahead, temporary)
        scales = _addresses(low, self.scales, 1, 0, temporary) if self.scales else columns
        low.fn.call(name, (left.pointer, columns, scales, target.pointer, live))


def has_few_rows(op: Op, isa: Isa) -> bool:
    """Whether a product may read its right operand where it lies, as far as the op tells."""
    return _find(op, isa) is not None


def few_rows_of(low: Lowering, op: Op) -> FewRows | None:
    """Return a product as one of few rows, None if it is not, or its operand is in a buffer."""
    found = _find(op, low.fn.isa)
    if found is None:
        return None
    tiles = [found.codes.result, *found.between]
    if found.scales is not None:
        tiles.append(found.scales.result)
    return found if all(isinstance(low.env.get(v), Lazy) for v in tiles) else None


def _find(op: Op, isa: Isa) -> FewRows | None:
    a, b = op.operands[:2]
    if len(op.result.type.shape) != 2 or op.attrs.get("order", "pairs") != "pairs":
        return None
    if op.result.type.elem != "fp32" or a.type.elem == "fp64":
        return None
    tile, between = _tile_of(b)
    if tile is None:
        return None
    turns = sum(v.op is not None and v.op.name == "transpose" for v in between)
    is_scaled = bool(op.attrs.get("b_scale"))
    elem = str(tile.result.type.elem)
    name = str(op.attrs.get("b_format", elem))
    if tile.result.type.is_float and elem != name:
        return None
    if name not in WORD_FORMATS or tile.result.type.bits != max(8, ELEMENTS[name].bits):
        return None
    scale_tile = op.operands[-1].op if is_scaled else None
    if is_scaled and not _is_tile_of_scales(scale_tile):
        return None
    found = FewRows(
        op=op, format=name, codes=tile, is_turned=turns % 2 == 1, between=between,
        scales=scale_tile,
    )  # fmt: skip
    m, n, k = found.shape
    fits = m <= most_rows(isa) and n % row_lanes(isa) == 0 and k % CHUNK == 0
    return found if fits and found.group in _GROUPS else None


def _tile_of(value: Value) -> tuple[Op | None, tuple[Value, ...]]:
    """Return the tile that is turned and widened exactly to make a value, if there is one."""
    between: list[Value] = []
    while value.op is not None and value.op.name in ("transpose", "convert"):
        source = value.op.operands[0]
        if value.op.name == "convert" and not _is_exact(source.type, value.type):
            return None, ()
        between.append(value)
        value = source
    is_tile = value.op is not None and value.op.name == "load_tile"
    if not is_tile or len(value.type.shape) != 2:
        return None, ()
    return value.op, tuple(between)


def _is_exact(source: Type, target: Type) -> bool:
    return source.is_float and target.is_float and source.bits < target.bits


def _is_tile_of_scales(op: Op | None) -> bool:
    return (
        op is not None
        and op.name == "load_tile"
        and len(op.result.type.shape) == 2
        and str(op.result.type.elem) in _SCALE_FORMATS
    )


def _depth(low: Lowering, tile: Op, depth_dim: int, k: int) -> Val | None:
    """Return how many of K's numbers a tile has on, in front; 0 if that is not known to be so."""
    shape = tile.result.type.shape
    size, depths = shape[depth_dim], tile.operands[1 + depth_dim]
    there, live = low.fn.const("i1", 1), low.fn.const("i64", size)
    if size > 1:
        rises = no_wrap(low, depths, size)
        if rises is None or spacing(low, depths) != 1:
            return None
        there = rises
    for dim, mask in masks_of(tile).items():
        reach = reach_of(low, mask)
        if reach is None:
            return None
        if dim != depth_dim or not _is_zero_where_off(tile):
            there = there & reach.full.ge(shape[dim])
            continue
        live = reach.full.minimum("smax", 0).minimum("smin", size)
        there = there & reach.edge.minimum("smax", 0).minimum("smin", size).eq(live)
    return there.where(live * (k // size), 0)


def _is_zero_where_off(tile: Op) -> bool:
    if not tile.attrs.get("other"):
        return True
    other = tile.operands[-1].op
    return other is not None and other.name == "const" and other.attrs["value"] == 0


def _addresses(
    low: Lowering, tile: Op, depth_dim: int, ahead: int, temporary: Callable[..., Buffer]
) -> Val:
    """Write a table of where the columns of B begin, and so many that are read after them.

    A loop that moves the tile's pointer reads on in the same columns, else those beside are next.
    """
    fn, lanes = low.fn, row_lanes(low.fn.isa)
    type_ = tile.result.type
    columns = type_.shape[1 - depth_dim]
    size = BITS[storage_kind(type_)] // 8
    table = temporary(Type("i64", (columns + ahead,))).pointer
    with low.scope():
        depth = low.evaluate(tile.operands[1 + depth_dim], At((fn.const("i64", 0),)))
        start = low.scalar(tile.operands[0]).offset(depth.val.sext("i64") * size)
        base = fn.line(f"ptrtoint {start.text} to i64", "i64")
    with fn.loop(0, columns, lanes) as n, low.scope():
        offsets = low.evaluate(tile.operands[2 - depth_dim], At((n,), 0, lanes)).vector(lanes)
        fn.store(offsets.sext("i64") * size + base, table.offset(n * 8))
    step = low.steps.get(tile.operands[0])
    if step is None:
        last = table.offset((columns - 2) * 8)
        step = (fn.load(last.offset(8), "i64") - fn.load(last, "i64")) * columns
    with fn.loop(0, ahead, lanes) as n:
        further = fn.load(table.offset(n * 8), "i64", lanes) + step
        fn.store(further, table.offset((n + columns) * 8))
    return table

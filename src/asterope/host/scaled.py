"""Matrix products of block-scaled operands: codes times their scales, in float32, multiplied."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asterope.formats import ELEMENTS, ElementFormat, emit_decode
from asterope.host.few_rows import few_rows_of
from asterope.host.loops import reads
from asterope.host.matmul import each_matrix, multiply, start_of_sum
from asterope.host.tile_choice import is_zero, panels_of
from asterope.host.values import Buffer, register_kind
from asterope.ir import Op, Type, Value
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["dot_scaled"]

_MAX_LANES = 16


def dot_scaled(low: Lowering, op: Op) -> None:
    """Translate acc + (a scaled by block) (b scaled by block)."""
    a, b, acc, *scales = op.operands
    a_codes = low.materialise(a)
    if a_codes.strides[-1] != 1:
        a_codes = low.materialise(a, row_major=True)
    few = few_rows_of(low, op)
    live = few.depth(low) if few else None
    if few is None or live is None:
        low.env[op.result] = _multiply_decoded(low, op, a_codes)
        return
    target = start_of_sum(low, op, acc, {a_codes.memory, *reads(low, b)})
    with low.temporaries() as temporary:
        side = _Side(low, op, "a", a)
        if side.is_scaled:
            side.factors = _factors(low, scales[0], temporary)
        left = a_codes
        if side.is_scaled or side.is_code:
            left = temporary(Type("fp32", (few.shape[0], few.shape[2])))
            _decode_rows(low, side, a_codes, left)
        with low.fn.if_else(few.fits(low, left, live)) as otherwise:
            few.multiply(low, left, live, target, temporary, from_zero=is_zero(low, acc))
            otherwise()
            with low.inner():
                _multiply_decoded(low, op, a_codes, target)
    low.env[op.result] = target


def _multiply_decoded(
    low: Lowering, op: Op, a_codes: Buffer, target: Buffer | None = None
) -> Buffer:
    """Decode both operands and multiply, adding to the target; return it."""
    a, b, acc, *scales = op.operands
    b_codes = low.materialise(b)
    if 1 not in b_codes.strides[-2:]:
        b_codes = low.materialise(b, row_major=True)
    with low.temporaries() as temporary, panels_of(low, op):
        sides = [_Side(low, op, name, value) for name, value in (("a", a), ("b", b))]
        scaled = [side for side in sides if side.is_scaled]
        factors = [_factors(low, scale, temporary) for scale in scales]
        depth = a.type.shape[-1] * (2 if sides[0].packed else 1)
        left = temporary(Type("fp32", (a.type.shape[-2], depth)))
        right_shape = (depth, b.type.shape[-1])
        turns = b_codes.strides[-1] != 1
        right = temporary(Type("fp32", right_shape[::-1] if turns else right_shape))
        target = target or start_of_sum(low, op, acc, {a_codes.memory, b_codes.memory})
        with each_matrix(low, [a_codes, b_codes, target, *factors]) as (x, y, total, *found):
            for side, its_factors in zip(scaled, found, strict=True):
                side.factors = its_factors
            _decode_rows(low, sides[0], x, left)
            if turns:
                _decode_rows(low, sides[1], _turned(y), right)
            else:
                _decode_columns(low, sides[1], y, right)
            other = _turned(right) if turns else right
            multiply(low, op, left, other, total)
    return target


def _turned(buffer: Buffer) -> Buffer:
    """Look at a matrix with its dimensions exchanged."""
    (rows, columns), (down, across) = buffer.type.shape, buffer.strides
    return Buffer(
        buffer.memory, buffer.pointer, buffer.type.with_shape((columns, rows)), (across, down)
    )


def _factors(low: Lowering, scale: Value, temporary: Callable[[Type], Buffer]) -> Buffer:
    """Decode the scales of one operand."""
    factors = temporary(scale.type.with_elem("fp32"))
    with low.nest(scale.type.shape) as at:
        raw = low.evaluate(scale, at).vector(at.lanes)
        factor = raw if raw.is_float else emit_decode(raw, ELEMENTS["e8m0"])
        low.fn.store(factor, factors.address(at.index))
    return factors


class _Side:
    """One scaled operand: how its codes decode and what its blocks are multiplied by."""

    def __init__(self, low: Lowering, op: Op, side: str, value: Value) -> None:
        self.fn = low.fn
        self.is_scaled = bool(op.attrs.get(f"{side}_scale"))
        self.format_name = str(op.attrs[f"{side}_format"])
        self.packed = self.format_name == "e2m1"
        self.is_code = value.type.is_int
        self.factors: Buffer | None = None

    @property
    def format(self) -> ElementFormat:
        """The element format of the codes."""
        return ELEMENTS[self.format_name]

    def group(self, depth: int) -> int:
        """Return how many elements along K share a scale."""
        return depth // self.factors.type.shape[1] if self.factors is not None else depth

    def factor(self, row: Val, group: Val) -> Val | None:
        """Return the scale of one row and group."""
        if self.factors is None:
            return None
        return self.fn.load(self.factors.address((row, group)), "f32")

    def factor_column(self, start: Val, group: Val, lanes: int) -> Val | None:
        """Return the scales of several rows in one group."""
        if self.factors is None:
            return None
        steps = self.fn.iota("i64", lanes) * (self.factors.strides[0] * 4)
        everywhere = self.fn.const("i1", 1, lanes)
        addresses = self.factors.address((start, group)).offset(steps)
        return self.fn.gather(addresses, everywhere, self.fn.undef("f32", lanes))

    def halves(self, raw: Val) -> list[Val]:
        """Decode loaded elements: one vector, or the even and the odd elements of packed bytes."""
        if not self.is_code:
            return [raw]
        if not self.packed:
            return [emit_decode(raw, self.format)]
        wide = raw.zext("i32")
        return [emit_decode(x, self.format) for x in (wide & 15, wide >> 4)]


def _decode_rows(low: Lowering, side: _Side, codes: Buffer, target: Buffer) -> None:
    """Decode [R, K] with neighbours along K, each group times its scale."""
    fn = low.fn
    rows, depth = target.type.shape
    per_code = 2 if side.packed else 1
    group = side.group(depth)
    lanes = _lanes(group // per_code)
    with fn.loop(0, rows) as r, fn.loop(0, depth // group) as g:
        factor = side.factor(r, g)
        with fn.loop(0, group, lanes * per_code) as k:
            start = g * group + k
            at = start >> 1 if per_code == 2 else start
            parts = side.halves(_load(codes, (r, at), lanes))
            value = parts[0]
            if per_code == 2:
                value = value.shuffle([i // 2 + i % 2 * lanes for i in range(2 * lanes)], parts[1])
            fn.store(value * factor if factor else value, target.address((r, start)))


def _decode_columns(low: Lowering, side: _Side, codes: Buffer, target: Buffer) -> None:
    """Decode [K, N] with neighbours along N, each group times its scales."""
    fn = low.fn
    depth, columns = target.type.shape
    per_code = 2 if side.packed else 1
    group = side.group(depth)
    lanes = _lanes(columns)
    with fn.loop(0, columns, lanes) as n, fn.loop(0, depth // group) as g:
        factor = side.factor_column(n, g, lanes)
        with fn.loop(0, group // per_code) as k:
            row = g * (group // per_code) + k
            for i, part in enumerate(side.halves(_load(codes, (row, n), lanes))):
                value = part * factor if factor else part
                fn.store(value, target.address((row * per_code + i, n)))


def _lanes(size: int) -> int:
    """Return how many elements make a chunk: the largest power of two that divides, up to 16."""
    return min(_MAX_LANES, size & -size)


def _load(buffer: Buffer, index: tuple[Val, ...], lanes: int) -> Val:
    return buffer.pointer.fn.load(buffer.address(index), register_kind(buffer.type), lanes)

"""Matrix products: operands into float32 panels, then a micro-kernel in the stated order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asterope.errors import UnsupportedError
from asterope.formats import ELEMENTS, ElementFormat, emit_decode
from asterope.host.layout import is_row_major, transpose_into
from asterope.host.loops import reads, reads_elsewhere
from asterope.host.microkernel import Product, emit_fma_product
from asterope.host.tile_product import emit_tile_product, fits_tiles, pack_bytes
from asterope.host.values import Buffer, Lazy, Memory, register_kind
from asterope.ir import Op, Type, Value
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["dot", "dot_scaled"]


def dot(low: Lowering, op: Op) -> None:
    """Translate acc + a b."""
    a, b, acc = op.operands
    left, right = low.materialise(a), low.materialise(b)
    with low.temporaries() as temporary:
        busy = {left.memory, right.memory}
        if right.strides[1] != 1 and right.type.shape[1] > 1:
            turned = temporary(right.type)
            transpose_into(low, right, turned)
            right = turned
        target = _accumulator(low, op, acc, busy)
        _multiply(low, op, left, right, target)
    low.env[op.result] = target


# Formats whose values are exact in bf16, and so are most of their products with a scale.
_BF16_EXACT = ("bf16", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m3", "e3m2", "e2m1")


def _suits_bf16(op: Op) -> bool:
    formats = [
        str(op.attrs.get(f"{side}_format", v.type.elem))
        for side, v in zip(("a", "b"), op.operands, strict=False)
    ]
    return all(f in _BF16_EXACT for f in formats)


def _multiply(low: Lowering, op: Op, left: Buffer, right: Buffer, target: Buffer) -> None:
    in_f32 = {left.kind, right.kind, target.kind} == {"f32"}
    product = Product(
        m=left.type.shape[0], n=right.type.shape[1], k=left.type.shape[1],
        order=str(op.attrs.get("order", "pairs")),
        a_kind=left.kind, b_kind=right.kind, total=target.kind,
        a_strides=(left.strides[0], left.strides[1]), b_stride=right.strides[0],
    )  # fmt: skip
    operands = (left.pointer, right.pointer, target.pointer)
    tiled = low.fn.isa.has_tiles and product.order == "pairs" and in_f32 and fits_tiles(product)
    if not (tiled and _suits_bf16(op)):
        low.fn.call(emit_fma_product(low.fn.module, product), operands)
        return
    with low.temporaries() as temporary:
        packed = temporary(Type("i8", (pack_bytes(product),)))
        name = emit_tile_product(low.fn.module, product)
        low.fn.call(name, (*operands, packed.pointer))


def _accumulator(low: Lowering, op: Op, acc: Value, busy: set[Memory]) -> Buffer:
    """Return a buffer that holds the accumulator and may be overwritten."""
    state = low.env[acc]
    if isinstance(state, Buffer):
        if is_row_major(state) and low.is_free(state.memory) and state.memory not in busy:
            return state
    elif isinstance(state, Lazy):
        reused = _reusable(low, acc, busy)
        if reused is not None:
            low.fill(reused, acc)
            return reused
    target = low.new_buffer(op.result.type)
    low.fill(target, acc)
    return target


def _reusable(low: Lowering, acc: Value, busy: set[Memory]) -> Buffer | None:
    """Find a buffer that computing `acc` reads element by element and nobody reads again."""
    for value, state in low.env.items():
        if (
            isinstance(state, Buffer)
            and state.type == acc.type
            and is_row_major(state)
            and state.memory in reads(low, acc)
            and state.memory not in busy
            and low.is_free(state.memory)
            and not reads_elsewhere(low, acc, state.memory)
            and value is not acc
        ):
            return state
    return None


# -- scaled operands ------------------------------------------------------------------------------
def dot_scaled(low: Lowering, op: Op) -> None:
    """Translate acc + (a scaled by block) (b scaled by block)."""
    a, b, acc, *scales = op.operands
    a_scale = scales.pop(0) if op.attrs.get("a_scale") else None
    b_scale = scales.pop(0) if op.attrs.get("b_scale") else None
    depth = a.type.shape[1] * (2 if op.attrs["a_format"] == "e2m1" else 1)
    a_codes, b_codes = low.materialise(a), low.materialise(b)
    if a_codes.strides[1] != 1:
        a_codes = low.materialise(a, row_major=True)
    if 1 not in b_codes.strides:
        b_codes = low.materialise(b, row_major=True)
    with low.temporaries() as temporary:
        left = temporary(Type("fp32", (a.type.shape[0], depth)))
        right = temporary(Type("fp32", (depth, b.type.shape[1])))
        _decode_rows(low, _Side(low, op, "a", a, a_scale, temporary), a_codes, left)
        side = _Side(low, op, "b", b, b_scale, temporary)
        if b_codes.strides[1] == 1:
            _decode_columns(low, side, b_codes, right)
        else:
            rows = temporary(Type("fp32", (b.type.shape[1], depth)))
            _decode_rows(low, side, _turned(b_codes), rows)
            transpose_into(low, _turned(rows), right)
        target = _accumulator(low, op, acc, {a_codes.memory, b_codes.memory})
        _multiply(low, op, left, right, target)
    low.env[op.result] = target


def _turned(buffer: Buffer) -> Buffer:
    """Look at a matrix with its dimensions exchanged."""
    (rows, columns), (down, across) = buffer.type.shape, buffer.strides
    return Buffer(
        buffer.memory, buffer.pointer, buffer.type.with_shape((columns, rows)), (across, down)
    )


class _Side:
    """One scaled operand: how its codes decode and what its blocks are multiplied by."""

    def __init__(
        self,
        low: Lowering,
        op: Op,
        side: str,
        value: Value,
        scale: Value | None,
        temporary: Callable[[Type], Buffer],
    ) -> None:
        self.low, self.loc = low, op.loc
        self.format_name = str(op.attrs[f"{side}_format"])
        self.packed = self.format_name == "e2m1"
        self.is_code = value.type.is_int
        self.scale = scale
        self._decoded: Buffer | None = None
        if scale is not None:
            self._decoded = temporary(scale.type.with_elem("fp32"))
            with low.nest(scale.type.shape) as at:
                raw = low.evaluate(scale, at).vector(at.lanes)
                factor = raw if raw.is_float else emit_decode(raw, ELEMENTS["e8m0"])
                low.fn.store(factor, self._decoded.address(at.index))

    @property
    def format(self) -> ElementFormat:
        """The element format of the codes."""
        return ELEMENTS[self.format_name]

    def group(self, depth: int) -> int:
        """Return how many elements along K share a scale."""
        return depth // self.scale.type.shape[1] if self.scale is not None else depth

    def factor(self, row: Val, group: Val) -> Val | None:
        """Return the scale of one row and group."""
        if self._decoded is None:
            return None
        return self.low.fn.load(self._decoded.address((row, group)), "f32")

    def factors(self, start: Val, group: Val, lanes: int) -> Val | None:
        """Return the scales of several rows in one group."""
        if self._decoded is None:
            return None
        fn, buffer = self.low.fn, self._decoded
        steps = fn.iota("i64", lanes) * (buffer.strides[0] * 4)
        everywhere = fn.const("i1", 1, lanes)
        addresses = buffer.address((start, group)).offset(steps)
        return fn.gather(addresses, everywhere, fn.undef("f32", lanes))

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
    lanes = min(16, group // per_code)
    if lanes == 0 or group % (lanes * per_code) or lanes & (lanes - 1):
        raise UnsupportedError(f"scale groups of {group} are not supported", where=side.loc)
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
    lanes = min(16, columns & -columns)
    with fn.loop(0, columns, lanes) as n, fn.loop(0, depth // group) as g:
        factor = side.factors(n, g, lanes)
        with fn.loop(0, group // per_code) as k:
            row = g * (group // per_code) + k
            for i, part in enumerate(side.halves(_load(codes, (row, n), lanes))):
                value = part * factor if factor else part
                fn.store(value, target.address((row * per_code + i, n)))


def _load(buffer: Buffer, index: tuple[Val, ...], lanes: int) -> Val:
    return buffer.pointer.fn.load(buffer.address(index), register_kind(buffer.type), lanes)

"""The AMX instructions that matrix products use, or functions in their place that do the same.

Source: Intel 64 and IA-32 Software Developer's Manual, volume 2, TDPBF16PS: for each row and
column, the products of even and of odd elements are summed in two chains of fused multiply-adds
from zero, and their sum is added to the accumulator. Subnormal operands and results are zero.
"""

from __future__ import annotations

from asterope.native import Function, Module, Val

__all__ = ["TileRegisters", "flushed", "half_of_pair"]

_NUM_TILES, _ROWS, _ROW_BYTES = 8, 16, 64
_TILE_BYTES = _ROWS * _ROW_BYTES
_MEMORY = "amx_tiles"


class TileRegisters:
    """Eight registers of 16 rows of 64 bytes, all in full use or with fewer rows in A and C."""

    def __init__(self, fn: Function, rows: int) -> None:
        self.fn = fn
        self.rows = rows
        self._emulate = fn.isa.emulates_products
        if self._emulate:
            _define_emulation(fn.module)

    def configure(self, area: Val) -> None:
        """Set the shapes, by a table of 64 bytes written to `area`.

        Tiles 0 to 3 accumulate, 4 and 5 hold A, 6 and 7 hold B, which always has 16 rows.
        """
        if self._emulate:
            return
        fn = self.fn
        table = bytearray(64)
        table[0] = 1  # palette
        for tile in range(_NUM_TILES):
            table[16 + 2 * tile] = _ROW_BYTES
            table[48 + tile] = _ROWS if tile >= 6 else self.rows
        for i in range(8):
            word = int.from_bytes(table[8 * i : 8 * i + 8], "little")
            fn.store(fn.const("i64", word), area.offset(8 * i))
        fn.call("llvm.x86.ldtilecfg", (area,))

    def release(self) -> None:
        """Give the registers back."""
        if not self._emulate:
            self.fn.call("llvm.x86.tilerelease", ())

    def _call(self, name: str, tiles: tuple[int, ...], *operands: Val) -> None:
        fn = self.fn
        numbers = [Val(fn, str(t), "i8") for t in tiles]
        full = f"amx_{name}" if self._emulate else f"llvm.x86.{name}"
        if self._emulate:
            operands = (*operands, fn.const("i64", self.rows))
        elif not operands:
            fn.module.declare(full, "void", ["i8 immarg"] * len(tiles))
        fn.call(full, (*numbers, *operands))

    def load(self, tile: int, pointer: Val, stride: int) -> None:
        """Read a tile whose rows are `stride` bytes apart."""
        self._call("tileloadd64", (tile,), pointer, self.fn.const("i64", stride))

    def clear(self, tile: int) -> None:
        """Set a tile to zero."""
        self._call("tilezero", (tile,))

    def store(self, tile: int, pointer: Val, stride: int) -> None:
        """Write a tile."""
        self._call("tilestored64", (tile,), pointer, self.fn.const("i64", stride))

    def multiply(self, c: int, a: int, b: int) -> None:
        """Add the product of two tiles of bf16 to a tile of fp32."""
        self._call("tdpbf16ps", (c, a, b))


def _define_emulation(module: Module) -> None:
    """Add functions that do what the instructions do, on registers in memory."""
    if module.has("amx_tdpbf16ps"):
        return
    module.scratch(_MEMORY, _NUM_TILES * _TILE_BYTES)
    for name, is_load in (("amx_tileloadd64", True), ("amx_tilestored64", False)):
        fn = module.function(name, [("i8", "t"), ("ptr", "p"), ("i64", "stride"), ("i64", "rows")])
        tile, pointer, stride, rows = fn.args
        count = tile.cmp("uge", 6).where(fn.const("i64", _ROWS), rows)
        with fn.loop(0, count) as row:
            register = _register(fn, tile).offset(row * _ROW_BYTES)
            memory = pointer.offset(row * stride)
            source, target = (memory, register) if is_load else (register, memory)
            fn.store(fn.load(source, "i32", 16, align=1), target, align=1)
        fn.finish("noinline")
    fn = module.function("amx_tilezero", [("i8", "t"), ("i64", "rows")])
    with fn.loop(0, fn.args[1]) as row:
        fn.store(fn.const("i32", 0, 16), _register(fn, fn.args[0]).offset(row * _ROW_BYTES))
    fn.finish("noinline")
    fn = module.function("amx_tdpbf16ps", [("i8", "c"), ("i8", "a"), ("i8", "b"), ("i64", "rows")])
    c_tile, a_tile, b_tile, rows = fn.args
    with fn.loop(0, rows) as m:
        c_row = _register(fn, c_tile).offset(m * _ROW_BYTES)
        even, odd = fn.slot("f32", 16), fn.slot("f32", 16)
        for slot in (even, odd):
            fn.store(fn.const("f32", 0.0, 16), slot)
        with fn.loop(0, 16) as k:
            pair = fn.load(_register(fn, a_tile).offset(m * _ROW_BYTES + k * 4), "i32")
            column = fn.load(_register(fn, b_tile).offset(k * _ROW_BYTES), "i32", 16)
            for slot, is_odd in ((even, False), (odd, True)):
                a, b = (half_of_pair(x, is_odd=is_odd) for x in (pair, column))
                total = a.splat(16).fma(b, fn.load(slot, "f32", 16))
                fn.store(flushed(total), slot)
        total = flushed(fn.load(even, "f32", 16) + fn.load(odd, "f32", 16))
        fn.store(flushed(flushed(fn.load(c_row, "f32", 16)) + total), c_row)
    fn.finish("noinline")


def _register(fn: Function, tile: Val) -> Val:
    return Val(fn, f"@{_MEMORY}", "ptr").offset(tile.zext("i64") * _TILE_BYTES)


def half_of_pair(pair: Val, *, is_odd: bool) -> Val:
    """Widen one of the two bf16 of an i32 to fp32."""
    return flushed((pair & -65536 if is_odd else pair << 16).bits_as("f32"))


def flushed(x: Val) -> Val:
    """Take subnormals for zero."""
    bits = x.bits_as("i32")
    is_small = (bits & 0x7F80_0000).eq(0)
    return is_small.where(bits & -(1 << 31), bits).bits_as("f32")

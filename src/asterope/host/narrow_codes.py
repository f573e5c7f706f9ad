"""Codes of narrow formats to float32 in registers: each lane holds a word of neighbouring codes."""

from __future__ import annotations

import numpy as np

from asterope.formats import ELEMENTS, ElementFormat, emit_decode
from asterope.native import Function, Val

__all__ = ["WORD_FORMATS", "decode_word"]

WORD_FORMATS = ("e2m1", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "bf16", "fp16")
_WORD_BITS = 32


def decode_word(word: Val, name: str) -> list[Val]:
    """Return vectors of the first, second, ... code of each lane's word, lowest bits first.

    Shapes: word [lanes] of i32; as many vectors [lanes] of float32 as codes fit into 32 bits.
    """
    fmt, isa = ELEMENTS[name], word.fn.isa
    if fmt.bits == 4 and (isa.has_wide_masks or isa.has_mask_moves):
        return _by_permutation(word, fmt)
    if fmt.bits == 8 and isa.has_byte_tables and fmt.specials != "fnuz" and word.lanes == 16:
        return _by_byte_tables(word, fmt)
    if name == "bf16":
        return [(word << 16).bits_as("f32"), (word & -65536).bits_as("f32")]
    codes = [(word >> at) & (fmt.num_codes - 1) for at in range(0, _WORD_BITS, fmt.bits)]
    if isa.has_half and name in ("fp16", "e5m2"):  # e5m2 is the upper half of fp16
        return [(code << (16 - fmt.bits)).zext("i16").bits_as("f16").fext("f32") for code in codes]
    return [emit_decode(code, fmt) for code in codes]


def _by_permutation(word: Val, fmt: ElementFormat) -> list[Val]:
    """Look 4-bit codes up in one register; the instruction does not look at upper bits."""
    fn, lanes = word.fn, word.lanes
    shifted = [word >> at if at else word for at in range(0, _WORD_BITS, fmt.bits)]
    if fn.isa.has_wide_masks and lanes == 16:
        table = _numbers(fn, fmt, 16)
        return [fn.call("llvm.x86.avx512.permvar.sf.512", (table, x), "f32", 16) for x in shifted]
    sizes, found = _numbers(fn, fmt, 8), []
    for at, x in zip(range(0, _WORD_BITS, fmt.bits), shifted, strict=True):
        size = fn.call("llvm.x86.avx2.permps", (sizes, x), "f32", 8)
        sign = (word << (28 - at) if at < 28 else word) & -(1 << 31)
        found.append((size.bits_as("i32") | sign).bits_as("f32"))
    return found


def _numbers(fn: Function, fmt: ElementFormat, count: int) -> Val:
    items = ", ".join(f"float {fmt.value(code):.6e}" for code in range(count))
    return Val(fn, f"<{items}>", "f32", count)


def _by_byte_tables(word: Val, fmt: ElementFormat) -> list[Val]:
    """Look the upper and lower bytes of bf16, in which 8-bit floats are exact, up by magnitude."""
    fn = word.fn
    codes = fn.line(f"bitcast {word.text} to <64 x i8>", "i8", 64)
    numbers = [_bf16(fmt.value(code)) for code in range(fmt.sign_code)]
    upper, lower = (_look_up(codes, [n >> at & 0xFF for n in numbers]) for at in (8, 0))
    upper = upper | (codes & -128)
    high, low = (fn.line(f"bitcast {x.text} to <32 x i16>", "i16", 32) for x in (upper, lower))
    even = (high << 8) | (low & 0x00FF)
    odd = (high & -256) | (low >> 8)
    first, second = (fn.line(f"bitcast {x.text} to <16 x i32>", "i32", 16) for x in (even, odd))
    return [x.bits_as("f32") for x in (first << 16, second << 16, first & -65536, second & -65536)]


def _look_up(codes: Val, table: list[int]) -> Val:
    """Look bytes up in a table of 128 by their lower seven bits."""
    fn = codes.fn
    halves = []
    for half in (table[:64], table[64:]):
        items = ", ".join(f"i8 {x - 256 if x > 127 else x}" for x in half)
        halves.append(Val(fn, f"<{items}>", "i8", 64))
    return fn.call("llvm.x86.avx512.vpermi2var.qi.512", (halves[0], codes, halves[1]), "i8", 64)


def _bf16(number: float) -> int:
    """Return the code of a number that is exact in bf16, or infinite, or not a number."""
    bits = int(np.float32(number).view(np.uint32))
    assert not bits & 0xFFFF, "exact in bf16"
    return bits >> 16

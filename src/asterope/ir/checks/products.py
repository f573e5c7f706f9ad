"""Checks of matrix products."""

from __future__ import annotations

from asterope.ir.checks.common import count, require, types_of
from asterope.ir.program import Op
from asterope.ir.types import Type

__all__ = ["DOT_FORMATS", "dot", "dot_scaled"]

DOT_FORMATS = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "bf16", "fp16")


def _matrices(a: Type, b: Type) -> None:
    """Check that two blocks are matrices, or batches of as many."""
    rank = len(a.shape)
    require(rank == len(b.shape) and rank in (2, 3), f"multiplies {a} and {b}, not matrices")
    require(a.shape[:-2] == b.shape[:-2], f"{a} and {b} are not batches of as many matrices")


def dot(op: Op) -> None:
    """acc[M,N] + a[M,K] b[K,N], in a stated order; all may have a leading batch dimension."""
    count(op, 3)
    a, b, acc = types_of(op)
    _matrices(a, b)
    require(a.shape[-1] == b.shape[-2], f"{a} and {b} do not share K")
    require(acc.shape == (*a.shape[:-1], b.shape[-1]), f"accumulator {acc} is not [M,N]")
    require(op.result.type == acc, f"gives {op.result.type}, not {acc}")
    integers = a.elem == b.elem == "i8" and acc.elem == "i32"
    floats = a.is_float and b.is_float and acc.elem in ("fp32", "fp64")
    require(integers or floats, f"cannot multiply {a} and {b} into {acc}")
    require(op.attrs.get("order") in ("sequential", "pairs"), "has no accumulation `order`")


def dot_scaled(op: Op) -> None:
    """Acc + (a scaled by block) (b scaled by block); e2m1 is packed two a byte along K.

    All may have a leading batch dimension. Scales are [M, K / group] and [N, K / group].
    """
    scales = [bool(op.attrs.get(f"{side}_scale")) for side in ("a", "b")]
    count(op, 3 + sum(scales))
    a, b, acc = types_of(op)[:3]
    formats = [op.attrs.get(f"{side}_format") for side in ("a", "b")]
    require(all(f in DOT_FORMATS for f in formats), f"has no formats {formats}")
    _matrices(a, b)
    for t, fmt in zip((a, b), formats, strict=True):
        codes = ("i8",) if fmt in ("e2m1", "e2m3", "e3m2") else ("i8", fmt)
        require(t.elem in (codes if fmt not in ("bf16", "fp16") else (fmt,)), f"{t} is no {fmt}")
    pack = [2 if f == "e2m1" else 1 for f in formats]
    depth = a.shape[-1] * pack[0]
    require(depth == b.shape[-2] * pack[1], f"{a} and {b} do not share K")
    total = Type("fp32", (*a.shape[:-1], b.shape[-1]))
    require(acc == total, f"accumulator {acc} is not fp32[M,N]")
    require(op.result.type == acc, f"gives {op.result.type}, not {acc}")
    rest = types_of(op)[3:]
    rows = [n for n, has in zip((a.shape[-2], b.shape[-1]), scales, strict=True) if has]
    for scale, size in zip(rest, rows, strict=True):
        _scale(scale, (*a.shape[:-2], size), depth, max(pack))


def _scale(scale: Type, rows: tuple[int, ...], depth: int, pack: int) -> None:
    fits = scale.shape[:-1] == rows and depth % scale.shape[-1] == 0
    require(fits, f"scale {scale} does not fit {rows[-1]} rows of K = {depth}")
    whole = depth // scale.shape[-1] % pack == 0
    require(whole, f"scale {scale} splits a byte that holds two elements")
    require(scale.elem in ("i8", "e4m3"), f"scale {scale} is neither e8m0 (i8) nor e4m3")

"""What ops on whole blocks mean: shapes, permutations, matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.formats import DotRule, dot, reference_decode, reference_unpack
from asterope.ir.interpreter.elementwise import dtype_of, fma, narrow
from asterope.ir.program import Op

__all__ = ["BLOCKS"]

Array = npt.NDArray[Any]


def _const(op: Op) -> Array:
    type_ = op.result.type
    number = op.attrs["value"]
    if type_.is_float:
        one = narrow(np.array(number, np.float64), type_)
    elif type_.elem == "i1":
        one = np.array(bool(number))
    else:
        bits = type_.bits
        one = np.array(int(number) & ((1 << bits) - 1), f"u{bits // 8}").view(dtype_of(type_))
    return np.broadcast_to(one, type_.shape)


def _iota(op: Op) -> Array:
    start = op.attrs["start"]
    return np.arange(start, start + op.result.type.shape[0], dtype=np.int32)


def _split(op: Op, a: Array) -> tuple[Array, Array]:
    return a[..., 0], a[..., 1]


def _exchange(op: Op, a: Array) -> Array:
    axis = op.attrs["axis"]
    return np.asarray(np.take(a, np.arange(a.shape[axis]) ^ op.attrs["mask"], axis))


def _gather(op: Op, a: Array, index: Array) -> Array:
    axis = op.attrs["axis"]
    bits = index if index.dtype == np.bool_ else index.view(f"u{index.dtype.itemsize}")
    inside = np.minimum(bits.astype(np.uint64), np.uint64(a.shape[axis] - 1))
    return np.take_along_axis(a, inside.astype(np.int64), axis)


def _histogram(op: Op, a: Array, *mask: Array) -> Array:
    (bins,) = op.result.type.shape
    values = (a.astype(np.int8) if a.dtype == np.bool_ else a).astype(np.int64)
    counted = values[mask[0]] if mask else values
    inside = counted[(counted >= 0) & (counted < bins)]
    return np.bincount(inside, minlength=bins).astype(np.int32)


def _dot(op: Op, a: Array, b: Array, acc: Array) -> Array:
    if a.ndim > 2:
        return np.stack([_dot(op, *matrices) for matrices in zip(a, b, acc, strict=True)])
    if acc.dtype == np.int32:
        return (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32) + acc
    if acc.dtype == np.float64:
        wide_a, wide_b, result = a.astype(np.float64), b.astype(np.float64), acc
        for k in range(a.shape[1]):
            result = fma(*np.broadcast_arrays(wide_a[:, k : k + 1], wide_b[k : k + 1], result))
        return result
    return dot(
        a.astype(np.float32), b.astype(np.float32), acc, rule=DotRule(order=op.attrs["order"])
    )


def _decoded(op: Op, side: str, x: Array, scale: Array | None) -> Array:
    """Return a scaled operand's values as fp32, K along the last axis."""
    fmt = str(op.attrs[f"{side}_format"])
    if fmt == "e2m1":
        x = reference_unpack(np.ascontiguousarray(x).view(np.uint8), "e2m1", x.shape[-1] * 2)
    values = (
        reference_decode(x.view(np.uint8), fmt) if x.dtype.itemsize == 1 else x.astype(np.float32)
    )
    if scale is None:
        return values
    factors = reference_decode(scale.view(np.uint8), "e8m0" if scale.dtype == np.int8 else "e4m3")
    return values * np.repeat(factors, values.shape[-1] // scale.shape[-1], axis=-1)


def _dot_scaled(op: Op, a: Array, b: Array, acc: Array, *scales: Array) -> Array:
    if a.ndim > 2:
        parts = zip(a, b, acc, *scales, strict=True)
        return np.stack([_dot_scaled(op, *matrices) for matrices in parts])
    rest = list(scales)
    a_scale = rest.pop(0) if op.attrs.get("a_scale") else None
    b_scale = rest.pop(0) if op.attrs.get("b_scale") else None
    left = _decoded(op, "a", a, a_scale)
    right = _decoded(op, "b", np.ascontiguousarray(b.T), b_scale).T
    return dot(left, right, acc, rule=DotRule(order="pairs"))


BLOCKS: dict[str, Any] = {
    "const": _const,
    "iota": _iota,
    "broadcast": lambda op, a: np.broadcast_to(a, op.result.type.shape),
    "expand": lambda op, a: np.expand_dims(a, op.attrs["axis"]),
    "reshape": lambda op, a: a.reshape(op.result.type.shape),
    "transpose": lambda op, a: a.transpose(op.attrs["order"]),
    "join": lambda op, a, b: np.stack([a, b], -1),
    "split": _split,
    "exchange": _exchange,
    "gather": _gather,
    "histogram": _histogram,
    "popcount": lambda op, a: np.array(a.sum(), np.int32),
    "dot": _dot,
    "dot_scaled": _dot_scaled,
}

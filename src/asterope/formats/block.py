"""Block quantization: element codes under shared scales, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.errors import FormatError, ShapeError
from asterope.formats.element import Rounding, as_float32, check_rounding, decode, encode
from asterope.formats.scale import (
    MIN_GLOBAL_SCALE,
    amax_scale,
    e4m3_scale_codes,
    global_scale_of,
    scale_codes,
)
from asterope.formats.table import BlockFormat, ScaleRule, block

__all__ = ["QuantizedTensor", "block_sizes", "dequantize", "quantize"]

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QuantizedTensor:
    """Hold element codes and their scales: value = code x scale x global scale.

    Shapes: codes [...], one unpacked code per element; scales as many axes as codes, one item per
    block: [..., K / block], [..., 1] per row, [1, ..., 1] per tensor.

    `scales` are codes of the format's scale format, or float32 values where that is fp32.
    `global_scale` multiplies (compressed-tensors stores its reciprocal); None without two levels.
    `axis` is the reduction axis, counted from the front. `seed` is that of stochastic rounding.
    """

    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[Any]
    global_scale: np.float32 | None
    format: BlockFormat
    rule: ScaleRule
    rounding: Rounding
    axis: int
    seed: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the tensor that was quantized."""
        return self.codes.shape


def block_sizes(fmt: str | BlockFormat, shape: tuple[int, ...], axis: int = -1) -> tuple[int, ...]:
    """Return the extent of one block along each axis of a tensor.

    A one-dimensional block must divide the reduction axis. Blocks of two axes may end in a partial
    block, as in DeepSeek-V3 checkpoints.

    Raises: ShapeError for an empty tensor, too few axes, a wrong axis, or a block that does not
    divide; the last names the nearest sizes that it does divide.
    """
    fmt = block(fmt)
    if not shape or 0 in shape:
        raise ShapeError(f"a tensor of shape {list(shape)} has no blocks", where=fmt.name)
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"axis {axis} does not exist in shape {list(shape)}", where=fmt.name)
    axis %= len(shape)
    sizes = [1] * len(shape)
    if fmt.granularity == "tensor":
        return shape
    if fmt.granularity == "row":
        sizes[axis] = shape[axis]
        return tuple(sizes)
    if isinstance(fmt.granularity, tuple):
        return _sizes_2d(fmt, fmt.granularity, shape, axis)
    if shape[axis] % fmt.granularity:
        below = shape[axis] // fmt.granularity * fmt.granularity
        nearest = [size for size in (below, below + fmt.granularity) if size]
        raise ShapeError(
            f"blocks of {fmt.granularity} do not divide K = {shape[axis]} (axis {axis} of shape "
            f"{list(shape)})",
            where=fmt.name,
            hint=f"the nearest K: {' or '.join(map(str, nearest))}; or a format per row or tensor",
        )
    sizes[axis] = fmt.granularity
    return tuple(sizes)


def _sizes_2d(
    fmt: BlockFormat, extent: tuple[int, int], shape: tuple[int, ...], axis: int
) -> tuple[int, ...]:
    if len(shape) < 2 or axis != len(shape) - 1:
        raise ShapeError(
            f"blocks of {extent[0]} x {extent[1]} need two axes or more, the last one reduced; got "
            f"shape {list(shape)}, axis {axis}",
            where=fmt.name,
        )
    return (1,) * (len(shape) - 2) + extent


def _block_amax(x: Float32s, sizes: tuple[int, ...]) -> Float32s:
    """Return the largest magnitude of each block; NaN if it holds one."""
    missing = [(0, -length % size) for length, size in zip(x.shape, sizes, strict=True)]
    magnitude = np.pad(np.abs(x), missing)
    split = [n for length, size in zip(magnitude.shape, sizes, strict=True)
             for n in (length // size, size)]  # fmt: skip
    amax: Float32s = magnitude.reshape(split).max(axis=tuple(range(1, len(split), 2)))
    return amax


def _expand(
    scales: npt.NDArray[Any], sizes: tuple[int, ...], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Repeat each block's scale over its elements."""
    for axis, size in enumerate(sizes):
        scales = np.repeat(scales, size, axis=axis)
    return scales[tuple(slice(length) for length in shape)]


def _check_rule(fmt: BlockFormat, rule: ScaleRule | str | None) -> ScaleRule:
    if rule is None:
        return fmt.default_rule
    if rule not in fmt.rules:
        raise FormatError(
            f"scale rule {str(rule)!r} does not apply to {fmt.name}",
            where="rule",
            hint=f"use one of {', '.join(fmt.rules)}",
        )
    return ScaleRule(rule)


def _check_global_scale(rule: ScaleRule, global_scale: float | None) -> None:
    if global_scale is None:
        return
    if rule != ScaleRule.TWO_LEVEL:
        raise FormatError(f"scale rule {rule.value!r} has no global scale", where="global_scale")
    largest = float(np.finfo(np.float32).max)
    if not MIN_GLOBAL_SCALE <= global_scale <= largest:
        raise FormatError(
            f"{global_scale} is outside {MIN_GLOBAL_SCALE:.3g}..{largest:.3g}", where="global_scale"
        )


def _scale_values(
    scales: npt.NDArray[Any], fmt: BlockFormat, global_scale: np.float32 | None
) -> Float32s:
    values = scales if scales.dtype == np.float32 else decode(scales, fmt.scale)
    return values if global_scale is None else values * global_scale


def quantize(
    x: npt.NDArray[Any],
    fmt: str | BlockFormat,
    *,
    rule: ScaleRule | str | None = None,
    rounding: Rounding = "nearest_even",
    seed: int | None = None,
    axis: int = -1,
    global_scale: float | None = None,
) -> QuantizedTensor:
    """Quantize float32, float16 or bfloat16 values to codes under shared scales.

    All arithmetic is IEEE float32. Elements are divided by their scale, rounded, and saturated.
    With E4M3 scales they are multiplied by (1 / global scale) / scale instead, each operation
    rounded, which is torchao's order; others differ from it in the last place at exact ties.
    A block with NaN or infinity gets a NaN scale and codes of zero: all of it dequantizes to NaN.
    `global_scale` fixes the upper level (calibrated, or shared by fused layers); larger blocks
    saturate. Left out, it follows from the largest finite block of the tensor.

    Shapes: x [...]; see `QuantizedTensor`.
    Raises: FormatError, ShapeError.
    Source: OCP MX v1.0 section 6.3; torchao 0.18 `to_mx` and `nvfp4_quantize`.
    """
    fmt = block(fmt)
    rule = _check_rule(fmt, rule)
    check_rounding(rounding, seed)
    _check_global_scale(rule, global_scale)
    x = as_float32(x)
    sizes = block_sizes(fmt, x.shape, axis)
    amax = _block_amax(x, sizes)
    upper = None if global_scale is None else np.float32(global_scale)
    if rule == ScaleRule.TWO_LEVEL and upper is None:
        upper = global_scale_of(np.where(np.isfinite(amax), amax, np.float32(0)).max(), fmt)
    scales = _scales(amax, fmt, rule, upper)
    divisor = _expand(_scale_values(scales, fmt, None), sizes, x.shape)
    quotient = np.where(np.isnan(divisor), np.float32(0), _divide(x, divisor, fmt, upper))
    return QuantizedTensor(
        codes=encode(quotient, fmt.element, rounding=rounding, seed=seed).astype(np.uint8),
        scales=scales,
        global_scale=upper,
        format=fmt,
        rule=rule,
        rounding=rounding,
        axis=axis % x.ndim,
        seed=seed,
    )


def _scales(
    amax: Float32s, fmt: BlockFormat, rule: ScaleRule, global_scale: np.float32 | None
) -> npt.NDArray[Any]:
    if fmt.scale.name == "e8m0":
        return scale_codes(amax, fmt.element, rule)
    if fmt.scale.name == "e4m3":
        return e4m3_scale_codes(amax, fmt.element, global_scale or np.float32(1))
    return amax_scale(amax, fmt.element)


def _divide(
    x: Float32s, scale: Float32s, fmt: BlockFormat, global_scale: np.float32 | None
) -> Float32s:
    with np.errstate(over="ignore", under="ignore"):
        if fmt.scale.name != "e4m3":
            return x / scale
        upper = np.float32(1) if global_scale is None else global_scale
        return x * (np.float32(1) / upper / scale)


def dequantize(q: QuantizedTensor) -> Float32s:
    """Return the float32 values of a quantized tensor: code x (scale x global scale).

    Shapes: as the tensor that was quantized. A product past float32 becomes infinity.
    """
    sizes = block_sizes(q.format, q.shape, q.axis)
    with np.errstate(over="ignore", under="ignore"):
        scales = _scale_values(q.scales, q.format, q.global_scale)
        values: Float32s = decode(q.codes, q.format.element) * _expand(scales, sizes, q.shape)
    return values

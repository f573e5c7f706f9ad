"""What block quantization takes and gives: quantized tensors, checked requests, block shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.errors import FormatError, ShapeError
from asterope.formats.element import Rounding, check_rounding, check_values
from asterope.formats.scale import MIN_GLOBAL_SCALE
from asterope.formats.table import BlockFormat, ScaleRule, block

__all__ = ["QuantizedTensor", "Request", "block_sizes", "check_dequantize", "check_quantize"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QuantizedTensor:
    """Hold element codes and their scales: value = code x scale x global scale.

    Shapes: codes [...], one byte per element, or [..., K x bits / 8] if `packed` (see `pack`);
    scales as many axes as codes, one item per block: [..., K / block], [..., 1] per row,
    [1, ..., 1] per tensor.

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
    packed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the tensor that was quantized."""
        if not self.packed:
            return self.codes.shape
        return (*self.codes.shape[:-1], self.codes.shape[-1] * 8 // self.format.element.bits)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Request:
    """Hold the checked arguments of `quantize`; `sizes` is the extent of a block on each axis."""

    x: npt.NDArray[Any]
    format: BlockFormat
    rule: ScaleRule
    rounding: Rounding
    seed: int | None
    axis: int
    global_scale: np.float32 | None
    packed: bool
    sizes: tuple[int, ...]

    def result(
        self,
        codes: npt.NDArray[np.uint8],
        scales: npt.NDArray[Any],
        global_scale: np.float32 | None,
    ) -> QuantizedTensor:
        """Return the tensor that the request leads to; codes are packed already if asked for."""
        return QuantizedTensor(
            codes=codes,
            scales=scales,
            global_scale=global_scale,
            format=self.format,
            rule=self.rule,
            rounding=self.rounding,
            axis=self.axis,
            seed=self.seed,
            packed=self.packed,
        )


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


def _check_packing(fmt: BlockFormat, shape: tuple[int, ...], axis: int) -> None:
    """Check that packed codes say how many they are, and that no block ends inside a byte."""
    if axis % len(shape) != len(shape) - 1:
        raise ShapeError(
            f"packed codes run along the last axis, and axis {axis} of shape {list(shape)} is "
            "reduced",
            where=fmt.name,
            hint="transpose the tensor, or leave the codes unpacked",
        )
    if shape[-1] * fmt.element.bits % 8:
        raise ShapeError(
            f"{shape[-1]} codes of {fmt.element.bits} bits do not fill whole bytes",
            where=fmt.name,
            hint="leave the codes unpacked",
        )


def check_quantize(
    x: npt.ArrayLike,
    fmt: str | BlockFormat,
    *,
    rule: ScaleRule | str | None,
    rounding: Rounding,
    seed: int | None,
    axis: int,
    global_scale: float | None,
    packed: bool,
) -> Request:
    """Check the arguments of `quantize`.

    Raises: FormatError, ShapeError.
    """
    fmt = block(fmt)
    rule = _check_rule(fmt, rule)
    check_rounding(rounding, seed)
    _check_global_scale(rule, global_scale)
    x = check_values(x)
    sizes = block_sizes(fmt, x.shape, axis)
    if packed:
        _check_packing(fmt, x.shape, axis)
    return Request(
        x=x,
        format=fmt,
        rule=rule,
        rounding=rounding,
        seed=seed,
        axis=axis % x.ndim,
        global_scale=None if global_scale is None else np.float32(global_scale),
        packed=packed,
        sizes=sizes,
    )


def check_dequantize(q: QuantizedTensor) -> tuple[int, ...]:
    """Check that the scales fit the codes; return the extent of a block on each axis.

    Raises: ShapeError.
    """
    sizes = block_sizes(q.format, q.shape, q.axis)
    if q.packed:
        _check_packing(q.format, q.shape, q.axis)
    needed = tuple(-(-length // size) for length, size in zip(q.shape, sizes, strict=True))
    if q.scales.shape != needed:
        raise ShapeError(
            f"scales are {list(q.scales.shape)}; a tensor of shape {list(q.shape)} has "
            f"{list(needed)}",
            where=q.format.name,
        )
    return sizes

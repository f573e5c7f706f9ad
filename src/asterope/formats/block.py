"""Block quantization: element codes under shared scales, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.formats.element import Rounding, decode, encode
from asterope.formats.packing import pack, unpack
from asterope.formats.quantized import (
    QuantizedTensor,
    Request,
    check_dequantize,
    check_quantize,
)
from asterope.formats.scale import (
    amax_scale,
    e4m3_scale_codes,
    global_scale_of,
    scale_codes,
)
from asterope.formats.table import BlockFormat, ScaleRule

__all__ = ["dequantize", "quantize", "quantize_request", "scale_values"]

Float32s = npt.NDArray[np.float32]


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


def scale_values(
    scales: npt.NDArray[Any], fmt: BlockFormat, global_scale: np.float32 | None
) -> Float32s:
    """Return scale x global scale, decoded, for codes or float32 scales."""
    values = scales if scales.dtype == np.float32 else decode(scales, fmt.scale)
    return values if global_scale is None else values * global_scale


def quantize(
    x: npt.ArrayLike,
    fmt: str | BlockFormat,
    *,
    rule: ScaleRule | str | None = None,
    rounding: Rounding = "nearest_even",
    seed: int | None = None,
    axis: int = -1,
    global_scale: float | None = None,
    packed: bool = False,
) -> QuantizedTensor:
    """Quantize float32, float16 or bfloat16 values to codes under shared scales.

    All arithmetic is IEEE float32. Elements are divided by their scale, rounded, and saturated.
    With E4M3 scales they are multiplied by (1 / global scale) / scale instead, each operation
    rounded, which is torchao's order; others differ from it in the last place at exact ties.
    A block with NaN or infinity gets a NaN scale and codes of zero: all of it dequantizes to NaN.
    `global_scale` fixes the upper level (calibrated, or shared by fused layers); larger blocks
    saturate. Left out, it follows from the largest finite block of the tensor.
    `packed` codes are stored without gaps along the last axis, which must be the reduction axis.

    Shapes: x [...]; see `QuantizedTensor`.
    Raises: FormatError, ShapeError.
    Source: OCP MX v1.0 section 6.3; torchao 0.18 `to_mx` and `nvfp4_quantize`.
    """
    return quantize_request(
        check_quantize(
            x,
            fmt,
            rule=rule,
            rounding=rounding,
            seed=seed,
            axis=axis,
            global_scale=global_scale,
            packed=packed,
        )
    )


def quantize_request(r: Request) -> QuantizedTensor:
    """Quantize as `quantize` does, after the checks."""
    fmt, x = r.format, r.x.astype(np.float32)
    x = np.where(np.isnan(x), np.float32(np.nan), x)  # a signaling NaN would warn at each step
    amax = _block_amax(x, r.sizes)
    upper = r.global_scale
    if r.rule == ScaleRule.TWO_LEVEL and upper is None:
        upper = global_scale_of(np.where(np.isfinite(amax), amax, np.float32(0)).max(), fmt)
    scales = _scales(amax, fmt, r.rule, upper)
    divisor = _expand(scale_values(scales, fmt, None), r.sizes, x.shape)
    quotient = np.where(np.isnan(divisor), np.float32(0), _divide(x, divisor, fmt, upper))
    codes = encode(quotient, fmt.element, rounding=r.rounding, seed=r.seed).astype(np.uint8)
    return r.result(pack(codes, fmt.element) if r.packed else codes, scales, upper)


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
    Raises: ShapeError if the scales do not fit the codes; FormatError for a code the format does
    not have.
    """
    sizes = check_dequantize(q)
    codes = unpack(q.codes, q.format.element, q.shape[-1]) if q.packed else q.codes
    with np.errstate(over="ignore", under="ignore"):
        scales = scale_values(q.scales, q.format, q.global_scale)
        values: Float32s = decode(codes, q.format.element) * _expand(scales, sizes, q.shape)
    return values

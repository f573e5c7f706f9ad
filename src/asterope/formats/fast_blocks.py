"""Quantize and dequantize, in machine code where the tensors are large; `block` does the rest.

Scales of one byte belong to short runs of neighbours and are made together with the codes, in one
pass. Float32 scales take a pass for the largest magnitudes and one for the codes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.formats import block as definition
from asterope.formats.element import Rounding
from asterope.formats.fast_elements import MIN_FAST_SIZE, NO_SCALES, has_code, pack, unpack
from asterope.formats.native_blocks import DequantizeBlocks, QuantizeBlocks
from asterope.formats.native_loops import VALUE_DTYPES, in_order, run_loop
from asterope.formats.native_packing import PACKABLE_BITS
from asterope.formats.native_segments import (
    SEGMENT,
    AmaxSegments,
    DecodeSegments,
    EncodeSegments,
)
from asterope.formats.quantized import (
    QuantizedTensor,
    Request,
    check_dequantize,
    check_quantize,
)
from asterope.formats.scale import E8M0_RULES, amax_scale, global_scale_of
from asterope.formats.table import BlockFormat, ScaleRule

__all__ = ["dequantize", "quantize"]

Float32s = npt.NDArray[np.float32]

_VECTOR_BLOCKS = (16, 32, 64)
_ALL_BYTES = np.arange(256, dtype=np.uint8)


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
    """Quantize float32, float16 or bfloat16 values to codes under shared scales, fast.

    `reference_quantize` says what the result is. `rule` is the scale rule, the format's default if
    left out. `global_scale` fixes the upper of two levels. `packed` codes are stored without gaps
    along the last axis, which must be the reduction axis.

    Shapes: x [...]; see `QuantizedTensor`.
    Raises: FormatError, ShapeError.
    Cost: one read of x (two for two levels and float32 scales) and one write of the codes. Another
    axis than the last is copied first.
    """
    request = check_quantize(
        x,
        fmt,
        rule=rule,
        rounding=rounding,
        seed=seed,
        axis=axis,
        global_scale=global_scale,
        packed=packed,
    )
    if request.x.size < MIN_FAST_SIZE or not _has_code(request.format):
        return definition.quantize_request(request)
    if not _is_simple(request):
        return definition.quantize_request(request)
    if request.format.scale.bits == 8:
        return _quantize_blocks(request)
    return _quantize_segments(request)


def _has_code(fmt: BlockFormat) -> bool:
    """Whether machine code covers a format: the rows of the tables, and others like them."""
    if not has_code(fmt.element) or fmt.element.bits not in PACKABLE_BITS:
        return False
    if fmt.scale.name == "fp32":
        return True
    has_scale = fmt.scale.name in ("e8m0", "e4m3") and has_code(fmt.scale)
    return has_scale and fmt.granularity in _VECTOR_BLOCKS


def _is_simple(r: Request) -> bool:
    """Whether the rule suits the scale, and random numbers follow the order of the elements."""
    if r.format.scale.name == "e8m0" and r.rule not in E8M0_RULES:
        return False
    in_place = r.format.granularity == "tensor" or r.axis == r.x.ndim - 1
    return in_place or r.rounding != "stochastic"


def _rows(x: npt.NDArray[Any], fmt: BlockFormat, axis: int) -> npt.NDArray[Any]:
    """Return a contiguous array with the reduction axis last."""
    return in_order(x if fmt.granularity == "tensor" else np.moveaxis(x, axis, -1))


def _back(x: npt.NDArray[Any], fmt: BlockFormat, axis: int) -> npt.NDArray[Any]:
    """Undo `_rows`."""
    return in_order(x if fmt.granularity == "tensor" else np.moveaxis(x, -1, axis))


def _amax(x: npt.NDArray[Any], row_length: int, segment: int) -> Float32s:
    """Return the largest magnitude of each segment of each row; NaN or infinity if it holds one.

    Shapes: x contiguous; result [rows, segments of a row].
    """
    amax = np.empty((x.size // row_length, -(-row_length // segment)), np.float32)
    loop = AmaxSegments(dtype=VALUE_DTYPES[x.dtype])
    run_loop(loop, (x, amax, row_length, segment), amax.size, segment * x.itemsize)
    return amax


# -- scales of one byte ---------------------------------------------------------------------------
def _quantize_blocks(r: Request) -> QuantizedTensor:
    fmt, x = r.format, _rows(r.x, r.format, r.axis)
    assert isinstance(fmt.granularity, int)
    upper = r.global_scale
    if r.rule == ScaleRule.TWO_LEVEL and upper is None:
        upper = global_scale_of(_largest_finite_block(x, fmt.granularity), fmt)
    *rows, length = x.shape
    codes = np.empty((*rows, length * (fmt.element.bits if r.packed else 8) // 8), np.uint8)
    scales = np.empty((*rows, length // fmt.granularity), np.uint8)
    loop = QuantizeBlocks(
        format=fmt,
        rule=r.rule,
        rounding=r.rounding,
        dtype=VALUE_DTYPES[x.dtype],
        packed=r.packed,
    )
    args = (x, codes, scales, _factors(fmt, upper), float(upper or 1), scales.size, r.seed or 0)
    run_loop(loop, args, scales.size, fmt.granularity * x.itemsize)
    return r.result(_back(codes, fmt, r.axis), _back(scales, fmt, r.axis), upper)


def _largest_finite_block(x: npt.NDArray[Any], block_size: int) -> np.float32:
    largest = np.float32(_amax(x, x.size, SEGMENT).max())
    if np.isfinite(largest):
        return largest
    amax = _amax(x, x.size, block_size)
    return np.float32(np.where(np.isfinite(amax), amax, np.float32(0)).max())


def _factors(fmt: BlockFormat, global_scale: np.float32 | None) -> Float32s:
    """Return what dividing by each scale comes to; a power of two has an exact reciprocal."""
    upper = np.float32(1) if global_scale is None else global_scale
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return np.float32(1) / upper / definition.scale_values(_ALL_BYTES, fmt, None)


# -- scales in float32 ----------------------------------------------------------------------------
def _row_and_segment(x: npt.NDArray[Any], fmt: BlockFormat) -> tuple[int, int]:
    """Return how the elements split: the length of a row, and of a part with one scale."""
    if fmt.granularity == "tensor":
        return x.size, SEGMENT
    if fmt.granularity == "row":
        return x.shape[-1], x.shape[-1]
    segment = fmt.granularity if isinstance(fmt.granularity, int) else fmt.granularity[1]
    return x.shape[-1], segment


def _merge(amax: Float32s, shape: tuple[int, ...], fmt: BlockFormat) -> Float32s:
    """Return the largest magnitude of each block from those of the segments."""
    if fmt.granularity == "tensor":
        return np.full((1,) * len(shape), amax.max())
    amax = amax.reshape(*shape[:-1], -1)
    if not isinstance(fmt.granularity, tuple):
        return amax
    starts = np.arange(0, shape[-2], fmt.granularity[0])
    merged: Float32s = np.maximum.reduceat(amax, starts, axis=-2)
    return merged


def _spread(scales: Float32s, shape: tuple[int, ...], fmt: BlockFormat) -> tuple[Float32s, int]:
    """Return one scale for each segment, and the stride between them: 0 if all have the same."""
    if isinstance(fmt.granularity, tuple):
        repeated = np.repeat(scales, fmt.granularity[0], axis=-2)[..., : shape[-2], :]
        return in_order(repeated), 1
    return in_order(scales), int(fmt.granularity != "tensor")


def _quantize_segments(r: Request) -> QuantizedTensor:
    fmt, x = r.format, _rows(r.x, r.format, r.axis)
    row_length, segment = _row_and_segment(x, fmt)
    amax = _amax(x, row_length, segment)
    scales = amax_scale(_merge(amax, x.shape, fmt), fmt.element)
    spread, stride = _spread(scales, x.shape, fmt)
    codes = np.empty(x.shape, np.uint8)
    loop = EncodeSegments(
        element=fmt.element,
        rounding=r.rounding,
        overflow="saturate",
        dtype=VALUE_DTYPES[x.dtype],
        scaled=True,
    )
    args = (x, codes, spread, NO_SCALES, row_length, segment, stride, r.seed or 0)
    run_loop(loop, args, amax.size, segment * x.itemsize)
    if r.packed and fmt.element.bits < 8:
        codes = pack(codes, fmt.element)
    return r.result(_back(codes, fmt, r.axis), _back(scales, fmt, r.axis), None)


# -- back to numbers ------------------------------------------------------------------------------
def dequantize(q: QuantizedTensor) -> Float32s:
    """Return the float32 values of a quantized tensor: `reference_dequantize`, but fast.

    Shapes: as the tensor that was quantized. A product past float32 becomes infinity.
    Raises: ShapeError if the scales do not fit the codes; FormatError for a code the format does
    not have.
    Cost: one read of the codes, one write of the values.
    """
    check_dequantize(q)
    num = math.prod(q.shape)
    scale_dtype = np.uint8 if q.format.scale.bits == 8 else np.float32
    plain = q.codes.dtype == np.uint8 and q.scales.dtype == scale_dtype
    if num < MIN_FAST_SIZE or not plain or not _has_code(q.format):
        return definition.dequantize(q)
    codes, scales = (_rows(part, q.format, q.axis) for part in (q.codes, q.scales))
    values = np.empty(q.shape if q.packed else codes.shape, np.float32)
    found_wide = np.zeros(1, np.int32)
    if scale_dtype == np.uint8:
        _dequantize_blocks(q, codes, scales, values, found_wide)
    else:
        _dequantize_segments(q, codes, scales, values, found_wide)
    return definition.dequantize(q) if found_wide[0] else _back(values, q.format, q.axis)


def _dequantize_blocks(
    q: QuantizedTensor,
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.uint8],
    values: Float32s,
    found_wide: npt.NDArray[np.int32],
) -> None:
    with np.errstate(over="ignore", under="ignore"):
        factors = definition.scale_values(_ALL_BYTES, q.format, q.global_scale)
    loop = DequantizeBlocks(format=q.format, packed=q.packed)
    args = (codes, scales, factors, found_wide, values)
    run_loop(loop, args, scales.size, values.nbytes // scales.size)


def _dequantize_segments(
    q: QuantizedTensor,
    codes: npt.NDArray[np.uint8],
    scales: Float32s,
    values: Float32s,
    found_wide: npt.NDArray[np.int32],
) -> None:
    if q.packed and q.format.element.bits < 8:
        codes = unpack(codes, q.format.element, values.shape[-1])
    with np.errstate(over="ignore", under="ignore"):
        factors = definition.scale_values(scales, q.format, q.global_scale)
    row_length, segment = _row_and_segment(codes, q.format)
    spread, stride = _spread(factors, codes.shape, q.format)
    loop = DecodeSegments(element=q.format.element, scaled=True)
    args = (codes, spread, found_wide, values, row_length, segment, stride)
    num_segments = codes.size // row_length * -(-row_length // segment)
    run_loop(loop, args, num_segments, segment * values.itemsize)

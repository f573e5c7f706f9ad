"""Quantize activations on the fly: a scale a row (fp8) or a block (fp8, mx formats, nvfp4)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from asterope.errors import FormatError, ShapeError
from asterope.formats import BlockFormat, ScaleRule, block
from asterope.kernels.block_codes import (
    MANTISSA_BITS,
    block_amax,
    e2m1_pairs,
    e4m3_scale,
    e8m0_scale,
    scale_rounding,
)
from asterope.kernels.scaled_linear import ScaledOperand

__all__ = ["ACTIVATION_FORMATS", "SCALED_DEPTH", "quantize_groups", "quantize_rows"]

ACTIVATION_FORMATS = ("fp8", "mxfp8", "mxfp6", "mxfp4", "mxfp4_e1m2", "nvfp4")
SCALED_DEPTH = 128
"""How many elements of a row share a scale in `quantize_groups`."""
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def _fp8_kernel(x, codes, scales, K, stride_x, given, GIVEN: tl.constexpr, BLOCK: tl.constexpr):
    """One row, by its largest magnitude or a scale that is given; what is too large saturates."""
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    on = offs < K
    value = tl.load(x + row * stride_x + offs, mask=on, other=0.0).to(tl.float32)
    if GIVEN:
        scale = given
    else:
        # The largest magnitude as bits, of which NaN and infinity have the largest.
        amax = tl.max(tl.abs(value).to(tl.int32, bitcast=True), axis=0)
        scale = tl.maximum(amax.to(tl.float32, bitcast=True) / 448.0, 1.1754943508222875e-38)
        scale = tl.where(amax >= 0x7F800000, float("nan"), scale)
    tl.store(scales + row, scale)
    tl.store(codes + row * K + offs, (value / scale).to(tl.float8e4nv), mask=on)


@triton.jit
def _fp8_groups_kernel(x, codes, scales, K, stride_x, DEPTH: tl.constexpr, BLOCK: tl.constexpr):
    """One row, as `_fp8_kernel` does for each DEPTH elements of it."""
    row = tl.program_id(0).to(tl.int64)
    GROUPS: tl.constexpr = BLOCK // DEPTH
    offs = tl.arange(0, BLOCK)
    value = tl.load(x + row * stride_x + offs, mask=offs < K, other=0.0).to(tl.float32)
    blocks = tl.reshape(value, (GROUPS, DEPTH))
    amax = block_amax(blocks)
    scale = tl.maximum(amax.to(tl.float32, bitcast=True) / 448.0, 1.1754943508222875e-38)
    scale = tl.where(amax >= 0x7F800000, float("nan"), scale)
    offs_s = tl.arange(0, GROUPS)
    steps = tl.cdiv(K, DEPTH)
    tl.store(scales + row * steps + offs_s, scale, mask=offs_s < steps)
    code = tl.reshape(blocks / scale[:, None], (BLOCK,)).to(tl.float8e4nv)
    tl.store(codes + row * K + offs, code, mask=offs < K)


@triton.jit
def _store_e2m1(codes, row, value, K, BLOCK: tl.constexpr):
    """Pack two codes a byte, the even element low."""
    packed = e2m1_pairs(tl.reshape(value, (BLOCK // 2, 2)))
    offs = tl.arange(0, BLOCK // 2)
    tl.store(codes + row * (K // 2) + offs, packed, mask=offs < K // 2)


@triton.jit
def _fixed_point(value, LARGEST: tl.constexpr, MAGIC: tl.constexpr):
    """Round to E2M3 or E1M2, as E4M3, which holds both exactly.

    Below 2 their values are equally spaced: adding 1.5 x 2^23 steps leaves no bit for less than
    one, and so rounds. From 2 on E2M3 has the three fraction bits of E4M3.
    """
    size = tl.minimum(tl.abs(value), LARGEST)
    size = tl.where(size < 2.0, (size + MAGIC) - MAGIC, size)
    sign = value.to(tl.int32, bitcast=True) & -2147483648
    return (size.to(tl.int32, bitcast=True) | sign).to(tl.float32, bitcast=True).to(tl.float8e4nv)


@triton.jit
def _mx_kernel(
    x, codes, scales, K, stride_x, ELEMENT: tl.constexpr, LARGEST: tl.constexpr,
    MAGIC: tl.constexpr, EMAX: tl.constexpr, ROUND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row, its scales as `e8m0_scale` has them."""
    row = tl.program_id(0).to(tl.int64)
    GROUPS: tl.constexpr = BLOCK // 32
    offs = tl.arange(0, BLOCK)
    value = tl.load(x + row * stride_x + offs, mask=offs < K, other=0.0).to(tl.float32)
    blocks = tl.reshape(value, (GROUPS, 32))
    amax = block_amax(blocks)
    code, first, second = e8m0_scale(amax, ROUND, EMAX)
    scaled = tl.reshape(blocks * first[:, None] * second[:, None], (BLOCK,))
    offs_s = tl.arange(0, GROUPS)
    tl.store(scales + row * (K // 32) + offs_s, code, mask=offs_s < K // 32)
    if ELEMENT == "e2m1":
        _store_e2m1(codes, row, scaled, K, BLOCK)
    elif ELEMENT == "e4m3":
        tl.store(codes + row * K + offs, scaled.to(tl.float8e4nv), mask=offs < K)
    else:
        tl.store(codes + row * K + offs, _fixed_point(scaled, LARGEST, MAGIC), mask=offs < K)


@triton.jit
def _nvfp4_kernel(
    x, codes, scales, row_scale, K, stride_x, given, GIVEN: tl.constexpr, TWO_LEVEL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One row. Of two levels the upper is amax / (448 x 6) of the row, or given."""
    row = tl.program_id(0).to(tl.int64)
    GROUPS: tl.constexpr = BLOCK // 16
    offs = tl.arange(0, BLOCK)
    value = tl.load(x + row * stride_x + offs, mask=offs < K, other=0.0).to(tl.float32)
    blocks = tl.reshape(value, (GROUPS, 16))
    amax = block_amax(blocks).to(tl.float32, bitcast=True)
    upper = 1.0
    if TWO_LEVEL:
        if GIVEN:
            upper = given
        else:
            largest = tl.max(tl.where(amax < float("inf"), amax, 0.0), axis=0)
            upper = tl.maximum(largest / 2688.0, 6.018531076210112e-36)
        tl.store(row_scale + row, upper)
    scale, inverse = e4m3_scale(amax, upper)
    offs_s = tl.arange(0, GROUPS)
    tl.store(scales + row * (K // 16) + offs_s, scale, mask=offs_s < K // 16)
    _store_e2m1(codes, row, tl.reshape(blocks * inverse[:, None], (BLOCK,)), K, BLOCK)


def quantize_rows(
    x: torch.Tensor,
    fmt: str,
    rule: ScaleRule | str | None = None,
    *,
    scale: float | None = None,
) -> ScaledOperand:
    """Quantize each row of x, rounding to nearest even; the values are those of `formats.quantize`.

    `fp8` is e4m3 with a float32 scale a row; `mxfp8`, `mxfp6`, `mxfp4` and `mxfp4_e1m2` have an
    E8M0 scale for 32 elements by rule floor, even or rceil; `nvfp4` has an E4M3 scale for 16, under
    a float32 scale a row by rule two_level, alone by rule amax. `rule` left out is the format's
    default. Codes of mxfp6 and mxfp4_e1m2 are stored as the e4m3 codes of the same numbers.
    A block or row with NaN or infinity has a NaN scale. `scale` is a static one that takes the
    place of the rows' (fp8, nvfp4 by two_level): what it makes too large saturates.

    Shapes: x [M, K], float32, bf16 or fp16.
    Raises: FormatError for another format, rule or type of x; ShapeError if the block does not
    divide K.
    """
    if fmt not in ACTIVATION_FORMATS:
        raise FormatError(
            f"activations cannot be {fmt!r}", hint=f"use {', '.join(ACTIVATION_FORMATS)} or bf16"
        )
    form = block("fp8_row" if fmt == "fp8" else fmt)
    rule = _check_rule(form, rule)
    _check_rows(x, fmt)
    if scale is not None and fmt != "fp8" and rule != ScaleRule.TWO_LEVEL:
        raise FormatError("activations have no static scale", where=f"{fmt}, {rule}")
    if form.granularity == "row":
        return _quantize_fp8(x, scale)
    assert isinstance(form.granularity, int)
    if x.shape[1] % form.granularity:
        raise ShapeError(f"blocks of {form.granularity} do not divide K = {x.shape[1]}", where=fmt)
    return _quantize_nvfp4(x, rule, scale) if form.two_level else _quantize_mx(x, form, rule)


def quantize_groups(x: torch.Tensor) -> ScaledOperand:
    """Quantize each 128 neighbours of a row to e4m3 with a float32 scale, to nearest even.

    Shapes: x [M, K], float32, bf16 or fp16; scales of the result [M, K / 128], rounded up.
    Raises: FormatError for another type of x; ShapeError if it is not a matrix.
    """
    _check_rows(x, "fp8")
    rows, k = x.shape
    codes = torch.empty((rows, k), dtype=torch.float8_e4m3fn, device=x.device)
    steps = triton.cdiv(k, SCALED_DEPTH)
    scales = torch.empty((rows, steps), dtype=torch.float32, device=x.device)
    _fp8_groups_kernel[(rows,)](
        x, codes, scales, k, x.stride(0), DEPTH=SCALED_DEPTH, BLOCK=_block_size(k, SCALED_DEPTH)
    )
    return ScaledOperand(codes=codes, format="e4m3", scales=scales)


def _check_rows(x: torch.Tensor, where: str) -> None:
    if x.dtype not in _DTYPES:
        raise FormatError(
            f"activations of {str(x.dtype).removeprefix('torch.')} cannot be quantized",
            where=where,
            hint="convert them to float32, bfloat16 or float16",
        )
    if x.dim() != 2 or x.stride(1) != 1:
        raise ShapeError(
            f"x {list(x.shape)} does not have two axes with contiguous rows",
            where=where,
            hint="x is [tokens, in]; call .contiguous()",
        )


def _check_rule(fmt: BlockFormat, rule: ScaleRule | str | None) -> ScaleRule:
    if rule is None:
        return fmt.default_rule
    if rule not in fmt.rules:
        hint = f"use {' or '.join(fmt.rules)}"
        raise FormatError(f"activations in {fmt.name} have no scale rule {str(rule)!r}", hint=hint)
    return ScaleRule(rule)


def _block_size(k: int, group: int) -> int:
    return int(max(triton.next_power_of_2(k), 2 * group))


def _quantize_fp8(x: torch.Tensor, scale: float | None) -> ScaledOperand:
    rows, k = x.shape
    codes = torch.empty((rows, k), dtype=torch.float8_e4m3fn, device=x.device)
    row_scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    _fp8_kernel[(rows,)](
        x, codes, row_scale, k, x.stride(0), scale or 0.0, GIVEN=scale is not None,
        BLOCK=_block_size(k, 1),
    )  # fmt: skip
    return ScaledOperand(codes=codes, format="e4m3", row_scale=row_scale)


def _quantize_nvfp4(x: torch.Tensor, rule: ScaleRule, scale: float | None) -> ScaledOperand:
    rows, k = x.shape
    codes = torch.empty((rows, k // 2), dtype=torch.uint8, device=x.device)
    scales = torch.empty((rows, k // 16), dtype=torch.float8_e4m3fn, device=x.device)
    two_level = rule == ScaleRule.TWO_LEVEL
    row_scale = torch.empty(rows, dtype=torch.float32, device=x.device) if two_level else None
    _nvfp4_kernel[(rows,)](
        x, codes, scales, row_scale, k, x.stride(0), scale or 0.0, GIVEN=scale is not None,
        TWO_LEVEL=two_level, BLOCK=_block_size(k, 16),
    )  # fmt: skip
    return ScaledOperand(codes=codes, format="e2m1", scales=scales, row_scale=row_scale)


def _quantize_mx(x: torch.Tensor, fmt: BlockFormat, rule: ScaleRule) -> ScaledOperand:
    (rows, k), element = x.shape, fmt.element
    packed = element.name == "e2m1"
    shape, dtype = ((rows, k // 2), torch.uint8) if packed else ((rows, k), torch.float8_e4m3fn)
    codes = torch.empty(shape, dtype=dtype, device=x.device)
    scales = torch.empty((rows, k // 32), dtype=torch.uint8, device=x.device)
    _mx_kernel[(rows,)](
        x, codes, scales, k, x.stride(0), ELEMENT=element.name, LARGEST=element.max_value,
        MAGIC=1.5 * 2.0**MANTISSA_BITS * element.min_subnormal, EMAX=element.emax,
        ROUND=scale_rounding(fmt, rule), BLOCK=_block_size(k, 32),
    )  # fmt: skip
    return ScaledOperand(
        codes=codes, format="e2m1" if packed else "e4m3", scales=scales, row_scale=None
    )

"""Blocks that share a scale, inside kernels: scales of their maxima, E2M1 codes, and both back."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from asterope.formats import BlockFormat, ScaleRule, block, element

__all__ = [
    "CODE_UNIT", "MANTISSA_BITS", "block_amax", "e2m1_pairs", "e4m3_scale", "e8m0_scale",
    "scale_rounding", "store_blocks", "widened_pairs",
]  # fmt: skip

CODE_UNIT = 64.0
"""What `widened_pairs` leaves out: E2M1's bits, read as E4M3, are numbers so much smaller."""
MANTISSA_BITS = 23
_MANTISSA = (1 << MANTISSA_BITS) - 1


def scale_rounding(fmt: BlockFormat, rule: ScaleRule) -> int:
    """Return what to add to a float's bits so that its exponent is that of the rule."""
    if rule == ScaleRule.EVEN:
        return 1 << (MANTISSA_BITS - 1 - fmt.element.mantissa_bits)
    if rule == ScaleRule.RCEIL:
        largest = int(np.float32(fmt.element.max_value).view(np.int32))
        return _MANTISSA - (largest & _MANTISSA)
    return 0


EVEN_ROUNDING = tl.constexpr(scale_rounding(block("mxfp4"), ScaleRule.EVEN))
E2M1_EMAX = tl.constexpr(element("e2m1").emax)


@triton.jit
def block_amax(blocks):
    """Return the largest magnitude of each block as bits, so that NaN, the largest, is seen."""
    return tl.max(tl.abs(blocks).to(tl.int32, bitcast=True), axis=1)


@triton.jit
def e8m0_scale(amax, ROUND: tl.constexpr, EMAX: tl.constexpr):
    """Return the codes of scales, and two factors that divide by each; amax is bits.

    ROUND is what is added to amax's bits before its exponent is taken. That is exact for normal
    numbers; E1M2 may give a subnormal amax the next exponent.
    """
    code = tl.minimum(tl.maximum(((amax + ROUND) >> 23) - EMAX, 0), 254)
    # 2^-(code - 127), as two factors so that neither leaves float32.
    half = (127 - code) >> 1
    first = ((half + 127) << 23).to(tl.float32, bitcast=True)
    second = ((127 - code - half + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(amax >= 0x7F800000, 255, code).to(tl.uint8), first, second


@triton.jit
def e4m3_scale(amax, upper):
    """Return scales of E2M1 under a scale above them, and what divides by both."""
    scale = tl.minimum(tl.maximum(amax / 6.0 / upper, 0.001953125), 448.0)
    scale = tl.where(amax < float("inf"), scale, float("nan")).to(tl.float8e4nv)
    return scale, 1.0 / upper / scale.to(tl.float32)


@triton.jit
def _e2m1(value):
    """Round to E2M1, ties to the even code; the code is in the low four bits."""
    size = tl.abs(value)
    code = (size > 0.25).to(tl.int32) + (size >= 0.75).to(tl.int32) + (size > 1.25).to(tl.int32)
    code += (size >= 1.75).to(tl.int32) + (size > 2.5).to(tl.int32) + (size >= 3.5).to(tl.int32)
    code += (size > 5.0).to(tl.int32)
    sign = (value.to(tl.int32, bitcast=True) >> 28) & 8
    return code | sign


@triton.jit
def e2m1_pairs(pairs):
    """Round pairs, in a last dimension of 2, to E2M1: two codes a byte, the first one low."""
    low, high = tl.split(_e2m1(pairs))
    return (low | (high << 4)).to(tl.uint8)


@triton.jit
def store_blocks(
    x, codes, scales, upper, stride, COUNT: tl.constexpr, SPAN: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """Store the first SPAN elements of COUNT rows of x as codes and scales of GROUP elements.

    Rows are `stride` elements apart. E8M0 scales follow MXFP4's usual rule, `even`; E4M3 ones stand
    under `upper`.
    """
    ROWS: tl.constexpr = x.shape[0]
    WIDTH: tl.constexpr = x.shape[1]
    blocks = tl.reshape(x, (ROWS * WIDTH // GROUP, GROUP))
    amax = block_amax(blocks)
    if scales.dtype.element_ty == tl.uint8:
        scale, first, second = e8m0_scale(amax, EVEN_ROUNDING, E2M1_EMAX)
        scaled = blocks * first[:, None] * second[:, None]
    else:
        scale, inverse = e4m3_scale(amax.to(tl.float32, bitcast=True), upper)
        scaled = blocks * inverse[:, None]
    rows = tl.arange(0, ROWS)[:, None]
    offs, offs_s = tl.arange(0, WIDTH // 2)[None, :], tl.arange(0, WIDTH // GROUP)[None, :]
    packed = e2m1_pairs(tl.reshape(scaled, (ROWS, WIDTH // 2, 2)))
    on, on_s = (rows < COUNT) & (offs < SPAN // 2), (rows < COUNT) & (offs_s < SPAN // GROUP)
    tl.store(codes + rows * (stride // 2) + offs, packed, mask=on)
    scale = tl.reshape(scale, (ROWS, WIDTH // GROUP))
    tl.store(scales + rows * (stride // GROUP) + offs_s, scale, mask=on_s)


@triton.jit
def widened_pairs(codes, scales, dtype: tl.constexpr):
    """Return what low and high codes of bytes stand for, over `CODE_UNIT`.

    Exact in the normal numbers of the type. Shapes: codes [R, C]; scales [R, blocks of a row].
    """
    ROWS: tl.constexpr = codes.shape[0]
    BYTES: tl.constexpr = codes.shape[1]
    BLOCKS: tl.constexpr = scales.shape[1]
    if scales.dtype == tl.uint8:
        size = (scales.to(tl.int32) << 23).to(tl.float32, bitcast=True)
        scale = tl.where(scales == 255, float("nan"), size).to(dtype)
    else:
        scale = scales.to(dtype)
    each = tl.broadcast_to(scale[:, :, None], (ROWS, BLOCKS, BYTES // BLOCKS))
    each = tl.reshape(each, (ROWS, BYTES))
    # The sign goes to the sign, and the other three bits to the end of the exponent and on.
    low = ((codes << 4).to(tl.int8, bitcast=True) >> 2).to(tl.uint8, bitcast=True) & 0x9C
    high = (codes.to(tl.int8, bitcast=True) >> 2).to(tl.uint8, bitcast=True) & 0x9C
    low = low.to(tl.float8e4nv, bitcast=True).to(dtype) * each
    high = high.to(tl.float8e4nv, bitcast=True).to(dtype) * each
    return low, high

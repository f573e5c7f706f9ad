"""Encode and decode inside generated code: the fast path's arithmetic, on vectors of any width.

Bit operations on float32, checked code by code against the tables of `element.py`. No step makes
or reads a float32 subnormal unless the value itself is one: those cost ~100 cycles on some CPUs.
"""

from __future__ import annotations

from asterope.formats.element import Overflow, Rounding
from asterope.formats.table import ElementFormat
from asterope.native import Val

__all__ = ["emit_decode", "emit_encode", "emit_round"]

_SIGN, _MAGNITUDE, _INF = -(1 << 31), (1 << 31) - 1, 0x7F80_0000
_QUIET_NAN = 0x7FC0_0000
_MANTISSA = 23
_SUBNORMAL = 0x20  # as AVX-512's test of a float's class counts
_BF16_LANES = (8, 16, 32)


def emit_decode(code: Val, fmt: ElementFormat) -> Val:
    """Turn codes (any integer kind, upper bits clear) into float32, exactly."""
    x = code.zext("i32")
    if fmt.bits == 32:
        return x.bits_as("f32")
    if fmt.specials == "integer":
        unused = 32 - fmt.bits
        return (x << unused).sar(unused).to_float("f32")
    if fmt.specials == "scale":
        value = x.eq(0).where(x.like(1 << 22), x << _MANTISSA)
        return x.eq(fmt.nan_code).where(x.like(_QUIET_NAN), value).bits_as("f32")
    if fmt.exponent_bits == 8:
        return (x << (32 - fmt.bits)).bits_as("f32")
    return _decode_narrow(x, fmt)


def _decode_narrow(x: Val, fmt: ElementFormat) -> Val:
    """Decode a format with a smaller exponent range than float32."""
    m = fmt.mantissa_bits
    sign = (x & fmt.sign_code) << (32 - fmt.bits)
    magnitude = x & (fmt.sign_code - 1)
    normal = (magnitude << (_MANTISSA - m)) + ((127 - fmt.bias) << _MANTISSA)
    subnormal = (magnitude.to_float("f32") * 2.0 ** (1 - fmt.bias - m)).bits_as("i32")
    bits = magnitude.lt(1 << m).where(subnormal, normal)
    if fmt.specials == "ieee":
        special = (magnitude << (_MANTISSA - m)) | _INF
        bits = magnitude.gt(fmt.max_code).where(special, bits)
    elif fmt.specials == "nan_only":
        bits = magnitude.eq(fmt.nan_code).where(bits.like(_QUIET_NAN), bits)
    bits = bits | sign
    if fmt.specials == "fnuz":
        bits = x.eq(fmt.nan_code).where(bits.like(_QUIET_NAN), bits)
    return bits.bits_as("f32")


def emit_encode(
    x: Val,
    fmt: ElementFormat,
    *,
    rounding: Rounding = "nearest_even",
    overflow: Overflow = "saturate",
    uniform: Val | None = None,
) -> Val:
    """Turn float32 into codes (i32, upper bits clear); `uniform` is stochastic rounding's u32.

    A NaN in a format without one gives an arbitrary code: the caller looks for NaN first.
    """
    if fmt.bits == 32:
        return x.bits_as("i32")
    if fmt.specials == "integer":
        return _encode_integer(x, fmt, rounding, uniform)
    bits = x.bits_as("i32")
    magnitude = bits & _MAGNITUDE
    code = _round_magnitude(magnitude, fmt, rounding, uniform)
    if rounding == "toward_zero":
        code = code.gt(fmt.max_code).where(code.like(fmt.max_code), code)
        code = magnitude.eq(_INF).where(code.like(fmt.max_code + 1), code)
    too_large = code.gt(fmt.max_code)
    special = fmt.max_code
    if overflow == "special" and fmt.has_nan:
        special = fmt.inf_code if fmt.has_inf else fmt.nan_code
    code = too_large.where(code.like(special), code)
    return _with_sign(bits, magnitude, code, fmt)


def _with_sign(bits: Val, magnitude: Val, code: Val, fmt: ElementFormat) -> Val:
    is_nan = magnitude.gt(_INF)
    if fmt.specials == "fnuz":
        signed = (bits >> 31) << (fmt.bits - 1)
        is_nan = is_nan | code.eq(fmt.nan_code)
        code = code | code.eq(0).where(code.like(0), signed)
        return is_nan.where(code.like(fmt.nan_code), code)
    if fmt.has_nan:
        code = is_nan.where(code.like(fmt.nan_code), code)
    return code | ((bits >> 31) << (fmt.bits - 1))


def _round_magnitude(
    magnitude: Val, fmt: ElementFormat, rounding: Rounding, uniform: Val | None
) -> Val:
    """Round |x| to a code; codes above max_code mean overflow."""
    m = fmt.mantissa_bits
    drop = _MANTISSA - m
    rebias = (127 - fmt.bias) << m
    normal = _shift_right_rounding(magnitude, drop, rounding, uniform) - rebias
    if rebias == 0:
        return normal
    small = magnitude.lt((128 - fmt.bias) << _MANTISSA)
    return small.where(_round_subnormal(magnitude, fmt, rounding, uniform), normal)


def _shift_right_rounding(x: Val, drop: int, rounding: Rounding, uniform: Val | None) -> Val:
    if rounding == "toward_zero":
        return x >> drop
    if rounding == "nearest_even":
        return (x + (((x >> drop) & 1) + ((1 << (drop - 1)) - 1))) >> drop
    assert uniform is not None
    up = uniform.cmp("ult", x << (32 - drop))
    return (x >> drop) + up.zext("i32")


def _round_subnormal(
    magnitude: Val, fmt: ElementFormat, rounding: Rounding, uniform: Val | None
) -> Val:
    """Round |x| below the smallest normal number to a multiple of the smallest subnormal."""
    size = magnitude.bits_as("f32")
    unit = fmt.bias - 1 + fmt.mantissa_bits
    if rounding == "nearest_even":
        anchor = 2.0 ** (_MANTISSA - unit)  # one unit is its last place: the addition rounds
        return (size + anchor).bits_as("i32") - size.like(anchor).bits_as("i32")
    steps = size * 2.0**unit
    whole = steps.unary("trunc")
    code = whole.to_int("i32")
    if rounding == "toward_zero":
        return code
    assert uniform is not None
    return code + _is_below(uniform, steps - whole).zext("i32")


def _is_below(uniform: Val, fraction: Val) -> Val:
    """Whether uniform < fraction x 2^32, where the fraction in [0, 1) may have any bits."""
    limit = (fraction * 2.0**32).unary("ceil")  # at most 2^32 - 256
    return uniform.cmp("ult", limit.to_int("i32", signed=False))


def _encode_integer(x: Val, fmt: ElementFormat, rounding: Rounding, uniform: Val | None) -> Val:
    low, high = -float(fmt.sign_code), float(fmt.sign_code - 1)
    if rounding == "nearest_even":
        whole = x.unary("roundeven")
    elif rounding == "toward_zero":
        whole = x.unary("trunc")
    else:
        assert uniform is not None
        size = x.unary("fabs")
        floor = size.unary("floor")
        up = _is_below(uniform, size - floor)
        whole = (floor + up.where(1.0, 0.0, "f32")).minimum("copysign", x)
    whole = whole.gt(high).where(high, whole)
    whole = whole.lt(low).where(low, whole)
    return whole.to_int("i32") & (fmt.num_codes - 1)


def emit_round(x: Val, fmt: ElementFormat) -> Val:
    """Round float32 to the nearest value of a 16-bit float format, staying in float32."""
    if fmt.name == "bf16":
        if x.fn.isa.has_bf16 and x.lanes in _BF16_LANES:
            return (_bf16_codes(x).zext("i32") << 16).bits_as("f32")
        return x.is_nan().where(x, _cut_to_bf16(x).bits_as("f32"))
    if fmt.name == "fp16" and x.fn.isa.has_half:
        return x.fext("f16").fext("f32")
    return emit_decode(emit_encode(x, fmt, overflow="special"), fmt)


def _cut_to_bf16(x: Val) -> Val:
    """Round numbers to bf16 and leave the lower half empty; NaNs may come out as anything."""
    bits = x.bits_as("i32")
    return (bits + (((bits >> 16) & 1) + 0x7FFF)) & -65536


def _bf16_codes(x: Val) -> Val:
    """Round to codes of bf16 by the instruction, but subnormals, which it takes for zero."""
    fn, lanes = x.fn, x.lanes
    if lanes > 16:
        low, high = (_bf16_codes(x.shuffle(range(i, i + 16))) for i in (0, 16))
        return low.shuffle(range(lanes), high)
    width = 32 * lanes
    made = fn.call(f"llvm.x86.avx512bf16.cvtneps2bf16.{width}", (x,), "bfloat", lanes)
    codes = fn.slot("i16", lanes)
    fn.store(made.bits_as("i16"), codes)
    test = f"llvm.x86.avx512.fpclass.ps.{width}"
    tiny = fn.call(test, (x, fn.const("i32", _SUBNORMAL)), "i1", lanes)
    with fn.if_(tiny.any_lane()):
        rounded = (_cut_to_bf16(x) >> 16).zext("i16")
        fn.store(tiny.where(rounded, fn.load(codes, "i16", lanes)), codes)
    return fn.load(codes, "i16", lanes)

"""Every code of every element format, against `ml_dtypes`, NumPy, or a table written by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from asterope.formats import ELEMENTS, decode, element, encode

REFERENCE = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "int8": np.int8,
    "int4": ml_dtypes.int4,
}
FLOATS = [name for name in REFERENCE if name not in ("e8m0", "int8", "int4")]
E1M2 = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, -0.0, -0.25, -0.5, -0.75, -1, -1.25, -1.5, -1.75]


def bits(x):
    """Return float32 bit patterns with all NaNs made one."""
    return np.where(np.isnan(x), np.uint32(0x7FC0_0000), x.view(np.uint32))


def reference_codes(x, name):
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(REFERENCE[name]).view(element(name).code_dtype)


def probes(name):
    """Return float32 values: all of bf16 and fp16, all ties of the format one ulp around, noise."""
    fmt = element(name)
    bf16 = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
    fp16 = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = np.array([fmt.value(code) for code in range(fmt.max_code + 1)])
    values = np.append(values, 2 * values[-1] - values[-2])
    with np.errstate(over="ignore"):
        ties = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    ties = ties[np.isfinite(ties)]
    around = [ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf))]
    noise = np.random.default_rng(1).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    x = np.concatenate([bf16, fp16, *around, *(-part for part in around), noise.view(np.float32)])
    return x if fmt.has_nan else x[~np.isnan(x)]


def test_every_row_of_the_table_has_a_reference():
    assert set(ELEMENTS) == {*REFERENCE, "e1m2", "fp32"}


@pytest.mark.parametrize("name", REFERENCE)
def test_every_code_decodes_as_in_the_reference(name):
    fmt = element(name)
    codes = np.arange(fmt.num_codes, dtype=fmt.code_dtype)
    expected = codes.view(REFERENCE[name]).astype(np.float32)
    np.testing.assert_array_equal(bits(decode(codes, name)), bits(expected))


def test_e1m2_is_the_sixteen_values_written_here():
    values = np.array(E1M2, np.float32)
    codes = np.arange(16, dtype=np.uint8)
    np.testing.assert_array_equal(bits(decode(codes, "e1m2")), bits(values))
    np.testing.assert_array_equal(encode(values, "e1m2"), codes)


def test_e1m2_rounds_like_a_sign_and_a_number_of_quarters():
    x = probes("e1m2")
    quarters = np.minimum(np.rint(np.abs(x).astype(np.float64) * 4), 7).astype(np.uint8)
    np.testing.assert_array_equal(encode(x, "e1m2"), quarters + 8 * np.signbit(x))


@pytest.mark.parametrize("name", FLOATS)
def test_encode_equals_the_reference_with_special_overflow(name):
    x = probes(name)
    codes, expected = encode(x, name, overflow="special"), reference_codes(x, name)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(codes[finite], expected[finite])
    assert np.isnan(decode(codes[~finite], name)).all()


@pytest.mark.parametrize("name", FLOATS)
def test_encode_equals_the_reference_of_the_clipped_value_when_saturating(name):
    x = probes(name)
    x = x[~np.isnan(x)]
    limit = np.float32(element(name).max_value)
    expected = reference_codes(np.clip(x, -limit, limit), name)
    np.testing.assert_array_equal(encode(x, name), expected)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_integers_round_to_nearest_even_and_saturate_to_the_whole_range(name):
    x = probes(name)
    limit = element(name).sign_code
    expected = np.clip(np.rint(x), -limit, limit - 1).astype(np.int64) % element(name).num_codes
    np.testing.assert_array_equal(encode(x, name), expected)


@pytest.mark.parametrize("name", [*FLOATS, "e1m2", "int8", "int4"])
def test_every_code_survives_decode_and_encode(name):
    fmt = element(name)
    codes = np.arange(fmt.num_codes, dtype=fmt.code_dtype)
    values = decode(codes, name)
    codes = codes[~np.isnan(values)]
    for rounding in ("nearest_even", "toward_zero", "stochastic"):
        again = encode(decode(codes, name), name, rounding=rounding, overflow="special", seed=3)
        np.testing.assert_array_equal(again, codes)

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import FormatError
from asterope.formats import ELEMENTS, decode, element, encode

FIXED = settings(deadline=None, derandomize=True)
NARROW = [name for name, fmt in ELEMENTS.items() if fmt.bits <= 8 and name != "e8m0"]
ENCODABLE = [*NARROW, "fp16", "bf16"]
SIGNED_ZERO = [
    name for name in ENCODABLE if ELEMENTS[name].specials in ("ieee", "nan_only", "finite")
]
VALUES = st.lists(
    st.floats(-1e5, 1e5, width=32) | st.floats(-8, 8, width=32), min_size=1, max_size=40
)


@FIXED
@given(VALUES, st.sampled_from(ENCODABLE), st.sampled_from(["nearest_even", "toward_zero"]))
def test_encode_is_monotonic(values, name, rounding):
    x = np.sort(np.array(values, np.float32))
    assert (np.diff(decode(encode(x, name, rounding=rounding), name)) >= 0).all()


@FIXED
@given(
    VALUES,
    st.sampled_from(SIGNED_ZERO),
    st.sampled_from(["nearest_even", "toward_zero", "stochastic"]),
)
def test_encode_of_the_negative_flips_the_sign_bit_only(values, name, rounding):
    x = np.array(values, np.float32)
    fmt = element(name)
    plus, minus = (encode(v, name, rounding=rounding, seed=1) for v in (x, -x))
    np.testing.assert_array_equal(minus, plus ^ fmt.sign_code)


@FIXED
@given(VALUES, st.sampled_from(NARROW))
def test_nearest_has_no_nearer_neighbour_and_takes_the_even_of_two(values, name):
    fmt = element(name)
    x = np.array(values, np.float32).astype(np.float64)
    codes = encode(x.astype(np.float32), name)
    table = decode(np.arange(fmt.num_codes), name).astype(np.float64)
    finite = np.flatnonzero(np.isfinite(table))
    distances = np.abs(x[:, np.newaxis] - table[finite])
    ours = np.abs(x - table[codes])
    np.testing.assert_array_equal(ours, distances.min(axis=1))
    ties = ((distances == ours[:, np.newaxis]) & (table[finite] != 0)).sum(axis=1) == 2
    assert (codes[ties] % 2 == 0).all()


@FIXED
@given(VALUES, st.sampled_from(ENCODABLE))
def test_toward_zero_never_grows_and_the_next_code_would(values, name):
    fmt = element(name)
    x = np.clip(np.array(values, np.float32), -fmt.max_value, fmt.max_value).astype(np.float32)
    rounded = np.abs(decode(encode(x, name, rounding="toward_zero"), name)).astype(np.float64)
    assert (rounded <= np.abs(x)).all()
    codes = encode(rounded.astype(np.float32), name).astype(int)
    inside = codes < fmt.max_code
    following = np.array([fmt.value(code + 1) for code in codes[inside]])
    assert (following > np.abs(x)[inside]).all()


@pytest.mark.parametrize("name", SIGNED_ZERO)
def test_zero_keeps_its_sign(name):
    codes = encode(np.array([0.0, -0.0], np.float32), name)
    assert codes.tolist() == [0, element(name).sign_code]
    assert np.signbit(decode(codes, name)).tolist() == [False, True]


@pytest.mark.parametrize("name", ["e4m3fnuz", "e5m2fnuz", "int8", "int4"])
def test_negative_zero_becomes_zero_where_there_is_one_zero(name):
    tiny = np.array([-0.0, -1e-30], np.float32)
    assert encode(tiny, name).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "saturate", "special"),
    [
        ("fp16", 65504, np.inf),
        ("bf16", element("bf16").max_value, np.inf),
        ("e4m3", 448, np.nan),
        ("e5m2", 57344, np.inf),
        ("e4m3fnuz", 240, np.nan),
        ("e2m3", 7.5, 7.5),
        ("e2m1", 6, 6),
        ("e1m2", 1.75, 1.75),
        ("int4", 7, 7),
    ],
)
@pytest.mark.parametrize("rounding", ["nearest_even", "toward_zero", "stochastic"])
def test_infinity_saturates_or_becomes_special(name, saturate, special, rounding):
    x = np.array([np.inf, -np.inf], np.float32)
    low = -8 if name == "int4" else -saturate
    saturated = decode(encode(x, name, rounding=rounding, seed=0), name)
    assert saturated.tolist() == [saturate, low]
    kept = decode(encode(x, name, overflow="special", rounding=rounding, seed=0), name)
    np.testing.assert_array_equal(
        np.abs(kept), np.abs(np.float32([special, low if name == "int4" else special]))
    )


def test_special_overflow_starts_half_a_step_past_the_maximum():
    x = np.array([464, 464.001, 61439, 61440], np.float32)
    assert decode(encode(x[:1], "e4m3", overflow="special"), "e4m3").tolist() == [448]
    assert np.isnan(decode(encode(x[1:2], "e4m3", overflow="special"), "e4m3")).all()
    assert decode(encode(x[2:], "e5m2", overflow="special"), "e5m2").tolist() == [57344, np.inf]


def test_toward_zero_keeps_finite_values_finite():
    x = np.array([1e30, -1e30], np.float32)
    kept = decode(encode(x, "e5m2", rounding="toward_zero", overflow="special"), "e5m2")
    assert kept.tolist() == [57344, -57344]
    assert decode(encode(x, "int8", rounding="toward_zero"), "int8").tolist() == [127, -128]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bit_input_encodes_as_its_float32_value(dtype):
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    np.testing.assert_array_equal(encode(x, "e4m3"), encode(x.astype(np.float32), "e4m3"))


def test_fp32_passes_every_bit_through():
    patterns = np.random.default_rng(0).integers(0, 1 << 32, 1000, dtype=np.uint32)
    patterns[:3] = 0x7F800001, 0xFFC12345, 0xFF800000
    assert encode(decode(patterns, "fp32"), "fp32").tolist() == patterns.tolist()


def test_scalars_and_empty_arrays_keep_their_shape():
    assert encode(np.float32(1.5), "e2m1").shape == ()
    assert decode(encode(np.zeros((0, 3), np.float32), "e4m3"), "e4m3").shape == (0, 3)


def test_nan_in_a_format_without_nan_names_the_first_place():
    x = np.zeros((2, 3), np.float32)
    x[1, 2] = np.nan
    with pytest.raises(FormatError, match=r"e2m1 x\[1, 2\]: the value is NaN") as error:
        encode(x, "e2m1")
    assert "marks the scale" in error.value.hint


def test_nan_keeps_its_sign_and_becomes_quiet():
    x = np.array([0x7F800001, 0xFF800001], np.uint32).view(np.float32)
    assert encode(x, "bf16").tolist() == [0x7FC0, 0xFFC0]
    assert encode(x, "e4m3").tolist() == [0x7F, 0xFF]
    assert encode(x, "e5m2").tolist() == [0x7E, 0xFE]
    assert encode(x, "e4m3fnuz").tolist() == [0x80, 0x80]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "up"}, "rounding: there is no rounding named 'up'"),
        ({"rounding": "stochastic"}, "seed: stochastic rounding needs a seed"),
        ({"rounding": "stochastic", "seed": -1}, r"seed: seed -1 is outside 0\.\.4294967295"),
        ({"overflow": "wrap"}, "overflow: there is no overflow mode named 'wrap'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(FormatError, match=message):
        encode(np.zeros(2, np.float32), "e4m3", **options)


def test_float64_is_refused_because_it_would_round_twice():
    with pytest.raises(FormatError, match="x: values are float64; float32, float16 or bfloat16"):
        encode(np.zeros(2), "e4m3")


def test_e8m0_is_not_rounded_to_nearest():
    with pytest.raises(FormatError, match="e8m0: a scale is not rounded to nearest"):
        encode(np.ones(2, np.float32), "e8m0")


@pytest.mark.parametrize("codes", [np.array([3, 16]), np.array([3, -1])])
def test_decode_names_the_code_that_does_not_exist(codes):
    with pytest.raises(FormatError, match=rf"e2m1 codes\[1\]: code {codes[1]} is outside 0\.\.15"):
        decode(codes, "e2m1")


def test_decode_of_numbers_that_are_not_codes_is_refused():
    with pytest.raises(FormatError, match="e2m1: codes are float32; integers are needed"):
        decode(np.zeros(2, np.float32), "e2m1")

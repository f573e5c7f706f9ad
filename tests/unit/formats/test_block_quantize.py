from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import FormatError, ShapeError
from asterope.formats import (
    BLOCKS,
    MIN_GLOBAL_SCALE,
    block,
    block_sizes,
    decode,
    dequantize,
    element,
    quantize,
)

FIXED = settings(deadline=None, derandomize=True)
MX = [name for name, fmt in BLOCKS.items() if fmt.scale.name == "e8m0"]
FORMAT_RULES = [(name, rule) for name, fmt in BLOCKS.items() for rule in fmt.rules]
MX_RULES = [(name, rule) for name, rule in FORMAT_RULES if name in MX]
SEEDS = st.integers(0, 2**32 - 1)


def noise(seed, shape=(4, 64), spread=6):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-spread, spread, shape))
    x[rng.random(shape) < 0.05] = 0
    return x.astype(np.float32)


def element_scales(q):
    """Return scale x global scale of every element, in float64."""
    scales = q.scales if q.scales.dtype == np.float32 else decode(q.scales, q.format.scale)
    scales = scales.astype(np.float64) * (1 if q.global_scale is None else float(q.global_scale))
    for axis, size in enumerate(block_sizes(q.format, q.shape, q.axis)):
        scales = np.repeat(scales, size, axis=axis)
    return scales[tuple(slice(n) for n in q.shape)]


@FIXED
@given(SEEDS, st.sampled_from(FORMAT_RULES))
def test_dequantized_value_is_the_nearest_that_the_scale_allows(seed, format_rule):
    name, rule = format_rule
    x = noise(seed)
    q = quantize(x, name, rule=rule)
    table = decode(np.arange(q.format.element.num_codes), q.format.element).astype(np.float64)
    candidates = table[np.isfinite(table)] * element_scales(q)[..., np.newaxis]
    best = np.abs(x[..., np.newaxis] - candidates).min(axis=-1)
    error = np.abs(dequantize(q) - x.astype(np.float64))
    assert (error <= best + np.abs(x) * 2.0**-21).all()


@FIXED
@given(SEEDS, st.sampled_from(MX))
def test_rceil_error_is_at_most_half_a_step_of_the_scaled_element(seed, name):
    fmt = block(name).element
    x = noise(seed)
    q = quantize(x, name, rule="rceil")
    scale = element_scales(q)
    binade = np.maximum(np.floor(np.log2(np.maximum(np.abs(x / scale), 1e-30))), 1 - fmt.bias)
    half_step = 2.0 ** (binade - fmt.mantissa_bits) / 2 * scale
    assert (np.abs(dequantize(q) - x.astype(np.float64)) <= half_step).all()


@FIXED
@given(SEEDS, st.sampled_from(FORMAT_RULES))
def test_no_dequantized_value_exceeds_the_maximum_times_the_scale(seed, format_rule):
    name, rule = format_rule
    q = quantize(noise(seed), name, rule=rule)
    limit = q.format.element.max_value * element_scales(q)
    assert (np.abs(dequantize(q)) <= limit * (1 + 2.0**-22)).all()


@FIXED
@given(SEEDS, st.sampled_from(MX_RULES))
def test_quantizing_a_dequantized_mx_tensor_changes_no_value(seed, format_rule):
    name, rule = format_rule
    once = dequantize(quantize(noise(seed), name, rule=rule))
    np.testing.assert_array_equal(dequantize(quantize(once, name, rule=rule)), once)


@FIXED
@given(SEEDS, st.sampled_from([n for n in BLOCKS if n not in MX]))
def test_quantizing_a_dequantized_tensor_changes_no_code(seed, name):
    once = quantize(noise(seed, spread=2), name)
    np.testing.assert_array_equal(quantize(dequantize(once), name).codes, once.codes)


@FIXED
@given(SEEDS, st.sampled_from(FORMAT_RULES), st.sampled_from(["nearest_even", "stochastic"]))
def test_the_negative_has_the_same_scales_and_flipped_signs(seed, format_rule, rounding):
    name, rule = format_rule
    x = noise(seed)
    plus, minus = (quantize(v, name, rule=rule, rounding=rounding, seed=1) for v in (x, -x))
    np.testing.assert_array_equal(minus.scales, plus.scales)
    np.testing.assert_array_equal(minus.codes, plus.codes ^ plus.format.element.sign_code)


@FIXED
@given(SEEDS, st.sampled_from(MX_RULES), st.integers(-20, 20))
def test_a_power_of_two_moves_e8m0_scales_and_no_code(seed, format_rule, exponent):
    name, rule = format_rule
    x = noise(seed)
    x[:, ::32] = 1
    one, other = (quantize(v, name, rule=rule) for v in (x, x * np.float32(2.0**exponent)))
    np.testing.assert_array_equal(other.codes, one.codes)
    np.testing.assert_array_equal(other.scales.astype(int) - one.scales, exponent)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mxfp4", (2, 3, 4)),
        ("nvfp4", (2, 3, 8)),
        ("fp8_row", (2, 3, 1)),
        ("fp8_tensor", (1, 1, 1)),
        ("fp8_block128", (2, 1, 1)),
    ],
)
def test_scales_have_as_many_axes_as_the_tensor(name, shape):
    q = quantize(noise(0, (2, 3, 128)), name)
    assert q.scales.shape == shape
    assert q.codes.shape == q.shape == dequantize(q).shape == (2, 3, 128)


@pytest.mark.parametrize("name", ["mxfp8", "nvfp4", "fp8_row", "fp8_tensor"])
def test_another_axis_is_the_transpose(name):
    x = noise(3, (64, 96))
    along, across = quantize(x, name, axis=0), quantize(np.ascontiguousarray(x.T), name)
    np.testing.assert_array_equal(along.codes, across.codes.T)
    np.testing.assert_array_equal(along.scales, across.scales.T)
    np.testing.assert_array_equal(dequantize(along), dequantize(across).T)
    assert (along.axis, across.axis) == (0, 1)


def test_two_dimensional_blocks_may_be_partial_at_the_end():
    x = noise(5, (200, 130))
    q = quantize(x, "fp8_block128")
    assert q.scales.shape == (2, 2)
    corner = quantize(x[128:, 128:], "fp8_tensor")
    assert q.scales[1, 1] == corner.scales[0, 0]
    np.testing.assert_array_equal(q.codes[128:, 128:], corner.codes)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", BLOCKS)
def test_sixteen_bit_input_quantizes_as_its_float32_value(name, dtype):
    x = noise(6).astype(dtype)
    narrow, wide = quantize(x, name), quantize(x.astype(np.float32), name)
    np.testing.assert_array_equal(narrow.codes, wide.codes)
    np.testing.assert_array_equal(narrow.scales, wide.scales)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "rule"), FORMAT_RULES)
def test_a_block_with_nan_or_infinity_is_nan_and_the_others_are_untouched(name, rule, bad):
    x = noise(7)
    x[3] = 1e-3 * x[3]
    clean = quantize(x, name, rule=rule)
    x[3, 40] = bad
    q = quantize(x, name, rule=rule)
    lost = np.isnan(dequantize(q))
    sizes = block_sizes(name, x.shape)
    inside = tuple(slice(p // s * s, p // s * s + s) for p, s in zip((3, 40), sizes, strict=True))
    assert lost[inside].all()
    assert lost.sum() == lost[inside].size
    assert (q.codes[inside] == 0).all()
    np.testing.assert_array_equal(q.codes[~lost], clean.codes[~lost])
    if element(q.format.scale).bits == 8:
        assert q.scales[np.isnan(decode(q.scales, q.format.scale))] == q.format.scale.nan_code


@pytest.mark.parametrize(("name", "rule"), FORMAT_RULES)
def test_zeros_stay_zero_with_their_sign_and_a_finite_scale(name, rule):
    x = np.zeros((2, 32), np.float32)
    x[1] = -0.0
    q = quantize(x, name, rule=rule)
    assert set(q.codes.ravel()) == {0, q.format.element.sign_code}
    np.testing.assert_array_equal(np.signbit(dequantize(q)), np.signbit(x))
    assert (dequantize(q) == 0).all()


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-38, 1e-33, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize(("name", "rule"), FORMAT_RULES)
def test_tiny_and_huge_tensors_keep_their_nearest_value(name, rule, size):
    x = noise(8, spread=1) * np.float32(size)
    q = quantize(x, name, rule=rule)
    largest = element_scales(q) * q.format.element.max_value
    step = element_scales(q) * q.format.element.max_value * 0.34
    error = np.abs(dequantize(q).astype(np.float64) - x)
    assert (error <= np.maximum(np.abs(x) - largest, step)).all()


def test_values_past_float32_become_infinity():
    x = np.full((1, 32), 3.4e38, np.float32)
    assert np.isinf(dequantize(quantize(x, "mxfp4", rule="rceil"))).all()
    assert np.isfinite(dequantize(quantize(x, "mxfp4", rule="floor"))).all()


def test_a_given_global_scale_is_kept_and_larger_blocks_saturate():
    x = np.ones((2, 16), np.float32)
    x[1] *= 8
    q = quantize(x, "nvfp4", global_scale=1 / 2688)
    assert q.global_scale == np.float32(1 / 2688)
    np.testing.assert_allclose(dequantize(q), 1, rtol=1e-6)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, 1e39, MIN_GLOBAL_SCALE / 2])
def test_a_global_scale_outside_its_limits_is_refused(value):
    with pytest.raises(FormatError, match=r"global_scale: .* is outside 6\.02e-36\.\.3\.4e\+38"):
        quantize(noise(0), "nvfp4", global_scale=value)


@pytest.mark.parametrize(("name", "rule"), [("mxfp4", "even"), ("nvfp4", "amax")])
def test_a_global_scale_without_two_levels_is_refused(name, rule):
    with pytest.raises(FormatError, match=f"global_scale: scale rule '{rule}' has no global scale"):
        quantize(noise(0), name, rule=rule, global_scale=1.0)


def test_stochastic_rounding_is_unbiased_and_repeats_with_its_seed():
    x = np.full((1000, 32), 0.3, np.float32)
    x[:, 0] = 6
    options = {"rule": "floor", "rounding": "stochastic"}
    q = quantize(x, "mxfp4", seed=4, **options)
    mean = dequantize(q)[:, 1:].mean(dtype=np.float64)
    assert abs(mean - 0.3) < 4 * np.sqrt(0.3 * 0.2 / 31_000)
    np.testing.assert_array_equal(q.codes, quantize(x, "mxfp4", seed=4, **options).codes)
    assert (q.rounding, q.seed) == ("stochastic", 4)


def test_the_result_records_how_it_was_made_and_is_frozen():
    q = quantize(noise(0), "mxfp4", rule="floor")
    assert (q.format.name, q.rule, q.rounding, q.axis) == ("mxfp4", "floor", "nearest_even", 1)
    assert quantize(noise(0), "mxfp4").rule == BLOCKS["mxfp4"].default_rule
    with pytest.raises(dataclasses.FrozenInstanceError):
        q.rule = "even"


def test_a_block_that_does_not_divide_names_k_the_block_and_the_nearest_sizes():
    with pytest.raises(ShapeError) as error:
        quantize(noise(0, (2, 50)), "mxfp4")
    text = str(error.value)
    assert "mxfp4: blocks of 32 do not divide K = 50 (axis 1 of shape [2, 50])" in text
    assert "hint: the nearest K: 32 or 64" in text


def test_the_nearest_size_to_a_short_axis_is_one_block():
    with pytest.raises(ShapeError, match="the nearest K: 16; or"):
        quantize(noise(0, (2, 5)), "nvfp4")


@pytest.mark.parametrize(
    ("name", "shape", "axis", "message"),
    [
        ("mxfp4", (), -1, r"a tensor of shape \[\] has no blocks"),
        ("mxfp4", (0, 32), -1, r"a tensor of shape \[0, 32\] has no blocks"),
        ("mxfp4", (2, 32), 2, r"axis 2 does not exist in shape \[2, 32\]"),
        ("fp8_block128", (128,), -1, r"blocks of 128 x 128 need two axes or more"),
        ("fp8_block128", (128, 128), 0, r"got shape \[128, 128\], axis 0"),
    ],
)
def test_shapes_without_blocks_are_refused(name, shape, axis, message):
    with pytest.raises(ShapeError, match=f"{name}: .*{message}"):
        quantize(np.zeros(shape, np.float32), name, axis=axis)


@pytest.mark.parametrize(
    ("name", "rule", "allowed"),
    [("mxfp4", "two_level", "even, floor, rceil"), ("nvfp4", "floor", "two_level, amax")],
)
def test_a_rule_that_does_not_apply_gets_the_list(name, rule, allowed):
    with pytest.raises(FormatError) as error:
        quantize(noise(0), name, rule=rule)
    assert error.value.what == f"scale rule '{rule}' does not apply to {name}"
    assert error.value.hint == f"use one of {allowed}"


def test_float64_values_are_refused():
    with pytest.raises(FormatError, match="x: values are float64"):
        quantize(np.zeros((2, 32)), "mxfp4")

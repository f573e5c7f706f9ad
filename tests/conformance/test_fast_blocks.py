"""Block quantization in machine code against the definition, byte for byte."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np
import pytest
from block_samples import block_samples
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.errors import FormatError, ShapeError
from asterope.formats import (
    BLOCKS,
    ELEMENTS,
    BlockFormat,
    QuantizedTensor,
    ScaleRule,
    block,
    dequantize,
    pack,
    quantize,
    reference_dequantize,
    reference_quantize,
)
from isas import EACH_ISA

FIXED = settings(deadline=None, derandomize=True)
FORMAT_RULES = [(name, rule) for name, fmt in BLOCKS.items() for rule in fmt.rules]
ROUNDINGS = ["nearest_even", "toward_zero", "stochastic"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SEED = 5


@functools.cache
def samples(dtype):
    """Return the shared samples, and blocks with NaN, infinity, any bits, or only subnormals."""
    x = block_samples("float32")[:1160].copy()
    x[1000:1010, 3], x[1010:1020, 40], x[1020:1030, 77] = np.nan, np.inf, -np.inf
    x[1030:1040, :4] = -np.nan
    rng = np.random.default_rng(3)
    x.view(np.uint32)[1040:1100] = rng.integers(0, 1 << 32, (60, 128), dtype=np.uint32)
    x.view(np.uint32)[1100:1160] = rng.integers(0, 1 << 23, (60, 128), dtype=np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(DTYPES[dtype])


def assert_same(a, b):
    assert (a.dtype, a.shape, a.flags.c_contiguous) == (b.dtype, b.shape, True)
    unsigned = f"u{a.dtype.itemsize}"
    np.testing.assert_array_equal(a.view(unsigned), b.view(unsigned))


def assert_same_quantized(x, fmt, **options):
    """Quantize both ways, compare everything, dequantize both ways, compare all bits."""
    fast, defined = quantize(x, fmt, **options), reference_quantize(x, fmt, **options)
    assert_same(fast.scales, defined.scales)
    assert_same(fast.codes, defined.codes)
    for field in ("global_scale", "format", "rule", "rounding", "axis", "seed", "packed", "shape"):
        assert getattr(fast, field) == getattr(defined, field)
    assert_same(dequantize(fast), reference_dequantize(defined))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("name", "rule"), FORMAT_RULES)
def test_every_format_rule_and_rounding_equals_the_definition(name, rule, rounding, dtype):
    x = samples(dtype)
    assert_same_quantized(x[::2], name, rule=rule, rounding=rounding, seed=SEED)
    assert_same_quantized(x[-300:], name, rule=rule, rounding=rounding, seed=SEED, packed=True)


@pytest.mark.parametrize("isa", EACH_ISA[1:])
@pytest.mark.parametrize(("name", "rule"), FORMAT_RULES)
def test_every_instruction_set_gives_the_same_bytes(monkeypatch, name, rule, isa):
    monkeypatch.setenv("ASTEROPE_ISA", isa)
    for rounding, dtype in zip(ROUNDINGS, DTYPES, strict=True):
        x = samples(dtype)[-300:]
        assert_same_quantized(x, name, rule=rule, rounding=rounding, seed=SEED, packed=True)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_bytes_do_not_depend_on_the_number_of_threads(monkeypatch, name):
    x = np.random.default_rng(8).standard_normal((1024, 384)).astype(np.float32)
    x[511, 100] = np.inf
    results = []
    for num_threads in ("1", "2", "3"):
        monkeypatch.setenv("ASTEROPE_NUM_THREADS", num_threads)
        q = quantize(x, name, rounding="stochastic", seed=SEED)
        results.append((q.codes.tobytes(), q.scales.tobytes(), dequantize(q).tobytes()))
    assert results[0] == results[1] == results[2]
    assert (
        results[0][0] == reference_quantize(x, name, rounding="stochastic", seed=5).codes.tobytes()
    )


@pytest.mark.parametrize("axis", [0, 1, -3, -1])
@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
@pytest.mark.parametrize("name", [n for n in BLOCKS if n != "fp8_block128"])
def test_every_axis_equals_the_definition(name, rounding, axis):
    x = np.random.default_rng(9).standard_normal((32, 64, 96)).astype(np.float32)
    assert_same_quantized(x, name, axis=axis, rounding=rounding, seed=SEED)


@pytest.mark.parametrize("shape", [(200, 130), (3, 129, 257), (1, 5000), (4100, 1), (2, 2, 128, 9)])
@pytest.mark.parametrize("name", ["fp8_tensor", "fp8_row", "fp8_block128"])
def test_rows_of_any_length_equal_the_definition(name, shape):
    x = np.random.default_rng(10).standard_normal(shape).astype(np.float32)
    x[..., -1:] *= 50
    assert_same_quantized(x, name)
    assert_same_quantized(x, name, rounding="stochastic", seed=SEED)
    x[0] = np.nan
    assert_same_quantized(x, name)


@settings(FIXED, max_examples=60)
@given(
    st.sampled_from(FORMAT_RULES),
    st.sampled_from(ROUNDINGS),
    st.sampled_from(sorted(DTYPES)),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_any_bits_equal_the_definition(format_rule, rounding, dtype, columns, rows, seed, packed):
    name, rule = format_rule
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 1 << 32, (rows + 128, 32 * columns), dtype=np.uint32)
    # The exponents of a row stay close, or most elements would be zero.
    patterns = patterns & 0x87FF_FFFF | rng.integers(0, 16, (rows + 128, 1), dtype=np.uint32) << 27
    with np.errstate(over="ignore", invalid="ignore"):
        x = patterns.view(np.float32).astype(DTYPES[dtype])
    assert_same_quantized(x, name, rule=rule, rounding=rounding, seed=seed, packed=packed)


@settings(FIXED, max_examples=30)
@given(st.floats(2.0**-117, 2.0**127, width=32), st.sampled_from(ROUNDINGS))
def test_any_global_scale_equals_the_definition(global_scale, rounding):
    x = samples("float32")[::8]
    options = {"global_scale": global_scale, "rounding": rounding, "seed": SEED}
    assert_same_quantized(x, "nvfp4", packed=True, **options)


@pytest.mark.parametrize(
    ("element", "scale", "granularity", "rule"),
    [
        ("int8", "e8m0", 32, "rceil"),
        ("int8", "e8m0", 64, "even"),
        ("e4m3fnuz", "e8m0", 16, "floor"),
        ("int4", "fp32", 128, "amax"),
        ("e2m1", "fp32", "row", "amax"),
        ("e5m2", "fp32", (32, 64), "amax"),
        ("e2m1", "e8m0", 128, "floor"),
        ("e2m1", "e8m0", "row", "even"),
    ],
)
def test_block_formats_outside_the_table_equal_the_definition(element, scale, granularity, rule):
    fmt = BlockFormat(
        name="mine",
        element=ELEMENTS[element],
        scale=ELEMENTS[scale],
        granularity=granularity,
        rules=(ScaleRule(rule),),
    )
    x = np.random.default_rng(11).standard_normal((64, 256)).astype(np.float32)
    assert_same_quantized(x, fmt)
    assert_same_quantized(x, fmt, packed=True, rounding="stochastic", seed=SEED)


def test_a_rule_that_gives_no_power_of_two_is_refused_in_large_tensors_too():
    fmt = BlockFormat(
        name="mine",
        element=ELEMENTS["e2m1"],
        scale=ELEMENTS["e8m0"],
        granularity=32,
        rules=(ScaleRule.AMAX,),
    )
    with pytest.raises(FormatError, match="rule: rule 'amax' does not give an E8M0 scale"):
        quantize(np.ones((64, 128), np.float32), fmt)


# -- packed codes ---------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(2, 64), (65, 64)])
@pytest.mark.parametrize("name", ["mxfp8", "mxfp6", "mxfp6_e3m2", "mxfp4", "nvfp4", "fp8_row"])
def test_packed_codes_are_the_codes_packed(name, shape):
    x = np.random.default_rng(12).standard_normal(shape).astype(np.float32)
    plain, packed = quantize(x, name), quantize(x, name, packed=True)
    np.testing.assert_array_equal(packed.codes, pack(plain.codes, block(name).element))
    assert packed.shape == plain.shape == x.shape
    np.testing.assert_array_equal(dequantize(packed), dequantize(plain))


def test_packed_codes_need_the_last_axis():
    with pytest.raises(
        ShapeError, match=r"mxfp4: packed codes run along the last axis, and axis 0"
    ):
        quantize(np.ones((32, 32), np.float32), "mxfp4", axis=0, packed=True)


def test_packed_codes_must_fill_whole_bytes():
    fmt = BlockFormat(
        name="mine",
        element=ELEMENTS["int4"],
        scale=ELEMENTS["fp32"],
        granularity="row",
        rules=(ScaleRule.AMAX,),
    )
    with pytest.raises(ShapeError, match="mine: 5 codes of 4 bits do not fill whole bytes"):
        quantize(np.ones((2, 5), np.float32), fmt, packed=True)


# -- errors in large tensors ----------------------------------------------------------------------
def with_fields(q, **fields):
    names = QuantizedTensor.__dataclass_fields__
    return QuantizedTensor(**{name: getattr(q, name) for name in names} | fields)


@pytest.mark.parametrize("rows", [2, 200])
def test_scales_that_do_not_fit_the_codes_are_refused(rows):
    q = quantize(np.ones((rows, 64), np.float32), "mxfp4")
    message = (
        rf"mxfp4: scales are \[{rows}, 1\]; a tensor of shape \[{rows}, 64\] has \[{rows}, 2\]"
    )
    with pytest.raises(ShapeError, match=message):
        dequantize(with_fields(q, scales=q.scales[:, :1]))


@pytest.mark.parametrize("name", ["mxfp4", "mxfp6", "nvfp4"])
def test_a_code_the_format_does_not_have_is_named_by_its_place(name):
    q = quantize(np.ones((200, 64), np.float32), name)
    codes = q.codes.copy()
    codes[150, 33] = 255
    with pytest.raises(FormatError, match=r"codes\[150, 33\]: code 255 is outside"):
        dequantize(with_fields(q, codes=codes))


def test_a_large_tensor_of_float64_is_refused():
    with pytest.raises(FormatError, match="x: values are float64"):
        quantize(np.ones((200, 64)), "mxfp4")


def test_a_seed_outside_32_bits_is_refused_before_any_work():
    with pytest.raises(FormatError, match="seed: seed 4294967296 is outside"):
        quantize(np.ones((200, 64), np.float32), "mxfp4", rounding="stochastic", seed=1 << 32)

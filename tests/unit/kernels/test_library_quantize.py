"""`quantize_rows` gives the very bytes of `formats.quantize`; block sizes make sense."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asterope.chips import maia200
from asterope.errors import FormatError, ShapeError
from asterope.formats import block, decode, encode, quantize, unpack
from asterope.kernels import ACTIVATION_FORMATS, choose_blocks, linear, quantize_rows
from asterope.runtime import simulate
from library_kernels import random

NUMPY = {
    torch.float32: lambda t: t.numpy(),
    torch.float16: lambda t: t.numpy(),
    torch.bfloat16: lambda t: t.view(torch.uint16).numpy().view(ml_dtypes.bfloat16),
}
RULES = [
    (fmt, rule)
    for fmt in ACTIVATION_FORMATS
    for rule in (block("fp8_row" if fmt == "fp8" else fmt).rules)
]


def expected(row, fmt, rule):
    """Quantize one row by the definition: codes as the kernel stores them, scales, row scale."""
    q = quantize(row, "fp8_row" if fmt == "fp8" else fmt, rule=rule)
    codes = np.asarray(q.codes)
    element = q.format.element.name
    if element not in ("e2m1", "e4m3"):  # stored as the e4m3 codes of the same numbers
        codes = encode(decode(codes, element), "e4m3")
    return codes[0], np.asarray(q.scales)[0], q.global_scale


def codes_of(operand, i):
    """Return the codes of a row, one a byte."""
    codes = operand.codes[i].view(torch.uint8).numpy()
    return unpack(codes, "e2m1", operand.shape[1]) if operand.format == "e2m1" else codes


def assert_same_bytes(x, fmt, rule):
    """Codes are compared where the scale is a number: times NaN they are all the same."""
    got = quantize_rows(x, fmt, rule)
    rows = NUMPY[x.dtype](x)
    for i in range(len(rows)):
        codes, scales, upper = expected(rows[i : i + 1], fmt, rule)
        if fmt == "fp8":
            found, numbers = got.row_scale[i : i + 1].numpy(), np.isfinite(scales)
        else:
            found = got.scales[i].view(torch.uint8).numpy()
            numbers = scales != (0x7F if fmt == "nvfp4" else 0xFF)
        assert found.tobytes() == scales.tobytes(), f"scales of row {i}"
        where = np.repeat(numbers, len(codes) // len(scales))
        assert (codes_of(got, i) == codes)[where].all(), f"codes of row {i}"
        if upper is not None:
            assert got.row_scale[i].item() == float(upper)


def special_rows():
    """Zeros, single values, exact ties, subnormals, the largest, NaN and infinity."""
    tiny, most = 2.0**-149, float(np.finfo(np.float32).max)
    rows = [
        [0.0] * 32, [-0.0] * 32, [tiny] * 32, [most] * 32, [-most, tiny] * 16,
        [2.0**-126, 2.0**-127] * 16, [448.0, 1.0] * 16, [6.0, 0.25, 0.75, 1.25] * 8,
        [6.0, 1.75, 2.5, 3.5] * 8, [5.0, -5.0, 0.249, 0.251] * 8, [7.0, 7.5, 7.75, 4.0] * 8,
        [np.nan] + [1.0] * 31, [np.inf] + [1.0] * 31, [-np.inf, np.nan] * 16,
        [1.9375, 1.8125, 0.0625, 0.1875] * 8, [2.0**k for k in range(-16, 16)],
    ]  # fmt: skip
    return torch.tensor(rows, dtype=torch.float32).repeat(1, 3)


@pytest.mark.parametrize(("fmt", "rule"), RULES)
def test_rows_give_the_bytes_of_the_definition(fmt, rule):
    x = special_rows()
    if fmt == "fp8":  # NaN and infinity have a test of their own
        x = x[x.isfinite().all(1)]
    if fmt == "mxfp4_e1m2":  # its scale of a subnormal block may be the next one
        x = x[~((x != 0) & (x.abs() < 2.0**-126)).any(1)]
    assert_same_bytes(x, fmt, rule)
    ordinary = random(12, 96) * torch.logspace(-6, 4, 12)[:, None]
    assert_same_bytes(ordinary, fmt, rule)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fmt", ACTIVATION_FORMATS)
def test_half_precision_rows_give_the_bytes_of_the_definition(fmt, dtype):
    assert_same_bytes((random(6, 96) * torch.logspace(-4, 3, 6)[:, None]).to(dtype), fmt, None)


def test_a_row_with_nan_keeps_it_in_its_block():
    x = random(2, 96)
    x[1, 40] = torch.nan
    q = quantize_rows(x, "mxfp8")
    assert (q.scales == 255).tolist() == [[False] * 3, [False, True, False]]


def test_fp8_of_nan_and_infinity_is_what_the_definition_says():
    x = random(2, 64)
    x[0, 3], x[1, 5] = torch.nan, torch.inf
    assert_same_bytes(x, "fp8", None)


def test_rows_of_a_wider_matrix_are_quantized_alike():
    wide = random(7, 500)
    for fmt in ("fp8", "mxfp4", "nvfp4"):
        a, b = quantize_rows(wide[:, 100:196], fmt), quantize_rows(wide[:, 100:196].clone(), fmt)
        assert torch.equal(a.codes.view(torch.uint8), b.codes.view(torch.uint8))


@pytest.mark.parametrize("fmt", ACTIVATION_FORMATS)
def test_no_rows_are_no_codes(fmt):
    q = quantize_rows(torch.zeros(0, 64), fmt)
    assert q.shape == (0, 64)


# -- errors ----------------------------------------------------------------------------------------
def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(FormatError, match="int4") as caught:
        quantize_rows(torch.zeros(2, 64), "int4")
    assert "mxfp4" in caught.value.hint
    assert "nvfp4" in caught.value.hint


@pytest.mark.parametrize(("fmt", "rule"), [("mxfp4", "amax"), ("nvfp4", "floor"), ("fp8", "even")])
def test_a_rule_of_another_format_is_refused(fmt, rule):
    with pytest.raises(FormatError, match=rule) as caught:
        quantize_rows(torch.zeros(2, 64), fmt, rule)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fmt", "k", "size"), [("mxfp4", 48, 32), ("nvfp4", 40, 16), ("mxfp8", 1, 32)]
)
def test_a_block_that_does_not_divide_the_row_is_refused(fmt, k, size):
    with pytest.raises(ShapeError) as caught:
        quantize_rows(torch.zeros(2, k), fmt)
    assert f"blocks of {size} do not divide K = {k}" in str(caught.value)
    assert caught.value.where == fmt


@pytest.mark.parametrize("x", [torch.zeros(64), torch.zeros(2, 2, 64), torch.zeros(64, 32).T])
def test_anything_but_contiguous_rows_is_refused(x):
    with pytest.raises(ShapeError) as caught:
        quantize_rows(x, "mxfp8")
    assert "contiguous" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.float8_e4m3fn])
def test_a_type_that_cannot_be_quantized_is_refused(dtype):
    with pytest.raises((FormatError, ShapeError)) as caught:
        quantize_rows(torch.zeros(2, 64).to(dtype), "mxfp8")
    assert str(dtype).removeprefix("torch.") in str(caught.value)


# -- block sizes -----------------------------------------------------------------------------------
SIZES = st.integers(1, 200_000)


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(SIZES, SIZES, SIZES, st.sampled_from([4, 8, 16, 32]), st.sampled_from([4, 8, 16, 32]),
       st.sampled_from([16, 32]))  # fmt: skip
def test_blocks_are_powers_of_two_that_fit(m, n, k, a_bits, b_bits, k_step):
    chosen = choose_blocks(m, n, k, a_bits, b_bits, k_step)
    for size in (chosen.m, chosen.n, chosen.k, chosen.group):
        assert size & (size - 1) == 0
        assert size > 0
    assert chosen.m < 2 * m
    assert chosen.n < 2 * max(n, 16)
    assert chosen.k % k_step == 0
    assert chosen.stages >= 2
    operands = chosen.k * (chosen.m * a_bits + chosen.n * b_bits) // 8 * chosen.stages
    scales = 2 * operands // 16
    accumulator = 2 * chosen.m * chosen.n * 4
    assert operands + scales + accumulator <= maia200().tile.tsram.capacity_bytes


def test_decode_takes_few_rows_and_prefill_large_blocks():
    decode_step = choose_blocks(1, 8192, 8192, 16, 8)
    assert decode_step.m == 1
    assert choose_blocks(16, 8192, 8192, 16, 8).m == 16
    prefill = choose_blocks(8192, 8192, 8192, 8, 8)
    assert prefill.m * prefill.n >= 128 * 128


def test_the_same_question_has_the_same_answer():
    assert choose_blocks(77, 1000, 4096, 8, 4) == choose_blocks(77, 1000, 4096, 8, 4)


def product_s(m, n, k, dtype):
    """Time a product on the tiles."""
    x, weight = (torch.empty(rows, k, dtype=dtype, device="meta") for rows in (m, n))
    with simulate(maia200(), values=False) as timeline:
        linear(x, weight, out_dtype=torch.bfloat16)
    return timeline.time_s


def test_more_rows_never_take_a_tenth_less_time():
    """Blocks are chosen by a closed form, which may miss the best, but not by much."""
    longest = 0.0
    for m in (1, 16, 17, 96, 192, 288, 384, 512, 513, 640):
        time_s = product_s(m, 4096, 4096, torch.bfloat16)
        assert time_s > 0.9 * longest, m
        longest = max(longest, time_s)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_product_of_one_row_waits_for_bandwidth_not_for_latency(dtype):
    n = k = 8192
    least = n * k * dtype.itemsize / maia200().hbm_effective_bytes_per_s
    assert least < product_s(1, n, k, dtype) < 1.5 * least

"""Activations quantized by the kernels against the definition of the formats."""

import numpy as np
import pytest
import torch

from asterope.errors import FormatError, ShapeError
from asterope.formats import BLOCKS, encode, reference_decode, reference_quantize
from asterope.kernels import ACTIVATION_FORMATS, quantize_rows

CASES = [(fmt, rule) for fmt in ACTIVATION_FORMATS if fmt != "fp8" for rule in BLOCKS[fmt].rules]
K = 128


def rows() -> np.ndarray:
    """Normal numbers over many binades, ties, zeros, tiny and huge blocks."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, K)).astype(np.float32)
    x *= np.exp2(rng.integers(-30, 30, (24, K // 32)).repeat(32, axis=1)).astype(np.float32)
    signs = rng.choice([-1, 1], (3, K))
    x[0] = 0
    x[1] = rng.choice([0.0625, 0.1875, 0.25, 1.125, 1.875, 2.125, 3.125, 7.25, 7.5], K) * signs[0]
    x[2] = np.arange(K) / 16 * signs[1]
    x[3] = rng.choice([1, 1.75, 1.76, 1.875, 1.876, 6, 448, 449], K) * signs[2]
    x[4, :32] *= 1e-41
    x[5] = rng.uniform(-3e38, 3e38, K)
    x[6, 32:64] = -0.0
    return x


def held_codes(fmt, codes) -> np.ndarray:
    """The codes in the form that the kernel stores: packed e2m1, or e4m3 of the same number."""
    if fmt in ("mxfp4", "nvfp4"):
        return codes[..., ::2] | codes[..., 1::2] << 4
    return encode(reference_decode(codes, BLOCKS[fmt].element), "e4m3")


@pytest.mark.parametrize(("fmt", "rule"), CASES)
def test_codes_and_scales_are_those_of_the_definition(fmt, rule):
    x = rows()
    q = quantize_rows(torch.from_numpy(x), fmt, rule)
    codes, scales = (part.view(torch.uint8).numpy() for part in (q.codes, q.scales))
    for i, row in enumerate(x):
        expected = reference_quantize(row[None], fmt, rule=rule)
        assert np.array_equal(scales[i], expected.scales[0])
        assert np.array_equal(codes[i], held_codes(fmt, expected.codes)[0])


def test_upper_scale_of_nvfp4_is_that_of_the_row():
    x = rows()
    q = quantize_rows(torch.from_numpy(x), "nvfp4")
    expected = [reference_quantize(row[None], "nvfp4").global_scale for row in x]
    assert q.row_scale.tolist() == [float(g) for g in expected]
    assert quantize_rows(torch.from_numpy(x), "nvfp4", "amax").row_scale is None


def test_fp8_rows_are_those_of_the_definition():
    x = rows()
    q = quantize_rows(torch.from_numpy(x), "fp8")
    expected = reference_quantize(x, "fp8_row")
    assert np.array_equal(q.codes.view(torch.uint8).numpy(), expected.codes)
    assert np.array_equal(q.row_scale.numpy(), expected.scales[:, 0])


@pytest.mark.parametrize("fmt", ACTIVATION_FORMATS[1:])
def test_rule_left_out_is_the_default_of_the_format(fmt):
    x = torch.from_numpy(rows())
    left_out, default = quantize_rows(x, fmt), quantize_rows(x, fmt, BLOCKS[fmt].default_rule)
    assert torch.equal(left_out.codes.view(torch.uint8), default.codes.view(torch.uint8))
    assert torch.equal(left_out.scales.view(torch.uint8), default.scales.view(torch.uint8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fmt", ACTIVATION_FORMATS[1:])
def test_block_with_nan_or_infinity_gets_a_nan_scale_and_the_others_none(fmt, bad):
    x = np.ones((1, 64), np.float32)
    clean = quantize_rows(torch.from_numpy(x), fmt).scales.view(torch.uint8)
    x[0, 40] = bad
    q = quantize_rows(torch.from_numpy(x), fmt)
    scales = q.scales.view(torch.uint8)
    block = 40 * scales.shape[1] // 64
    assert int(scales[0, block]) == BLOCKS[fmt].scale.nan_code
    others = torch.arange(scales.shape[1]) != block
    assert torch.equal(scales[:, others], clean[:, others])


def test_narrow_inputs_are_read_exactly():
    x = torch.from_numpy(rows()[7:9]).bfloat16()
    narrow, wide = quantize_rows(x, "mxfp6"), quantize_rows(x.float(), "mxfp6")
    assert torch.equal(narrow.codes.view(torch.uint8), wide.codes.view(torch.uint8))
    assert torch.equal(narrow.scales, wide.scales)


def test_unknown_format_and_rule_are_refused_with_those_there_are():
    x = torch.ones(2, 64)
    with pytest.raises(FormatError, match="activations cannot be 'fp9'") as caught:
        quantize_rows(x, "fp9")
    assert "mxfp6" in caught.value.hint
    with pytest.raises(FormatError, match="mxfp4 have no scale rule 'amax'") as caught:
        quantize_rows(x, "mxfp4", "amax")
    assert caught.value.hint == "use even or floor or rceil"


def test_wrong_shapes_are_refused_with_the_limit():
    with pytest.raises(ShapeError, match="blocks of 32 do not divide K = 48") as caught:
        quantize_rows(torch.ones(2, 48), "mxfp6")
    assert caught.value.where == "mxfp6"
    with pytest.raises(ShapeError, match=r"x \[64\] does not have two axes"):
        quantize_rows(torch.ones(64), "fp8")
    with pytest.raises(ShapeError, match="contiguous rows"):
        quantize_rows(torch.ones(64, 32).T, "fp8")

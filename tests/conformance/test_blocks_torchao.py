"""Block quantization byte for byte against torchao 0.18, on the CPU.

Known differences, each pinned by a test: torchao divides a block with scale byte 0 by 2^-126
(floor, even) or not at all (rceil) where the scale says 2^-127; it gives a block with infinity a
large finite scale; it clamps NVFP4 block scales at 2^-6 where we go down to 2^-9.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from block_samples import block_samples

from asterope.formats import BLOCKS, decode, encode, pack, quantize, unpack

DTYPES = ["float32", "bfloat16"]
RULES = ["floor", "even", "rceil"]
NVFP4_PARTS = {"noise": (0, 128), "outliers": (256, 384), "ties": (512, 768), "bits": (832, 960)}
TORCHAO_MIN_E4M3_SCALE = 0x08  # 2^-6


@pytest.fixture(scope="module")
def torchao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from torchao.prototype.mx_formats import constants, kernels, mx_tensor, nvfp4_tensor
        from torchao.prototype.mx_formats.config import ScaleCalculationMode
        from torchao.quantization import quant_primitives
    elements = {
        "mxfp8": torch.float8_e4m3fn,
        "mxfp8_e5m2": torch.float8_e5m2,
        "mxfp6": constants.DTYPE_FP6_E2M3,
        "mxfp6_e3m2": constants.DTYPE_FP6_E3M2,
        "mxfp4": torch.float4_e2m1fn_x2,
    }
    return SimpleNamespace(
        torch=torch,
        elements=elements,
        kernels=kernels,
        mx=mx_tensor,
        nvfp4=nvfp4_tensor,
        fp8=quant_primitives,
        modes=ScaleCalculationMode,
    )


def tensor(torchao, x):
    dtype = torchao.torch.float32 if x.dtype == np.float32 else torchao.torch.bfloat16
    return torchao.torch.from_numpy(x.astype(np.float32)).to(dtype)


def torchao_mx(torchao, x, name, rule):
    """Return scale bytes and unpacked codes."""
    scales, codes = torchao.mx.to_mx(
        tensor(torchao, x), torchao.elements[name], 32, torchao.modes[rule.upper()]
    )
    scales, codes = (part.view(torchao.torch.uint8).numpy() for part in (scales, codes))
    return scales, unpack(codes, "e2m1", x.shape[-1]) if name == "mxfp4" else codes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["mxfp8", "mxfp8_e5m2", "mxfp6", "mxfp6_e3m2", "mxfp4"])
def test_mx_scales_and_codes_equal_torchao(torchao, name, rule, dtype):
    x = block_samples(dtype)
    scales, codes = torchao_mx(torchao, x, name, rule)
    ours = quantize(x, name, rule=rule)
    np.testing.assert_array_equal(ours.scales, scales)
    amax = np.abs(x.astype(np.float32)).reshape(*scales.shape, 32).max(axis=-1)
    comparable = np.repeat((scales > 0) | (amax == 0), 32, axis=-1)
    assert comparable.mean() > 0.94
    np.testing.assert_array_equal(ours.codes[comparable], codes[comparable])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["mxfp8", "mxfp6", "mxfp4"])
def test_torchao_does_not_divide_the_smallest_blocks_by_their_scale(torchao, name, rule):
    x = block_samples("float32")[416:448]
    scales, codes = torchao_mx(torchao, x, name, rule)
    ours = quantize(x, name, rule=rule)
    smallest = np.repeat(scales == 0, 32, axis=-1)
    assert smallest.mean() > 0.9
    fmt = BLOCKS[name].element
    divided = encode(x / np.float32(1 if rule == "rceil" else 2.0**-126), fmt)
    np.testing.assert_array_equal(codes[smallest], divided[smallest])
    divided = encode(x / np.float32(2.0**-127), fmt)
    np.testing.assert_array_equal(ours.codes[smallest], divided[smallest])


@pytest.mark.parametrize("rule", RULES)
def test_nan_marks_the_same_blocks_as_torchao_and_infinity_more(torchao, rule):
    x = np.ones((3, 32), np.float32)
    x[0, 3], x[1, 5] = np.nan, np.inf
    theirs, _ = torchao_mx(torchao, x, "mxfp4", rule)
    ours = quantize(x, "mxfp4", rule=rule).scales
    assert ours[:, 0].tolist() == [255, 255, 125]
    assert theirs[:, 0].tolist() == [255, 254 if rule == "rceil" else 253, 125]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", NVFP4_PARTS)
def test_nvfp4_two_level_equals_torchao(torchao, part, dtype):
    x = block_samples(dtype)[slice(*NVFP4_PARTS[part])]
    values = tensor(torchao, x)
    upper = torchao.nvfp4.per_tensor_amax_to_scale(values.abs().max())
    scales, packed = torchao.nvfp4.nvfp4_quantize(values, 16, upper)
    ours = quantize(x, "nvfp4")
    assert ours.global_scale == upper.item()
    assert_same_nvfp4(torchao, ours, scales, packed)


@pytest.mark.parametrize("part", NVFP4_PARTS)
def test_nvfp4_one_level_equals_torchao(torchao, part):
    x = block_samples("float32")[slice(*NVFP4_PARTS[part])]
    scales, packed = torchao.nvfp4.nvfp4_quantize(tensor(torchao, x), 16)
    ours = quantize(x, "nvfp4", rule="amax")
    assert ours.global_scale is None
    assert_same_nvfp4(torchao, ours, scales, packed)


def assert_same_nvfp4(torchao, ours, scales, packed):
    """Compare all bytes, except that torchao's block scales stop at 2^-6."""
    scales = scales.view(torchao.torch.uint8).numpy().reshape(ours.scales.shape)
    np.testing.assert_array_equal(np.maximum(ours.scales, TORCHAO_MIN_E4M3_SCALE), scales)
    same = np.repeat(ours.scales == scales, 16, axis=-1)
    assert same.mean() > 0.6
    codes = unpack(packed.numpy(), "e2m1", ours.shape[-1])
    np.testing.assert_array_equal(ours.codes[same], codes[same])


@pytest.mark.parametrize("name", ["fp8_tensor", "fp8_row", "fp8_block128"])
def test_fp8_scales_and_codes_equal_torchao_in_float32(torchao, name):
    x = block_samples("float32")[:384]
    block_size = {"fp8_tensor": [384, 128], "fp8_row": [1, 128], "fp8_block128": [128, 128]}
    values = tensor(torchao, x)
    scales = torchao.fp8._choose_scale_float8(values, block_size[name])
    codes = torchao.fp8._quantize_affine_float8(values, scales, torchao.torch.float8_e4m3fn)
    ours = quantize(x, name)
    np.testing.assert_array_equal(ours.scales, scales.numpy())
    np.testing.assert_array_equal(ours.codes, codes.view(torchao.torch.uint8).numpy())


def test_packed_fp4_equals_torchao(torchao):
    codes = np.random.default_rng(2).integers(0, 16, (64, 32)).astype(np.uint8)
    theirs = torchao.kernels.pack_uint4(torchao.torch.from_numpy(codes)).numpy()
    np.testing.assert_array_equal(pack(codes, "e2m1"), theirs)


def test_torch_decodes_and_saturates_e4m3_as_we_do(torchao):
    x = block_samples("float32").ravel()
    x = np.concatenate([x, np.float32([np.inf, -np.inf, 464, 480, 1e30])])
    theirs = torchao.torch.from_numpy(x).to(torchao.torch.float8_e4m3fn)
    np.testing.assert_array_equal(encode(x, "e4m3"), theirs.view(torchao.torch.uint8).numpy())
    np.testing.assert_array_equal(decode(encode(x, "e4m3"), "e4m3"), theirs.float().numpy())

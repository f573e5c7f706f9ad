"""Activations quantized with a scale that was found before."""

from __future__ import annotations

import pytest
import torch

from asterope.errors import FormatError
from asterope.formats import quantize
from asterope.kernels import quantize_rows
from library_kernels import random


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0123, 0.5, 3e-4])
def test_fp8_codes_are_those_of_the_quotient_and_saturate(dtype, scale):
    x = (random(7, 100) * torch.logspace(-3, 2, 7)[:, None]).to(dtype)
    found = quantize_rows(x, "fp8", scale=scale)
    quotient = (x.float() / torch.tensor(scale)).clamp(-448, 448)
    assert torch.equal(found.codes.float(), quotient.to(torch.float8_e4m3fn).float())
    assert torch.equal(found.row_scale, torch.full((7,), scale))


def test_nvfp4_blocks_are_those_under_the_upper_scale():
    x = random(9, 160, dtype=torch.bfloat16, scale=3.0)
    upper = 0.004
    found = quantize_rows(x, "nvfp4", scale=upper)
    q = quantize(x.float().numpy(), "nvfp4", global_scale=upper, packed=True)
    assert found.codes.numpy().tobytes() == q.codes.tobytes()
    assert found.scales.view(torch.uint8).numpy().tobytes() == q.scales.tobytes()
    assert torch.equal(found.row_scale, torch.full((9,), upper))


@pytest.mark.parametrize(("fmt", "rule"), [("mxfp4", None), ("nvfp4", "amax")])
def test_formats_without_such_a_scale_are_refused(fmt, rule):
    with pytest.raises(FormatError, match="no static scale"):
        quantize_rows(random(2, 64), fmt, rule, scale=1.0)

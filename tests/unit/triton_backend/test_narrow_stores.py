"""Stores of narrowed numbers; random kernels found that they wrote over what a mask keeps."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from asterope.native import available_isas

CASES = [
    (torch.int32, torch.int8), (torch.int32, torch.int16), (torch.int16, torch.int8),
    (torch.float16, torch.float8_e4m3fn), (torch.float32, torch.bfloat16),
]  # fmt: skip


@triton.jit
def store_one(x, y, AT: tl.constexpr):
    place = tl.arange(0, 16)
    value = tl.load(x + place).to(y.dtype.element_ty)
    tl.store(y + place, value, mask=place == AT)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize(("source", "target"), CASES)
def test_a_store_of_one_narrowed_number_leaves_its_neighbours(isa, source, target, monkeypatch):
    monkeypatch.setenv("ASTEROPE_ISA", isa)
    x = torch.arange(1, 17).to(source)
    for at in (0, 5):
        y = torch.full((16,), 99.0).to(target)
        expected = y.clone()
        expected[at] = x[at].to(target)
        store_one[(1,)](x, y, AT=at)
        assert torch.equal(y.view(torch.uint8), expected.view(torch.uint8))

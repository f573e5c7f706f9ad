"""Unmodified kernels that work element by element, against NumPy, torch and exact numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language import core
from triton.language.extra import libdevice

from asterope import chips
from asterope.errors import UnsupportedError
from asterope.runtime import simulate

N = 256


@triton.jit
def unary_kernel(x_ptr, y_ptr, FN: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, getattr(libdevice, FN)(tl.load(x_ptr + at)))


@triton.jit
def chain_kernel(x_ptr, y_ptr, z_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=1.0)
    y = tl.load(y_ptr + at, mask=at < n, other=1.0)
    for _ in range(2):
        x = libdevice.fma_rn(x, 0.5, libdevice.hypot(x, y))
    if libdevice.popc(n) > 1:
        y = tl.extra.libdevice.atan2(y, x)
    tl.store(z_ptr + at, libdevice.norm4d(x, y, x, 1.0) + libdevice.pow(x, 2), mask=at < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "true"),
    [("tan", torch.tan), ("cbrt", lambda x: x.abs() ** (1 / 3) * x.sign()), ("erfc", torch.erfc),
     ("cyl_bessel_i1", torch.special.i1), ("sinpi", lambda x: torch.sin(x * math.pi))],
)  # fmt: skip
def test_libdevice_functions_in_kernels(name, true, dtype):
    x = torch.linspace(-3, 3, N, dtype=dtype)
    y = torch.empty_like(x)
    unary_kernel[(1,)](x, y, FN=name, BLOCK=N)
    torch.testing.assert_close(y, true(x.double()).to(dtype), rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("n", [1, 255, 700])
def test_libdevice_in_loops_branches_and_under_masks(n):
    x, y = torch.linspace(0.5, 4, n), torch.linspace(-2, 2, n)
    z = torch.full((n + 1,), 7.0)
    chain_kernel[(triton.cdiv(n, N),)](x, y, z, n, BLOCK=N)
    a, b = x.double(), y.double()
    for _ in range(2):
        a = 0.5 * a + torch.hypot(a, b)
    if n.bit_count() > 1:
        b = torch.atan2(b, a)
    torch.testing.assert_close(
        z[:n].double(), (2 * a**2 + b**2 + 1).sqrt() + a**2, rtol=1e-6, atol=0
    )
    assert z[n] == 7.0


def test_libdevice_on_whole_numbers_and_bits():
    x = torch.arange(-100, 156, dtype=torch.int32)
    y = torch.empty_like(x)
    for name, true in (("popc", lambda v: (v & 0xFFFFFFFF).bit_count()), ("abs", abs),
                       ("ffs", lambda v: (v & -v).bit_length())):  # fmt: skip
        unary_kernel[(1,)](x, y, FN=name, BLOCK=N)
        assert y.tolist() == [true(int(v)) for v in x]


@core.extern
def foreign(x, _semantic=None):
    key = (core.dtype("fp32"),)
    value = ("__nv_sinh_fast", core.dtype("fp32"))
    return core.extern_elementwise("", "", [x], {key: value}, is_pure=True, _semantic=_semantic)


@triton.jit
def foreign_kernel(x_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(x_ptr + at, foreign(tl.load(x_ptr + at)))


def test_an_unknown_extern_function_is_refused_by_name_and_line():
    with pytest.raises(UnsupportedError) as caught:
        foreign_kernel[(1,)](torch.zeros(N), BLOCK=N)
    text = str(caught.value)
    assert "__nv_sinh_fast" in text
    assert "test_plugin_elementwise.py:" in text
    assert "hint: did you mean __nv_sinh" in text


@triton.jit
def limits_kernel(x_ptr, y_ptr, out_ptr, NAN: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    tl.store(out_ptr + at, tl.clamp(x, -1.0, 1.0, propagate_nan=NAN))
    tl.store(out_ptr + BLOCK + at, tl.minimum(x, y, propagate_nan=NAN))
    tl.store(out_ptr + 2 * BLOCK + at, tl.maximum(x, y, propagate_nan=NAN))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", [tl.PropagateNan.ALL, tl.PropagateNan.NONE])
def test_limits_keep_or_drop_nan(mode, dtype):
    values = torch.tensor([0.5, -3.0, 2.0, math.nan, math.inf, -math.inf, -0.0, math.nan])
    x, y = values.to(dtype), values.flip(0).to(dtype)
    out = torch.empty(24, dtype=dtype)
    limits_kernel[(1,)](x, y, out, NAN=mode, BLOCK=8)
    keep = mode == tl.PropagateNan.ALL
    smaller, larger = (torch.minimum, torch.maximum) if keep else (torch.fmin, torch.fmax)
    clamped = x.clamp(-1, 1)
    clamped = clamped if keep else torch.where(x.isnan(), torch.tensor(-1.0, dtype=dtype), clamped)
    expected = torch.cat([clamped, smaller(x, y), larger(x, y)])
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


# -- fp8e4b15: what Triton leaves to its back ends --------------------------------------------
@triton.jit
def cast_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x.to(y_ptr.dtype.element_ty))


def b15_values():
    """Return the number of each code: 4 bits of exponent, bias 15, 3 of fraction, no NaN."""
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, codes & 7
    size = np.where(exponent, np.ldexp(1 + fraction / 8, exponent - 15), np.ldexp(fraction, -17))
    return np.where(codes < 128, size, -size)


def codes_of(tensor):
    return triton.reinterpret(tensor, tl.float8e4b15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_code_of_fp8e4b15_is_read_exactly(dtype):
    codes = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(torch.int8)
    y = torch.empty(256, dtype=dtype)
    cast_kernel[(1,)](codes_of(codes), y, BLOCK=256)
    assert y.double().tolist() == b15_values().tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_become_the_nearest_fp8e4b15(dtype):
    values = np.concatenate([b15_values(), np.linspace(-2.2, 2.2, 252)])
    x = torch.from_numpy(np.append(values, [np.inf, -np.inf, 70000.0, np.nan])).to(dtype)
    codes = torch.zeros(512, dtype=torch.int8)
    cast_kernel[(1,)](x, codes_of(codes), BLOCK=512)
    got = b15_values()[codes.numpy().view(np.uint8)]
    sizes = np.unique(np.abs(b15_values()))[:-1]  # 1.75 is the largest that is rounded to
    wanted = x.half().double().abs().numpy()
    distance = np.abs(sizes[None] - np.nan_to_num(wanted, nan=9, posinf=9)[:, None]).min(1)
    clipped = np.minimum(np.nan_to_num(wanted, nan=9, posinf=9), 9)
    np.testing.assert_allclose(np.abs(np.abs(got) - clipped), distance, atol=1e-4)
    numbers = ~x.isnan().numpy()
    assert (np.signbit(got) == x.signbit().numpy())[numbers].all()


# -- time ----------------------------------------------------------------------------------------
def vector_work(name):
    x = torch.linspace(0.1, 0.9, 4096)
    with simulate(chips.maia200()) as timeline:
        unary_kernel[(1,)](x, torch.empty_like(x), FN=name, BLOCK=4096)
    (launch,) = timeline.launches
    return launch.result.vector_ops


def test_a_function_made_of_several_counts_as_several():
    assert [vector_work(name) for name in ("exp", "tan")] == [4096, 2 * 4096]
    assert vector_work("erfcinv") > 20 * 4096

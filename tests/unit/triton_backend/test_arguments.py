"""What may be passed to a kernel, and what is refused: tensors of all kinds, numbers, grids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.tools.tensor_descriptor import TensorDescriptor

from asterope import chips, simulate
from asterope.errors import KernelError
from library_kernels import random

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int16,
          torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
          torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
          torch.float8_e5m2fnuz]  # fmt: skip


@triton.jit
def copy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n), mask=i < n)


def copied(x, n=16, y=None):
    y = torch.full((n,), -1.0) if y is None else y
    copy[(triton.cdiv(n, 16),)](x, y, n, BLOCK=16)
    return y


# -- tensors --------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_of_torch_is_taken(dtype):
    x = random(16, scale=20.0).abs().to(dtype)
    y = copied(x, y=torch.zeros(16).to(dtype))
    assert torch.equal(y.view(torch.uint8), x.view(torch.uint8))


class Plain(torch.Tensor):
    """A subclass that changes nothing."""


class Watched(torch.Tensor):
    """A subclass that is asked before every function of torch."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


def of_another_class(kind):
    x = random(16)
    return torch.nn.Parameter(x) if kind is torch.nn.Parameter else x.as_subclass(kind)


@pytest.mark.parametrize("kind", [torch.nn.Parameter, torch.nn.Buffer, Plain, Watched])
def test_subclasses_of_tensor_are_tensors(kind):
    x, y = of_another_class(kind), of_another_class(kind)
    with torch.no_grad():
        y.zero_()
    assert torch.equal(copied(x, y=y).detach(), x.detach())


def test_a_view_starts_where_it_starts():
    x = random(64)
    assert torch.equal(copied(x[7:]), x[7:23])
    assert torch.equal(copied(x.view(4, 16).T[3:]), x[3:19])
    assert torch.equal(copied(x.as_strided((2, 2), (1, 2), 20)), x[20:36])


def test_a_view_is_written_in_its_own_memory():
    x, y = random(16), torch.full((40,), -1.0)
    copied(x, y=y[9:25])
    assert torch.equal(y[9:25], x)
    assert bool((y[:9] == -1).all()) and bool((y[25:] == -1).all())


def test_tensors_without_elements_are_taken():
    copied(torch.zeros(0), n=0, y=torch.zeros(0))
    copied(torch.zeros(4, 0, 3), n=0)
    y = torch.full((16,), -1.0)
    copy[(1,)](torch.zeros(0), y, 0, BLOCK=16)
    assert bool((y == -1).all())


class Address:
    """What Triton takes for a pointer: an address and the type of what is there."""

    def __init__(self, tensor, dtype):
        self.tensor, self.dtype = tensor, dtype

    def data_ptr(self):
        return self.tensor.data_ptr()


class View(Address):
    """What wrappers of tensors offer beside that: where the memory begins and ends."""

    def untyped_storage(self):
        return self.tensor.untyped_storage()


def test_an_object_with_an_address_is_a_pointer():
    x = random(16)
    assert torch.equal(copied(Address(x, torch.float32)), x)
    assert torch.equal(copied(View(x, torch.float32)), x)
    assert torch.equal(copied(type("Tensor", (Address,), {})(x, torch.float32)), x)
    codes, y = torch.arange(16, dtype=torch.uint8), torch.zeros(16, dtype=torch.float8_e5m2)
    copied(Address(codes, tl.float8e5), y=y)
    assert torch.equal(y.view(torch.uint8), codes)


def test_a_compiled_kernel_is_launched_without_its_last_constexprs():
    x, y = random(16), torch.zeros(16)
    kernel = copy[(1,)](x, y, 16, BLOCK=16)
    for rest in ((), (16,)):
        y.zero_()
        kernel[(1, 1, 1)](x, y, 16, *rest)
        assert torch.equal(y, x)
    with pytest.raises(KernelError, match="takes 4 arguments, constexprs included, got 2"):
        kernel[(1, 1, 1)](x, y)


def test_a_reinterpreted_tensor_has_its_memory_and_another_type():
    codes, y = torch.arange(16, dtype=torch.int8), torch.zeros(16, dtype=torch.int8)
    copied(triton.reinterpret(codes, tl.float8e4nv), y=triton.reinterpret(y, tl.float8e4nv))
    assert torch.equal(y, codes)


@triton.jit
def copy_if_given(x_ptr, y_ptr, scale, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.full([BLOCK], 5.0, tl.float32) if x_ptr is None else tl.load(x_ptr + i)
    tl.store(y_ptr + i, x if scale is None else x * scale)


def test_none_is_known_when_the_kernel_is_compiled():
    x, y = random(16), torch.zeros(16)
    for given, scale, expected in ((x, 2.0, 2 * x), (None, None, 5), (None, 3.0, 15), (x, None, x)):
        copy_if_given[(1,)](given, y, scale, BLOCK=16)
        assert torch.equal(y, torch.zeros(16) + expected)


def meta():
    return torch.zeros(16, device="meta")


def fake():
    with FakeTensorMode():
        return torch.zeros(16)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("make", [meta, fake])
def test_a_tensor_without_memory_can_be_timed_but_not_computed(make):
    with pytest.raises(KernelError) as caught:
        copied(make())
    assert "argument x_ptr has no memory" in str(caught.value)
    assert "simulate" in caught.value.hint
    with simulate(chips.maia200(), values=False) as timeline:
        copied(make(), y=make())
    assert timeline.launches[0].result.hbm_bytes == 2 * 16 * 4
    wrapped = triton.reinterpret(make(), tl.int32)
    with pytest.raises(KernelError, match="x_ptr has no memory"):
        copied(wrapped)


def freed():
    x = torch.zeros(16)
    x.untyped_storage().resize_(0)
    return x


def jagged():
    parts = [torch.ones(8), torch.ones(8)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


@pytest.mark.parametrize(
    ("make", "text", "hint"),
    [
        (freed, "the memory of the tensor x_ptr was freed", "memory of its own"),
        (jagged, "the tensor x_ptr is a NestedTensor with layout torch.jagged", "dense tensor"),
        (lambda: torch._to_functional_tensor(torch.zeros(16)), "the tensor x_ptr", "dense tensor"),
        (lambda: torch.zeros(16, dtype=torch.complex64).conj().imag, "negated", "resolve_neg()"),
    ],
)
def test_a_tensor_whose_elements_lie_elsewhere_is_refused_by_name(make, text, hint):
    with pytest.raises(KernelError) as caught:
        copied(make())
    assert text in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.where == "copy"


def test_complex_numbers_are_refused_by_triton():
    with pytest.raises(KeyError, match="complex64"):
        copied(torch.zeros(16, dtype=torch.complex64))


@pytest.mark.parametrize("bad", [np.zeros(16, np.float32), [1.0], "x", {}, np.float32(1), 1j])
def test_what_is_no_argument_is_refused_by_triton(bad):
    with pytest.raises(TypeError, match="failed to specialize argument"):
        copied(bad)


@pytest.mark.parametrize("shape", [(1 << 31,), (4, 1 << 31)])
def test_a_descriptor_that_is_too_large_is_refused(shape):
    x = torch.zeros(1).expand(shape)
    x = TensorDescriptor(x, list(shape), [1] if len(shape) == 1 else [0, 1], [16] * len(shape))

    @triton.jit
    def reads(desc, rank: tl.constexpr):
        desc.load([0] * rank)

    with pytest.raises(KernelError) as caught:
        reads[(1,)](x, len(shape))
    assert f"shape {list(shape)}" in str(caught.value)
    assert caught.value.hint


# -- numbers --------------------------------------------------------------------------------------
@triton.jit
def put(y_ptr, value):
    tl.store(y_ptr + tl.program_id(0), value)


EDGES = [0, 1, -1, 15, 16, (1 << 31) - 1, 1 << 31, -(1 << 31), -(1 << 31) - 1, (1 << 32) - 1,
         1 << 32, (1 << 63) - 1, -(1 << 63)]  # fmt: skip


@pytest.mark.parametrize("value", EDGES)
def test_an_integer_of_any_width_arrives(value):
    y = torch.zeros(1, dtype=torch.int64)
    put[(1,)](y, value)
    assert y.item() == value


@pytest.mark.parametrize("value", [1 << 63, (1 << 64) - 1, (1 << 64) - 16])
def test_an_integer_above_63_bits_is_unsigned(value):
    y = torch.zeros(1, dtype=torch.uint64)
    put[(1,)](y, value)
    assert y.item() == value
    z = torch.zeros(1, dtype=torch.float64)
    put[(1,)](z, value)
    assert z.item() == float(value)


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_an_integer_above_64_bits_is_refused(value):
    with pytest.raises(OverflowError):
        put[(1,)](torch.zeros(1, dtype=torch.int64), value)


@pytest.mark.parametrize("value", [True, False])
def test_a_bool_is_one_or_zero(value):
    for dtype in (torch.bool, torch.int32, torch.float32):
        y = torch.full((1,), 1 - value).to(dtype)
        put[(1,)](y, value)
        assert y.item() == value


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-45, 1e-60, 3.5e38, 1e300, -1e300, np.float64(0.3)])
def test_a_float_is_rounded_to_32_bits(value):
    y = torch.full((1,), 7.0)
    put[(1,)](y, value)
    expected = torch.tensor([float(value)], dtype=torch.float64).float()
    assert torch.equal(y.view(torch.int32), expected.view(torch.int32))


@triton.jit
def put_narrow(y_ptr, half: tl.float16, small: tl.int8, wide: tl.float64):
    tl.store(y_ptr, half)
    tl.store(y_ptr + 1, small)
    tl.store(y_ptr + 2, wide)


def test_annotated_arguments_are_rounded_and_wrapped_to_their_type():
    y = torch.zeros(3, dtype=torch.float64)
    put_narrow[(1,)](y, 0.1, 100, 0.1)
    assert y.tolist() == [float(np.float16(0.1)), 100, 0.1]
    put_narrow[(1,)](y, 1e6, 300, 1e300)
    assert y.tolist() == [float("inf"), 44, 1e300]


@triton.jit
def times(x_ptr, y_ptr, n, stride, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y_ptr + i * stride, tl.load(x_ptr + i * stride, mask=i < n) * 2, mask=i < n)


def test_arguments_of_one_and_of_sixteens_change_the_code_and_not_the_result():
    x = random(1024)
    texts = set()
    for n, stride, offset in ((16, 1, 0), (16, 16, 0), (7, 3, 1), (1, 1, 4), (32, 32, 3)):
        y = torch.zeros(1024)
        compiled = times[(1,)](x[offset:], y[offset:], n, stride, BLOCK=32)
        texts.add(bytes(compiled.asm["tileir"]))
        expected = torch.zeros(1024)
        expected[offset : offset + n * stride : stride] = (
            2 * x[offset : offset + n * stride : stride]
        )
        assert torch.equal(y, expected)
    assert len(texts) == 5


# -- grids ----------------------------------------------------------------------------------------
GRIDS = {
    "tuple": (3,), "list": [3, 1], "all axes": (3, 1, 1), "numpy": (np.int64(3),),
    "tensor": (torch.tensor(3),), "call": lambda meta: (3,), "list of a call": lambda meta: [3],
    "torch.Size": torch.Size([3]),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_comes_in_many_forms(name):
    y = torch.zeros(4)
    with simulate(chips.maia200()) as timeline:
        put[GRIDS[name]](y, 2.0)
    assert y.tolist() == [2, 2, 2, 0]
    assert timeline.launches[0].grid == (3, 1, 1)
    assert all(type(size) is int for size in timeline.launches[0].grid)


@pytest.mark.parametrize("grid", [(0,), (2, 0), (0, 0, 0), [0], lambda meta: (0, 5)])
def test_a_grid_of_nothing_does_nothing(grid):
    y = torch.zeros(4)
    put[grid](y, 2.0)
    assert not y.any()


@pytest.mark.parametrize("grid", [(4 / 2,), (2, 4 / 2), ("1",), (None,)])
def test_a_quotient_and_other_things_are_no_grid(grid):
    with pytest.raises(KernelError) as caught:
        put[grid](torch.zeros(4), 2.0)
    assert repr((*grid, 1, 1)[:3]) in str(caught.value)
    assert "triton.cdiv" in caught.value.hint


# -- tuples ---------------------------------------------------------------------------------------
class Scaled(NamedTuple):
    pointer: torch.Tensor
    factor: float


@triton.jit
def scales(nothing, scaled, out, factors, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(scaled.pointer + i) * scaled.factor
    for f in tl.static_range(len(factors)):
        x *= factors[f]
    tl.store(out + i, x + len(nothing))


def test_tuples_may_be_empty_or_named():
    x, out = random(16), torch.zeros(16)
    scales[(1,)]((), Scaled(x, 2.0), out, (3.0, 5.0), BLOCK=16)
    assert torch.equal(out, x * 2.0 * 3.0 * 5.0)

"""What cannot be done says so: the op, the line of the user's kernel, a way round."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from asterope import chips
from asterope.errors import AsteropeError, CapacityError, KernelError, UnsupportedError
from asterope.runtime import simulate
from library_kernels import random
from sim_programs import changed
from triton_kernels import add_kernel

HERE = Path(__file__).name


def line_of(kernel, text):
    """Return file:line of the line of a kernel that holds a text."""
    lines, first = inspect.getsourcelines(kernel.fn)
    (at,) = [i for i, line in enumerate(lines) if text in line]
    return f"{HERE}:{first + at}"


@triton.jit
def assembly_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    y = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], tl.float32, True, 1)
    tl.store(y_ptr + offs, y)


UNSUPPORTED = {
    "assembly": (assembly_kernel, "inline_asm", "tt.elementwise_inline_asm"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_op_that_is_not_supported_is_named_with_line_and_hint(name):
    kernel, text, op = UNSUPPORTED[name]
    x, y = random(64), torch.full((64,), -1.0)
    with pytest.raises(UnsupportedError) as caught:
        kernel[(1,)](x, y, BLOCK=64)
    assert op in caught.value.what
    assert line_of(kernel, text) in caught.value.where
    assert caught.value.hint
    assert torch.equal(y, torch.full((64,), -1.0))


def test_where_an_error_points_does_not_depend_on_an_earlier_attempt():
    """Triton keeps what it compiled; an error is not kept, and comes again."""
    found = []
    for _ in range(2):
        with pytest.raises(UnsupportedError) as caught:
            assembly_kernel[(1,)](random(32), random(32), BLOCK=32)
        found.append(str(caught.value))
    assert found[0] == found[1]


def test_a_hint_names_a_document_that_exists():
    root = Path(__file__).parents[3]
    with pytest.raises(UnsupportedError) as caught:
        assembly_kernel[(1,)](random(16), random(16), BLOCK=16)
    for word in caught.value.hint.replace(",", " ").split():
        if word.endswith(".md"):
            assert (root / word).is_file(), f"the hint sends people to {word}"


def test_a_tensor_without_memory_is_refused_by_parameter():
    x = torch.empty(64, device="meta")
    with pytest.raises(KernelError) as caught:
        add_kernel[(1,)](random(64), x, random(64), 64, BLOCK=64)
    assert "y_ptr" in caught.value.what
    assert caught.value.where == "add_kernel"
    assert "values=False" in caught.value.hint


class Elsewhere:
    """Looks like a tensor on another device."""

    dtype = torch.float32
    device = torch.device("cuda", 1)

    def data_ptr(self):
        return 0


def test_a_tensor_on_another_device_is_refused_by_parameter():
    with pytest.raises(KernelError) as caught:
        add_kernel[(1,)](random(64), Elsewhere(), random(64), 64, BLOCK=64)
    assert "cuda:1" in caught.value.what
    assert "y_ptr" in str(caught.value)
    assert ".cpu()" in caught.value.hint


def test_a_grid_that_is_too_large_is_refused():
    with pytest.raises(KernelError) as caught:
        add_kernel[(1 << 31,)](random(64), random(64), random(64), 64, BLOCK=64)
    assert f"grid size {1 << 31} along x" in str(caught.value)


def test_a_negative_grid_is_refused():
    with pytest.raises((KernelError, ValueError)):
        add_kernel[(-1,)](random(64), random(64), random(64), 64, BLOCK=64)


def test_a_kernel_too_large_for_a_tile_names_its_tensor_and_line():
    chip = changed(chips.maia200(), tile__tsram__capacity_bytes=4096)
    x = torch.empty(4096, device="meta")
    with pytest.raises(CapacityError) as caught, simulate(chip, values=False):
        add_kernel[(1,)](x, x, x, 4096, BLOCK=4096)
    text = str(caught.value)
    assert "add_kernel needs 32768 bytes of a tile's TSRAM of 4096" in text
    assert "triton_kernels.py:" in caught.value.where
    # The block is the result of `x = tl.load(...)` or of `y = tl.load(...)`.
    assert "x fp32[4096]" in text or "y fp32[4096]" in text
    assert "smaller blocks" in caught.value.hint


@triton.jit
def misspelt_kernel(x_ptr, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.arrange(0, BLOCK), 0.0)


def test_tritons_own_errors_stay_its_own():
    with pytest.raises(triton.CompilationError) as caught:
        misspelt_kernel[(1,)](random(16), BLOCK=16)
    assert "arrange" in str(caught.value)
    assert not isinstance(caught.value, AsteropeError)


def test_an_unknown_launch_option_is_refused_by_name():
    with pytest.raises(KeyError, match="num_wraps"):
        add_kernel[(1,)](random(16), random(16), random(16), 16, BLOCK=16, num_wraps=3)

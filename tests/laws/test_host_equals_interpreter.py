"""Law 1 on random programs: native code leaves the bits that the reference interpreter leaves.

NaN equals NaN. Functions that the C library or a polynomial computes may differ from the
correctly rounded value by two units in the last place; their results are only stored.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import Phase, assume, given, note, settings
from hypothesis import strategies as st

from asterope.compiler import simplify
from asterope.ir import parse_kernel, print_kernel, verify
from asterope.native import available_isas
from asterope.runtime import PASSES, optimise
from generated_kernel import SLICE
from ir_builder import describe, differing, interpreted, launched
from kernel_generator import generate
from kernel_vocabulary import THEMES

# Shrinking compiles hundreds of kernels: the slow run does it, the quick one only finds.
QUICK = settings(
    deadline=None, derandomize=True, database=None, max_examples=16, phases=[Phase.generate]
)
THOROUGH = settings(QUICK, max_examples=600, phases=[Phase.generate, Phase.shrink])
FEW = settings(QUICK, max_examples=3)


@contextmanager
def threads(count):
    before = os.environ.get("ASTEROPE_NUM_THREADS")
    os.environ["ASTEROPE_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["ASTEROPE_NUM_THREADS"]
        if before is not None:
            os.environ["ASTEROPE_NUM_THREADS"] = before


def draw_kernel(data, theme):
    generated = generate(data.draw, theme)
    note(print_kernel(generated.kernel))
    note(f"grid {generated.grid}, seed {generated.seed}, alias {generated.alias}")
    return generated


def optimised(kernel):
    """Return the kernel after the passes that every kernel goes through."""
    return optimise(simplify(parse_kernel(print_kernel(kernel))))


def pointers(generated):
    """Name the array parameters in order, with whether the format defines their bits."""
    exact = {a.name: a.exact for a in generated.arrays}
    return [(p.name, exact[p.name]) for p in generated.kernel.params if p.name in exact]


def assert_equal(generated, got, expected):
    for (name, exact), x, y in zip(pointers(generated), got, expected, strict=True):
        differ = differing(x, y)
        if not exact:
            differ &= ~within_two_ulp(x, y)
        assert not differ.any(), f"{name}: {describe(x, y, differ)}"


def within_two_ulp(x, y):
    """Count representable values between two arrays of one float format."""

    def place(values):
        bits = values.view(f"i{values.itemsize}").astype(np.int64)
        return np.where(bits < 0, np.iinfo(f"i{values.itemsize}").min - bits, bits)

    with np.errstate(invalid="ignore"):  # a signalling NaN of bf16 says so when looked at
        numbers = ~np.isnan(x) & ~np.isnan(y)
    return (np.abs(place(x) - place(y)) <= 2) & numbers


def check(theme, data):
    generated = draw_kernel(data, theme)
    isa = data.draw(st.sampled_from(available_isas()), label="isa")
    kernel = generated.kernel
    arguments = generated.arguments()
    expected = interpreted(kernel, arguments, generated.grid)
    if data.draw(st.booleans(), label="optimised"):
        kernel = optimised(kernel)
    disjoint = data.draw(st.booleans(), label="disjoint")
    got = launched(kernel, arguments, generated.grid, isa=isa, disjoint=disjoint)
    assert_equal(generated, got, expected)


@pytest.mark.parametrize("theme", THEMES)
@QUICK
@given(data=st.data())
def test_native_code_leaves_the_interpreters_bits(theme, data):
    check(theme, data)


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
@THOROUGH
@given(data=st.data())
def test_native_code_leaves_the_interpreters_bits_in_thousands_of_programs(theme, data):
    check(theme, data)


@pytest.mark.parametrize("theme", THEMES)
@QUICK
@given(data=st.data())
def test_passes_preserve_what_the_interpreter_computes(theme, data):
    generated = draw_kernel(data, theme)
    arguments = generated.arguments()
    before = interpreted(generated.kernel, arguments, generated.grid)
    for run in (*PASSES, optimised):
        name = run.__name__
        kernel = run(parse_kernel(print_kernel(generated.kernel)))
        verify(kernel)
        after = interpreted(kernel, arguments, generated.grid)
        for (array, _), x, y in zip(pointers(generated), after, before, strict=True):
            differ = differing(x, y)
            assert not differ.any(), f"{name}: {array}: {describe(x, y, differ)}"


@pytest.mark.parametrize("theme", THEMES)
@FEW
@given(data=st.data())
def test_any_number_of_threads_leaves_the_same_bytes(theme, data):
    """Enough programs for a second thread to be woken; the first two are also interpreted."""
    generated = draw_kernel(data, theme)
    largest = max(r.type.num_elements for op in generated.kernel.walk() for r in op.results)
    assume(largest >= 128)
    grid = (2**18 // largest + 1, 1, 1)
    generated.grid, generated.alias = grid, False
    arguments = generated.arguments()
    kernel = optimised(generated.kernel)
    with threads(1):
        one = launched(kernel, arguments, grid)
    with threads(2):
        two = launched(kernel, arguments, grid)
    assert [a.tobytes() for a in one] == [a.tobytes() for a in two]
    few = [a[: 2 * SLICE] if isinstance(a, np.ndarray) else a for a in arguments]
    expected = interpreted(generated.kernel, few, (2, 1, 1))
    assert_equal(generated, [a[: 2 * SLICE] for a in two], expected)

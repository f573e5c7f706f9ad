"""Random Triton kernels: the host, the reference interpreter and NumPy agree.

Integers, comparisons, casts, moves of elements and IEEE arithmetic have one right result, and all
three have to give its bits. Sums and products of floats depend on their order: there the host has
to give the interpreter's bits, and NumPy is near. Functions are near in all three.
"""

from __future__ import annotations

import pytest

from asterope.native import available_isas
from triton_fuzz.generator import generate
from triton_fuzz.runner import DifferenceError, differences, module_of
from triton_fuzz.shrink import shrink

FEW, SLICES, PER_SLICE = 20, 40, 250
pytestmark = pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")


def check(seeds, folder):
    kernels = [generate(seed, f"kernel_{seed}") for seed in seeds]
    module = module_of(kernels, folder / f"kernels_{seeds[0]}.py")
    for kernel in kernels:
        try:
            differences(kernel, module)
        except DifferenceError as error:
            raise shrink(kernel, error, folder) from None


def test_random_kernels_mean_on_the_host_what_numpy_computes(tmp_path):
    check(range(FEW), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(SLICES))
def test_ten_thousand_random_kernels_mean_on_the_host_what_numpy_computes(
    index, tmp_path, monkeypatch
):
    isas = available_isas()  # the best there is every other time, for it is what users have
    monkeypatch.setenv("ASTEROPE_ISA", isas[index // 2 % len(isas) if index % 2 else 0])
    first = 1000 + index * PER_SLICE
    check(range(first, first + PER_SLICE), tmp_path)

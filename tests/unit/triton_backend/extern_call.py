"""Call one function of libdevice on arrays, by native code and by the reference interpreter."""

from __future__ import annotations

import numpy as np

from asterope.ir import Type, dtype_of, verify
from asterope.triton_backend.convert.libdevice import MEANINGS, Term
from ir_builder import Writer, interpreted, launched

__all__ = ["both_readings", "call"]

_ELEMENTS = {"f": "fp", "i": "i", "u": "i"}


def kernel_of(symbol, arrays):
    """Return a kernel that stores the function of what it loads, and the element it stores."""
    w, operands = Writer(), []
    for i, array in enumerate(arrays):
        elem = f"{_ELEMENTS[array.dtype.kind]}{8 * array.itemsize}"
        w.param(f"x{i}", f"ptr<{elem}>")
        operands.append(Term(w.builder, w.load(f"x{i}", array.shape)))
    result = MEANINGS[symbol](*operands).value
    w.param("y", f"ptr<{result.type.elem}>")
    w.store("y", result)
    kernel = w.done()
    verify(kernel)
    return kernel, str(result.type.elem)


def both_readings(symbol, *arrays):
    """Return what native code and what the interpreter give."""
    arrays = [np.atleast_1d(a) for a in arrays]
    kernel, elem = kernel_of(symbol, arrays)
    views = [a.view(a.dtype.str.replace("u", "i")) for a in arrays]
    arguments = [*views, np.zeros(arrays[0].shape, dtype_of(Type(elem)))]
    return launched(kernel, arguments)[-1], interpreted(kernel, arguments)[-1]


def call(symbol, *arrays):
    """Return what both give, after checking that the bits are the same."""
    got, expected = both_readings(symbol, *arrays)
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind == "f":
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])
    return got

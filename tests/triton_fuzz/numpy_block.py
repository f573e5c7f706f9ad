"""A block of Triton's language as NumPy holds it: its numbers, or what they are close to."""

from __future__ import annotations

import numpy as np

from triton_fuzz import numpy_scalars as scalars

__all__ = ["Block", "Pointer", "block"]

# Twice the relative rounding error of the narrowest arithmetic that a format goes through.
_ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_TINY = {"float16": 2.0**-24, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1000}
_OVERFLOWS = {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4e38}


class Block:
    """Numbers of one element type. Where `error` is there, they are known up to it, in float64."""

    def __init__(self, numbers, error=None, dtype=None):
        self.numbers, self.error = np.asarray(numbers), error
        self.dtype = np.dtype(dtype or self.numbers.dtype)

    # -- shapes ---------------------------------------------------------------------------------
    @property
    def shape(self):
        return self.numbers.shape

    def moved(self, f):
        """Apply what only moves elements."""
        return Block(f(self.numbers), None if self.error is None else f(self.error), self.dtype)

    def __getitem__(self, where):
        return self.moved(lambda a: a[where])

    def to(self, dtype, bitcast=False):
        if bitcast:
            return Block(np.array(self.numbers, order="C").view(dtype))
        if self.error is not None:
            return rounded(self.numbers, self.error, dtype)
        return Block(scalars.convert(self.numbers, np.dtype(dtype)))

    # -- as Python's numbers --------------------------------------------------------------------
    def __bool__(self):
        return bool(self.numbers)

    def __index__(self):
        return int(self.numbers)

    # -- arithmetic -----------------------------------------------------------------------------
    def _with(self, other):
        """Return both operands; a Python number takes this block's type."""
        if isinstance(other, Block):
            return self, other
        return self, Block(np.asarray(other).astype(self.dtype))

    def _combined(self, other, exact, near=None, swap=False):
        a, b = self._with(other)
        if swap:
            a, b = b, a
        if a.dtype != b.dtype:
            raise TypeError(f"{a.dtype} and {b.dtype}: the generator mixes types")
        if a.error is None and b.error is None:
            return Block(exact(a.numbers, b.numbers))
        x, y = wide(a), wide(b)
        return rounded(exact(x[0], y[0]), near(x, y), a.dtype)

    def __add__(self, other):
        return self._combined(other, lambda a, b: a + b, lambda a, b: a[1] + b[1])

    def __sub__(self, other):
        return self._combined(other, lambda a, b: a - b, lambda a, b: a[1] + b[1])

    def __rsub__(self, other):
        return self._combined(other, lambda a, b: a - b, lambda a, b: a[1] + b[1], swap=True)

    def __mul__(self, other):
        return self._combined(other, _multiply, _product_error)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return 0 - self

    def __truediv__(self, other):
        a, b = self._with(other)
        return Block(_for_division(a) / _for_division(b))

    def __rtruediv__(self, other):
        a, b = self._with(other)
        return Block(_for_division(b) / _for_division(a))

    def __floordiv__(self, other):
        return self._combined(other, scalars.divide)

    def __mod__(self, other):
        a, b = self._with(other)
        if a.dtype.kind not in "iu":
            return Block(np.fmod(_for_division(a), _for_division(b)))
        return Block(scalars.modulo(a.numbers, b.numbers))

    def __lshift__(self, other):
        return self._combined(other, scalars.shift_left)

    def __rshift__(self, other):
        return self._combined(other, scalars.shift_right)

    def __and__(self, other):
        return self._combined(other, np.bitwise_and)

    __rand__ = __and__  # of a comparison between Python's own numbers

    def __or__(self, other):
        return self._combined(other, np.bitwise_or)

    def __xor__(self, other):
        return self._combined(other, np.bitwise_xor)

    def __invert__(self):
        return Block(~self.numbers)

    # -- comparison -----------------------------------------------------------------------------
    def __lt__(self, other):
        return self._combined(other, np.less)

    def __le__(self, other):
        return self._combined(other, np.less_equal)

    def __gt__(self, other):
        return self._combined(other, np.greater)

    def __ge__(self, other):
        return self._combined(other, np.greater_equal)

    def __eq__(self, other):
        return self._combined(other, np.equal)

    def __ne__(self, other):
        return self._combined(other, np.not_equal)

    __hash__ = None


class Pointer:
    """Places in one array."""

    def __init__(self, array, at=0):
        self.array, self.at = array, np.asarray(at, np.int64)

    def __add__(self, offset):
        by = offset.numbers if isinstance(offset, Block) else offset
        return Pointer(self.array, self.at + np.asarray(by, np.int64))

    __radd__ = __add__


def block(x):
    """Return a block, of an integer an int32 one."""
    if isinstance(x, Block):
        return x
    return Block(np.asarray(x, np.bool_ if isinstance(x, bool) else np.int32))


def wide(x):
    """Return numbers in float64 and what is known of their error."""
    error = np.zeros(x.shape) if x.error is None else x.error
    return x.numbers.astype(np.float64), error


def rounded(numbers, error, dtype):
    """Return numbers that were rounded to a format after an error."""
    name = np.dtype(dtype).name
    error = error + _ROUNDING[name] * (np.abs(numbers) + error) + _TINY[name]
    if name in _OVERFLOWS:
        error = np.where(np.abs(numbers) + error >= _OVERFLOWS[name], np.inf, error)
    return Block(numbers, error, dtype)


def _multiply(a, b):
    return a & b if a.dtype == np.bool_ else a * b


def _product_error(a, b):
    return np.abs(a[0]) * b[1] + np.abs(b[0]) * a[1] + a[1] * b[1]


def _for_division(x):
    """Division and remainder of narrow floats, and division of integers, are done in fp32."""
    return x.numbers if x.dtype in (np.float32, np.float64) else x.numbers.astype(np.float32)

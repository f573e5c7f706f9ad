"""What Triton's operators mean where NumPy's of the same name mean something else, or nothing.

Some of it is undefined in Triton; what is written here is what Asterope promises (`ir/ops.py`):
division by zero gives 0 and the remainder a; a shift by the width or more gives 0, or the sign; a
float that an integer type cannot hold becomes the nearest that it can, NaN 0; fp8 saturates.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

__all__ = ["convert", "divide", "fma32", "larger", "modulo", "shift_left", "shift_right", "smaller"]

_SATURATES = {
    np.dtype(ml_dtypes.float8_e4m3fn): np.float32(448),
    np.dtype(ml_dtypes.float8_e5m2): np.float32(57344),
}


def _is_float(dtype):
    return dtype.kind not in "iub"


def _unsigned(a):
    return a.view(f"u{a.dtype.itemsize}")


def _magnitude(a):
    """Return |a| without a sign, which holds that of the smallest integer too."""
    return np.where(a < 0, ~_unsigned(a) + np.ones((), f"u{a.dtype.itemsize}"), _unsigned(a))


def divide(a, b):
    """Divide integers, towards zero."""
    a, b = (np.array(x) for x in np.broadcast_arrays(a, b))
    over = np.where(b == 0, 1, b).astype(b.dtype)
    if a.dtype.kind == "u":
        return np.where(b == 0, 0, a // over).astype(a.dtype)
    size = _magnitude(a) // _magnitude(over)
    negated = ~size + np.ones((), size.dtype)
    quotient = np.where((a < 0) != (b < 0), negated, size).view(a.dtype)
    return np.where(b == 0, 0, quotient).astype(a.dtype)


def modulo(a, b):
    """Return what division towards zero leaves; it has the dividend's sign."""
    if _is_float(a.dtype):
        return np.fmod(a, b)
    return np.where(b == 0, a, a - divide(a, b) * b).astype(a.dtype)


def shift_left(a, b):
    width, by = 8 * a.dtype.itemsize, _unsigned(np.asarray(b))
    shifted = _unsigned(a) << np.minimum(by, width - 1).astype(by.dtype)
    return np.where(by < width, shifted, 0).astype(by.dtype).view(a.dtype)


def shift_right(a, b):
    width, by = 8 * a.dtype.itemsize, _unsigned(np.asarray(b))
    shifted = a >> np.minimum(by, width - 1).astype(a.dtype)
    if a.dtype.kind == "i":
        return shifted
    return np.where(by < width, shifted, 0).astype(a.dtype)


def larger(a, b):
    """Return the larger; a number rather than NaN; of equals, a."""
    return np.where(np.isnan(a) | (b > a), b, a) if _is_float(a.dtype) else np.maximum(a, b)


def smaller(a, b):
    """Return the smaller; a number rather than NaN; of equals, a."""
    return np.where(np.isnan(a) | (b < a), b, a) if _is_float(a.dtype) else np.minimum(a, b)


def fma32(a, b, c):
    """Return a b + c of float32, rounded once.

    The product is exact in float64. Its sum with c is rounded to odd there, which leaves float32's
    own rounding as the only one that counts.
    """
    product, wide = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = np.asarray(product + wide)
    part = total - product
    missed = (product - (total - part)) + (wide - part)
    bits = total.view(np.int64)
    off = np.isfinite(total) & (missed != 0) & (bits & 1 == 0)
    towards = np.where(missed > 0, np.inf, -np.inf)
    return np.where(off, np.nextafter(total, towards), total).astype(np.float32)


def convert(a, to):
    """Convert to another element type, as `.to` does."""
    if to == np.bool_:
        return a != np.zeros((), a.dtype)
    if not _is_float(a.dtype):
        # Floats narrower than fp32 are reached through fp32.
        through = a.astype(np.float32) if _is_float(to) and to.itemsize < 4 else a
        return _narrow(through, to) if _is_float(to) else a.astype(to)
    if not _is_float(to):
        return _to_integer(a, to)
    return a.astype(np.float64) if to == np.float64 else _narrow(a.astype(np.float32), to)


def _narrow(a, to):
    largest = _SATURATES.get(to)
    return a.astype(to) if largest is None else np.clip(a, -largest, largest).astype(to)


def _to_integer(a, to):
    info = np.iinfo(to)
    wide = np.trunc(np.nan_to_num(a.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
    low, high = float(info.min), float(info.max)  # the second is rounded up if 64 bits wide
    inside = np.where((wide > low) & (wide < high), wide, 0).astype(to)
    return np.where(wide >= high, info.max, np.where(wide <= low, info.min, inside)).astype(to)

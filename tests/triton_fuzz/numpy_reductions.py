"""Reductions, scans and products of Triton's language on NumPy: in the plainest order there is.

Sums and products of floats are exact where all numbers are whole and no partial sum, in whatever
order, can be too large for the format. Elsewhere they are computed in float64, with a bound of the
error that any order of rounded sums can have: terms x rounding x sum of magnitudes.
"""

from __future__ import annotations

import numpy as np

from triton_fuzz.elements import ELEMENTS
from triton_fuzz.numpy_block import Block, rounded, wide
from triton_fuzz.numpy_scalars import larger, smaller

__all__ = ["REDUCTIONS"]

_WHOLE = {e.dtype: e.whole for e in ELEMENTS.values()}


def _for_sum(x):
    """Return what sums are computed in: narrow integers in 32 bits, floats as they are."""
    if x.dtype.kind not in "iub" or x.dtype.itemsize >= 4:
        return x
    return x.to(np.int32 if x.dtype.kind == "i" else np.uint32)


def _for_extreme(x):
    """Return what extremes are computed in: all that is narrow in 32 bits, integers signed."""
    if x.dtype.itemsize >= 4:
        return x
    return x.to(np.int32 if x.dtype.kind in "iub" else np.float32)


def _only_bfloat16(x):
    return x.to(np.float32) if x.dtype.name == "bfloat16" else x


def _along(x, axis):
    """Return the block and an axis; of all elements if none is given."""
    if axis is None:
        return x.moved(np.ravel), 0
    return x, axis


def _is_whole(numbers, magnitude, dtype):
    whole = np.isfinite(numbers) & (np.trunc(numbers) == numbers)
    return bool(whole.all() and (magnitude <= _WHOLE[dtype]).all())


def _sum(x, axis=None, keep_dims=False, dtype=None):
    x = x.to(dtype) if dtype is not None else _for_sum(x)
    x, along = _along(x, axis)
    options = {"axis": along, "keepdims": keep_dims}
    if x.dtype.kind in "iu":
        return Block(x.numbers.sum(dtype=x.dtype, **options))
    numbers, error = wide(x)
    total, size = numbers.sum(**options), np.abs(numbers).sum(**options)
    if x.error is None and _is_whole(numbers, size, x.dtype):
        return Block(total.astype(x.dtype))
    return _inexact(total, size, error.sum(**options), numbers.shape[along], x.dtype)


def _inexact(total, size, error, terms, dtype):
    """Return a sum of terms whose magnitudes add up to a size, in any order."""
    once = rounded(np.zeros_like(size), size + error, dtype).error - size - error
    return Block(total, error + 1.1 * terms * once, dtype)


def _cumsum(x, axis=0, reverse=False):
    x = _for_sum(_only_bfloat16(x))
    if x.dtype.kind in "iu":
        return _turned(x, axis, reverse, lambda a: np.cumsum(a, axis, dtype=a.dtype))
    turn = (lambda a: np.flip(a, axis)) if reverse else (lambda a: a)
    numbers, error = (turn(a) for a in wide(x))
    total, size = np.cumsum(numbers, axis), np.cumsum(np.abs(numbers), axis)
    if x.error is None and _is_whole(numbers, size, x.dtype):
        return Block(turn(total).astype(x.dtype))
    found = _inexact(total, size, np.cumsum(error, axis), numbers.shape[axis], x.dtype)
    return found.moved(turn)


def _cumprod(x, axis=0, reverse=False):
    return _turned(x, axis, reverse, lambda a: np.cumprod(a, axis, dtype=a.dtype))


def _turned(x, axis, reverse, f):
    numbers = np.flip(x.numbers, axis) if reverse else x.numbers
    found = f(numbers)
    return Block(np.flip(found, axis) if reverse else found)


def _extreme(choose, pick):
    def run(
        x, axis=None, return_indices=False, return_indices_tie_break_left=True, keep_dims=False
    ):
        if return_indices:
            x = _only_bfloat16(x)
            at = pick(x.numbers, axis=axis)  # NumPy's also take the first of equals
            index = np.expand_dims(at, axis)
            value = np.take_along_axis(x.numbers, index, axis)
            if not keep_dims:
                value, index = value.squeeze(axis), at
            return Block(value), Block(np.asarray(index, np.int32))
        x = _for_extreme(x)
        x, along = _along(x, axis)
        parts = np.moveaxis(x.numbers, along, 0)
        found = parts[0]
        for part in parts[1:]:
            found = choose(found, part)
        return Block(np.expand_dims(found, along) if keep_dims else found)

    return run


def _index(extreme):
    def run(x, axis, tie_break_left=True, keep_dims=False):
        return extreme(x, axis, return_indices=True, keep_dims=keep_dims)[1]

    return run


def _fold(f):
    def run(x, axis=None, keep_dims=False):
        x, along = _along(x, axis)
        return Block(f(x.numbers, along, keepdims=keep_dims).astype(x.dtype))

    return run


def _slices(xs, axis):
    count = xs[0].shape[axis]
    take = lambda i: [x.moved(lambda a: np.take(a, i, axis)) for x in xs]
    return [take(i) for i in range(count)]


def _reduce(x, axis, combine_fn, keep_dims=False):
    """Combine from the first element to the last."""
    xs = x if isinstance(x, tuple) else (x,)
    total, *rest = _slices(xs, axis)
    for part in rest:
        total = combine_fn(*total, *part)
        total = list(total) if isinstance(total, tuple) else [total]
    if keep_dims:
        total = [t.moved(lambda a: np.expand_dims(a, axis)) for t in total]
    return tuple(total) if isinstance(x, tuple) else total[0]


def _scan(x, axis, combine_fn, reverse=False):
    xs = x if isinstance(x, tuple) else (x,)
    parts = _slices(xs, axis)
    parts = parts[::-1] if reverse else parts
    totals = [parts[0]]
    for part in parts[1:]:
        total = combine_fn(*totals[-1], *part)
        totals.append(list(total) if isinstance(total, tuple) else [total])
    totals = totals[::-1] if reverse else totals
    found = tuple(Block(np.stack([t.numbers for t in c], axis)) for c in zip(*totals, strict=True))
    return found if isinstance(x, tuple) else found[0]


def _dot(a, b, acc=None, out_dtype=None, input_precision=None):
    if a.dtype.kind == "i":
        product = a.numbers.astype(np.int32) @ b.numbers.astype(np.int32)
        return Block(product if acc is None else product + acc.numbers)
    dtype = np.dtype(np.float64 if a.dtype == np.float64 else np.float32)
    (x, _), (y, _) = wide(a), wide(b)
    start, error = wide(acc) if acc is not None else (np.zeros(()), np.zeros(()))
    total, size = x @ y + start, np.abs(x) @ np.abs(y) + np.abs(start)
    whole = _is_whole(x, np.zeros(()), dtype) and _is_whole(y, np.zeros(()), dtype)
    if whole and (acc is None or acc.error is None) and _is_whole(start, size, dtype):
        return Block(total.astype(dtype))
    return _inexact(total, size, error, a.shape[-1] + 2, dtype)


_max, _min = _extreme(larger, np.argmax), _extreme(smaller, np.argmin)

REDUCTIONS = {
    "sum": _sum, "cumsum": _cumsum, "cumprod": _cumprod, "max": _max, "min": _min,
    "argmax": _index(_max), "argmin": _index(_min), "xor_sum": _fold(np.bitwise_xor.reduce),
    "reduce_or": _fold(np.bitwise_or.reduce), "reduce": _reduce, "associative_scan": _scan,
    "dot": _dot,
}  # fmt: skip

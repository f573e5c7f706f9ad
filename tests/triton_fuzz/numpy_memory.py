"""Loads, stores and atomics of Triton's language on NumPy arrays."""

from __future__ import annotations

import numpy as np

from triton_fuzz.numpy_block import Block, Pointer, block
from triton_fuzz.numpy_scalars import convert

__all__ = ["ATOMICS", "Memory", "load", "store"]


class Memory:
    """An array, and how far from its numbers a correct kernel may be."""

    def __init__(self, numbers, dtype):
        self.numbers, self.dtype = numbers, dtype
        self.error = np.zeros(numbers.shape)

    def pointer(self):
        return Pointer(self)


def _where(pointer, mask):
    """Return which elements are touched, and their places in order."""
    at = pointer.at
    on = np.ones(at.shape, np.bool_)
    if mask is not None:
        on = np.broadcast_to(block(mask).numbers, at.shape)
    places = at[on]
    if places.size and not (places.min() >= 0 and places.max() < pointer.array.numbers.size):
        raise IndexError(f"the kernel reaches outside of its array: {places}")
    return on, places


def load(pointer, mask=None, other=None, volatile=False):
    """Read elements; `other`, or 0, where masked off."""
    on, places = _where(pointer, mask)
    numbers = np.zeros(on.shape, pointer.array.numbers.dtype)
    if other is not None:
        filler = other.numbers if isinstance(other, Block) else np.asarray(other)
        numbers = np.array(np.broadcast_to(filler.astype(numbers.dtype), on.shape))
    numbers[on] = pointer.array.numbers[places]
    return Block(numbers)


def store(pointer, value, mask=None):
    """Write elements in order."""
    on, places = _where(pointer, mask)
    array = pointer.array
    value = value if isinstance(value, Block) else Block(np.asarray(value, array.dtype))
    value = value.to(array.dtype) if value.dtype != array.dtype else value
    error = np.zeros(()) if value.error is None else value.error
    array.numbers[places] = np.broadcast_to(value.numbers, on.shape)[on].astype(array.numbers.dtype)
    array.error[places] = np.broadcast_to(error, on.shape)[on]


def _atomic(combine):
    def run(pointer, value, mask=None, sem=None):
        on, places = _where(pointer, mask)
        numbers = pointer.array.numbers
        value = value if isinstance(value, Block) else Block(np.asarray(value, numbers.dtype))
        values = np.broadcast_to(convert(value.numbers, numbers.dtype), on.shape)[on]
        before = np.zeros(on.shape, numbers.dtype)
        found = np.zeros(len(places), numbers.dtype)
        for i, (at, x) in enumerate(zip(places.tolist(), values, strict=True)):
            found[i] = numbers[at]
            numbers[at] = combine(numbers[at], x)
        before[on] = found
        return Block(before)

    return run


def _compare_and_swap(pointer, expected, value, sem=None):
    on, places = _where(pointer, None)
    numbers = pointer.array.numbers
    pairs = [np.broadcast_to(x.numbers, on.shape)[on] for x in (expected, value)]
    found = np.zeros(len(places), numbers.dtype)
    for i, (at, wanted, x) in enumerate(zip(places.tolist(), *pairs, strict=True)):
        found[i] = numbers[at]
        numbers[at] = x if numbers[at] == wanted else numbers[at]
    return Block(found.reshape(on.shape))


ATOMICS = {
    "atomic_cas": _compare_and_swap,
    "atomic_add": _atomic(np.add), "atomic_max": _atomic(np.maximum),
    "atomic_min": _atomic(np.minimum), "atomic_and": _atomic(np.bitwise_and),
    "atomic_or": _atomic(np.bitwise_or), "atomic_xor": _atomic(np.bitwise_xor),
    "atomic_xchg": _atomic(lambda old, new: new),
}  # fmt: skip

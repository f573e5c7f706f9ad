"""Block pointers and tensor descriptors of Triton's language on NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from triton_fuzz.numpy_block import Block, Pointer
from triton_fuzz.numpy_memory import load, store

__all__ = ["BLOCK_POINTERS"]


@dataclass(frozen=True)
class _Place:
    """A block somewhere in a strided array."""

    base: Pointer
    shape: tuple
    strides: tuple
    offsets: tuple
    block_shape: tuple

    def pointers(self, checked):
        """Return a block of pointers, and where it lies inside along the checked dimensions."""
        rank = len(self.block_shape)
        at, inside = np.zeros((), np.int64), np.ones(self.block_shape, np.bool_)
        for d in range(rank):
            index = int(self.offsets[d]) + np.arange(self.block_shape[d])
            index = index.reshape([-1 if i == d else 1 for i in range(rank)])
            at = at + index * int(self.strides[d])
            if d in checked:
                inside = inside & (index >= 0) & (index < int(self.shape[d]))
        return self.base + np.where(inside, at, 0), Block(inside)


def _make(base, shape, strides, offsets, block_shape, order):
    return _Place(base, shape, strides, offsets, block_shape)


def _advance(place, offsets):
    moved = tuple(int(a) + int(b) for a, b in zip(place.offsets, offsets, strict=True))
    return replace(place, offsets=moved)


def _load(pointer, mask=None, other=None, boundary_check=(), padding_option="", volatile=False):
    if not isinstance(pointer, _Place):
        return load(pointer, mask, other)
    places, inside = pointer.pointers(boundary_check)
    return load(places, inside, np.nan if padding_option == "nan" else 0)


def _store(pointer, value, mask=None, boundary_check=()):
    if isinstance(pointer, _Place):
        pointer, mask = pointer.pointers(boundary_check)
    store(pointer, value, mask)


class _Descriptor:
    """A tensor whose blocks are loaded and stored by their place; what is outside is 0."""

    def __init__(self, base, shape, strides, block_shape):
        self.place = _Place(base, shape, strides, (0,) * len(shape), block_shape)

    def _at(self, offsets):
        place = _advance(self.place, offsets)
        return place.pointers(range(len(offsets)))

    def load(self, offsets):
        return load(*self._at(offsets), 0)

    def store(self, offsets, value):
        places, inside = self._at(offsets)
        store(places, value, inside)


BLOCK_POINTERS = {
    "make_block_ptr": _make,
    "advance": _advance,
    "load": _load,
    "store": _store,
    "make_tensor_descriptor": _Descriptor,
}

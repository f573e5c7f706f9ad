"""Memory as the reference interpreter sees it: arrays at addresses, every access checked."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asterope.errors import KernelError
from asterope.ir.interpreter.elementwise import dtype_of, signed
from asterope.ir.program import Op
from asterope.ir.types import Type

__all__ = ["Memory", "Watch", "tile_addresses"]

Array = npt.NDArray[Any]


class Watch(Protocol):
    """Looks at every access before it happens."""

    def enter(self, op: Op, program: Sequence[int]) -> None:
        """Take note of which op of which program makes the accesses that follow."""

    def look(self, addresses: Array, size: int, *, writes: bool) -> Array:
        """Return which of the accesses, `size` bytes each, may go ahead; a bool for each."""


class Memory:
    """Arrays at their real addresses; an access outside of all of them is an error.

    With a watch, accesses that it holds back read zeros and write nothing.
    """

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch
        self._names: list[str] = []
        self._starts = np.empty(0, np.uint64)
        self._raw: list[Array] = []

    def add(self, name: str, array: Array) -> int:
        """Make a C-contiguous array addressable and return its address.

        Raises: KernelError for an array with gaps.
        """
        if not array.flags.c_contiguous:
            raise KernelError("the array is not C-contiguous", where=name)
        start = int(array.ctypes.data)
        self.add_range(name, start, start + array.nbytes)
        return start

    def add_range(self, name: str, start: int, end: int) -> None:
        """Make memory addressable that somebody else keeps; what overlaps becomes one range."""
        ranges = [(start, end, name)]
        for old, first, raw in zip(self._names, self._starts.tolist(), self._raw, strict=True):
            ranges.append((first, first + raw.size, old))
        joined: list[tuple[int, int, str]] = []
        for low, high, label in sorted(ranges):
            if joined and low < joined[-1][1]:
                first, last, others = joined.pop()
                names = dict.fromkeys([*others.split(", "), *label.split(", ")])
                joined.append((first, max(last, high), ", ".join(names)))
            else:
                joined.append((low, high, label))
        self._names = [label for _, _, label in joined]
        self._starts = np.array([low for low, _, _ in joined], np.uint64)
        self._raw = [_bytes_at(low, high - low) for low, high, _ in joined]

    def range(self, number: int) -> tuple[int, int]:
        """Return the start and the size of a range."""
        return int(self._starts[number]), self._raw[number].size

    def locate(self, addresses: Array, size: int) -> Array:
        """Return for each address the number of the range that its `size` bytes lie in, or -1."""
        flat = addresses.reshape(-1).astype(np.uint64)
        found = np.searchsorted(self._starts, flat, "right") - 1
        if not len(self._starts):
            return found
        inside = np.maximum(found, 0)
        sizes = np.array([raw.size for raw in self._raw], np.uint64)
        room = sizes[inside]
        offset = flat - self._starts[inside]
        fits = (found >= 0) & (room >= size) & (offset <= room - np.uint64(min(size, 1 << 62)))
        numbers: Array = np.where(fits, found, -1)
        return numbers

    def _places(self, addresses: Array, size: int) -> list[tuple[Array, Array, Array]]:
        """Return by range its bytes, which accesses go there, and which bytes each touches.

        Shapes: addresses [N]; accesses [n]; bytes [n, size].
        Raises: KernelError for the first access outside of all ranges.
        """
        found = self.locate(addresses, size)
        if (found < 0).any():
            raise self._outside(int(addresses[np.argmax(found < 0)]), size)
        places = []
        for number in np.unique(found).tolist():
            which = np.flatnonzero(found == number)
            offset = (addresses[which].astype(np.uint64) - self._starts[number]).astype(np.int64)
            places.append((self._raw[number], which, offset[:, None] + np.arange(size)))
        return places

    def _outside(self, address: int, size: int) -> KernelError:
        address &= (1 << 64) - 1
        below = [n for n, start in zip(self._names, self._starts.tolist(), strict=True)
                 if start <= address]  # fmt: skip
        name = below[-1] if below else "any array"
        return KernelError(f"access of {size} bytes at {address:#x} lies outside of {name}")

    def read(self, addresses: Array, dtype: np.dtype[Any]) -> Array:
        """Read one element of `dtype` at each address, in the shape of `addresses`."""
        flat, size = addresses.reshape(-1), dtype.itemsize
        out = np.zeros((flat.size, size), np.uint8)
        on = self._allowed(flat, size, writes=False)
        for raw, which, touched in self._places(flat[on], size):
            out[on[which]] = raw[touched]
        values = out[:, 0] != 0 if dtype == np.bool_ else out.reshape(-1).view(dtype)
        return values.reshape(addresses.shape)

    def write(self, addresses: Array, values: Array) -> None:
        """Write each value to its address, in row-major order."""
        flat, size = addresses.reshape(-1), values.dtype.itemsize
        new = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, size)
        on = self._allowed(flat, size, writes=True)
        for raw, which, touched in self._places(flat[on], size):
            raw[touched] = new[on[which]]

    def _allowed(self, addresses: Array, size: int, *, writes: bool) -> Array:
        """Return the indices of the accesses that go ahead."""
        if self.watch is None:
            return np.arange(addresses.size)
        return np.flatnonzero(self.watch.look(addresses, size, writes=writes))


def _bytes_at(address: int, size: int) -> Array:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def tile_addresses(op: Op, type_: Type, base: Array, rest: Sequence[Array]) -> tuple[Array, Array]:
    """Return the addresses and the mask of a tile, in its shape."""
    rank = len(type_.shape)

    def along(vector: Array, dim: int) -> Array:
        return vector.reshape([-1 if d == dim else 1 for d in range(rank)])

    size = dtype_of(type_).itemsize
    addresses = np.broadcast_to(base, type_.shape)
    for d in range(rank):
        addresses = addresses + along(signed(rest[d]), d) * size
    mask = np.ones(type_.shape, np.bool_)
    for d, m in zip(op.attrs.get("mask_dims", ()), rest[rank:], strict=False):
        mask = mask & along(m, d)
    return addresses, mask

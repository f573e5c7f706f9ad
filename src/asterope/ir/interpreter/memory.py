"""Memory as the reference interpreter sees it: arrays at addresses, every access checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.errors import KernelError
from asterope.ir.interpreter.elementwise import dtype_of, signed
from asterope.ir.program import Op
from asterope.ir.types import Type

__all__ = ["Memory", "tile_addresses"]

Array = npt.NDArray[Any]


class Memory:
    """Arrays at their real addresses; an access outside of all of them is an error."""

    def __init__(self) -> None:
        self._arrays: list[tuple[str, int, Array]] = []

    def add(self, name: str, array: Array) -> int:
        """Make a C-contiguous array addressable and return its address.

        Raises: KernelError for an array with gaps.
        """
        if not array.flags.c_contiguous:
            raise KernelError("the array is not C-contiguous", where=name)
        raw = array.reshape(-1).view(np.uint8)
        base = int(raw.ctypes.data)
        self._arrays.append((name, base, raw))
        return base

    def _locate(self, address: int, size: int) -> tuple[Array, int]:
        for _, base, raw in self._arrays:
            if base <= address and address + size <= base + raw.size:
                return raw, address - base
        below = [(base, name) for name, base, _ in self._arrays if base <= address]
        name = max(below)[1] if below else "any array"
        raise KernelError(f"access of {size} bytes at {address:#x} lies outside of {name}")

    def read(self, addresses: Array, dtype: np.dtype[Any]) -> Array:
        """Read one element of `dtype` at each address, in the shape of `addresses`."""
        out = np.empty(addresses.size, dtype)
        raw_out = out.view(np.uint8).reshape(addresses.size, dtype.itemsize)
        for i, address in enumerate(addresses.reshape(-1).tolist()):
            raw, offset = self._locate(address, dtype.itemsize)
            raw_out[i] = raw[offset : offset + dtype.itemsize]
        if dtype == np.bool_:
            out = raw_out.reshape(-1) != 0
        return out.reshape(addresses.shape)

    def write(self, addresses: Array, values: Array) -> None:
        """Write each value to its address, in row-major order."""
        size = values.dtype.itemsize
        raw_values = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, size)
        for address, value in zip(addresses.reshape(-1).tolist(), raw_values, strict=True):
            raw, offset = self._locate(address, size)
            raw[offset : offset + size] = value


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

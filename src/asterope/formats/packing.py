"""Codes below eight bits, packed without gaps as a stream of bits.

Element i of a row takes the bits from i x bits upwards, lowest bit first. So two 4-bit codes share
a byte with the even element in the low nibble, and four 6-bit codes fill three bytes, as torchao,
compressed-tensors and modelopt store them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.errors import FormatError, ShapeError
from asterope.formats.table import ElementFormat, element

__all__ = ["check_packed", "pack", "packed_bytes", "unpack"]


def _narrow(fmt: str | ElementFormat) -> ElementFormat:
    fmt = element(fmt)
    if fmt.bits > 8:
        raise FormatError(f"codes of {fmt.bits} bits are not packed", where=fmt.name)
    return fmt


def packed_bytes(fmt: str | ElementFormat, num: int) -> int:
    """Return the bytes that a row of `num` packed codes takes; the last byte may be partly used."""
    return -(-num * _narrow(fmt).bits // 8)


def pack(codes: npt.NDArray[Any], fmt: str | ElementFormat) -> npt.NDArray[np.uint8]:
    """Pack the codes of each row (the last axis). Unused bits of the last byte are zero.

    Shapes: codes [..., K]; result [..., ceil(K x bits / 8)].
    Raises: FormatError for a code the format does not have.
    """
    fmt = _narrow(fmt)
    codes = np.asarray(codes)
    if codes.dtype != np.uint8 or codes.ndim == 0:
        raise FormatError(f"codes are {codes.dtype}; an array of uint8 is needed", where=fmt.name)
    if (codes > fmt.num_codes - 1).any():
        raise FormatError(f"code {codes.max()} does not fit in {fmt.bits} bits", where=fmt.name)
    bits = np.unpackbits(codes[..., np.newaxis], axis=-1, bitorder="little")[..., : fmt.bits]
    stream = bits.reshape(*codes.shape[:-1], codes.shape[-1] * fmt.bits)
    return np.packbits(stream, axis=-1, bitorder="little")


def check_packed(packed: npt.NDArray[np.uint8], fmt: str | ElementFormat, num: int) -> None:
    """Raise ShapeError if the rows are not as long as `num` packed codes need."""
    if packed.ndim == 0 or packed.shape[-1] != packed_bytes(fmt, num):
        raise ShapeError(
            f"{num} codes take {packed_bytes(fmt, num)} bytes a row, got shape "
            f"{list(packed.shape)}",
            where=element(fmt).name,
        )


def unpack(
    packed: npt.NDArray[np.uint8], fmt: str | ElementFormat, num: int
) -> npt.NDArray[np.uint8]:
    """Unpack `num` codes from each row: the inverse of `pack`.

    Shapes: packed [..., ceil(num x bits / 8)]; result [..., num].
    Raises: ShapeError if the rows are not as long as `num` codes need.
    """
    fmt = _narrow(fmt)
    packed = np.asarray(packed, np.uint8)
    check_packed(packed, fmt, num)
    stream = np.unpackbits(packed, axis=-1, count=num * fmt.bits, bitorder="little")
    bits = stream.reshape(*packed.shape[:-1], num, fmt.bits)
    return np.packbits(bits, axis=-1, bitorder="little")[..., 0]

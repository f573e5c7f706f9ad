"""Encode, decode, pack and unpack, in machine code where the arrays are large.

The definition does the rest, and makes every error: what machine code finds wrong, it does again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.formats import element as definition
from asterope.formats import packing
from asterope.formats.element import Overflow, Rounding
from asterope.formats.native_loops import VALUE_DTYPES, in_order, run_loop
from asterope.formats.native_packing import PACK_GROUP, PACKABLE_BITS, PackCodes, UnpackCodes
from asterope.formats.native_segments import SEGMENT, DecodeSegments, EncodeSegments
from asterope.formats.table import ELEMENTS, ElementFormat, element

__all__ = ["MIN_FAST_SIZE", "NO_SCALES", "decode", "encode", "has_code", "pack", "unpack"]

MIN_FAST_SIZE = 4096
"""Elements from which machine code is worth its call."""

NO_SCALES = np.empty(0, np.float32)


def has_code(fmt: ElementFormat) -> bool:
    """Whether machine code for the format is tested: its row is in the table."""
    return fmt.bits < 32 and ELEMENTS.get(fmt.name) == fmt


def encode(
    x: npt.ArrayLike,
    fmt: str | ElementFormat,
    *,
    rounding: Rounding = "nearest_even",
    overflow: Overflow = "saturate",
    seed: int | None = None,
) -> npt.NDArray[Any]:
    """Return the codes of numbers, rounded: `reference_encode`, which says how, but fast.

    Shapes: x [...]; result the same, one unpacked code per item.
    Raises: FormatError.
    """
    x, fmt = definition.check_encode(x, fmt, rounding=rounding, overflow=overflow, seed=seed)
    if x.size < MIN_FAST_SIZE or not has_code(fmt):
        return definition.encode(x, fmt, rounding=rounding, overflow=overflow, seed=seed)
    dtype = VALUE_DTYPES[x.dtype]
    loop = EncodeSegments(
        element=fmt, rounding=rounding, overflow=overflow, dtype=dtype, scaled=False
    )
    codes = np.empty(x.shape, fmt.code_dtype)
    found_nan = np.zeros(1, np.int32)
    args = (in_order(x), codes, NO_SCALES, found_nan, x.size, SEGMENT, 0, seed or 0)
    run_loop(loop, args, -(-x.size // SEGMENT), SEGMENT * x.itemsize)
    if found_nan[0]:
        return definition.encode(x, fmt, rounding=rounding, overflow=overflow, seed=seed)
    return codes


def decode(codes: npt.ArrayLike, fmt: str | ElementFormat) -> npt.NDArray[np.float32]:
    """Return the numbers that codes stand for: `reference_decode`, but fast.

    Shapes: codes [...], one unpacked code per item; result the same.
    Raises: FormatError for a code the format does not have.
    """
    fmt, codes = element(fmt), np.asarray(codes)
    if codes.size < MIN_FAST_SIZE or not has_code(fmt) or codes.dtype != fmt.code_dtype:
        return definition.decode(codes, fmt)
    values = np.empty(codes.shape, np.float32)
    found_wide = np.zeros(1, np.int32)
    args = (in_order(codes), NO_SCALES, found_wide, values, codes.size, SEGMENT, 0)
    loop = DecodeSegments(element=fmt, scaled=False)
    run_loop(loop, args, -(-codes.size // SEGMENT), SEGMENT * values.itemsize)
    return definition.decode(codes, fmt) if found_wide[0] else values


def _is_one_stream(fmt: ElementFormat, shape: tuple[int, ...]) -> bool:
    """Whether all rows are one stream of bits, without padding between them, and it is long."""
    fills_bytes = shape[-1] * fmt.bits % 8 == 0
    return fills_bytes and math.prod(shape) >= MIN_FAST_SIZE and fmt.bits in PACKABLE_BITS


def pack(codes: npt.NDArray[Any], fmt: str | ElementFormat) -> npt.NDArray[np.uint8]:
    """Pack the codes of each row: `reference_pack`, but fast.

    Shapes: codes [..., K]; result [..., ceil(K x bits / 8)].
    Raises: FormatError for a code the format does not have.
    """
    fmt, codes = element(fmt), np.asarray(codes)
    if codes.dtype != np.uint8 or codes.ndim == 0 or not _is_one_stream(fmt, codes.shape):
        return packing.pack(codes, fmt)
    *rows, row_length = codes.shape
    packed = np.empty((*rows, row_length * fmt.bits // 8), np.uint8)
    stream, num_groups = in_order(codes).reshape(-1), codes.size // PACK_GROUP
    found_wide = np.zeros(1, np.int32)
    run_loop(PackCodes(bits=fmt.bits), (stream, packed, found_wide), num_groups, PACK_GROUP)
    if found_wide[0]:
        return packing.pack(codes, fmt)
    rest = num_groups * PACK_GROUP
    packed.reshape(-1)[rest * fmt.bits // 8 :] = packing.pack(stream[rest:], fmt)
    return packed


def unpack(
    packed: npt.NDArray[np.uint8], fmt: str | ElementFormat, num: int
) -> npt.NDArray[np.uint8]:
    """Unpack `num` codes from each row: `reference_unpack`, but fast.

    Shapes: packed [..., ceil(num x bits / 8)]; result [..., num].
    Raises: ShapeError if the rows are not as long as `num` codes need.
    """
    fmt, packed = element(fmt), np.asarray(packed, np.uint8)
    packing.check_packed(packed, fmt, num)
    shape = (*packed.shape[:-1], num)
    if not _is_one_stream(fmt, shape):
        return packing.unpack(packed, fmt, num)
    codes = np.empty(shape, np.uint8)
    stream, num_groups = in_order(packed).reshape(-1), codes.size // PACK_GROUP
    run_loop(UnpackCodes(bits=fmt.bits), (stream, codes), num_groups, PACK_GROUP)
    rest = num_groups * PACK_GROUP
    tail = stream[rest * fmt.bits // 8 :]
    codes.reshape(-1)[rest:] = packing.unpack(tail, fmt, codes.size - rest)
    return codes

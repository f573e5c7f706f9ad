"""Quantized weights as other tools store them, out of random codes and scales, by NumPy alone.

Each function gives the tensors of one layer by their short names, and the weight they stand for by
the layout's definition, in float32. Nothing of Asterope is used.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

__all__ = ["fp8", "mx", "nvfp4", "packed", "swizzled"]

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])


def packed(codes):
    """Two codes a byte, the even one low."""
    return codes[:, 0::2] | codes[:, 1::2] << 4


def blocks(scales, size):
    """Scales of blocks along K as one an element."""
    return np.repeat(scales, size, axis=1)


def e4m3_codes(rng, shape, low=-448.0, high=448.0):
    return rng.uniform(low, high, shape).astype(np.float32).astype(ml_dtypes.float8_e4m3fn)


def as_torch(array):
    """The same bytes as a tensor, of the type with that name."""
    names = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e8m0fnu": torch.float8_e8m0fnu}
    kind = names.get(array.dtype.name)
    plain = torch.from_numpy(array.view(np.uint8) if kind else np.ascontiguousarray(array))
    return plain.view(kind) if kind else plain


def nvfp4(rng, n, k, *, upper):
    """e2m1 codes under e4m3 scales of 16, under a float32 scale of the tensor."""
    codes = rng.integers(0, 16, (n, k), np.uint8)
    scales = e4m3_codes(rng, (n, k // 16), 1, 448)
    weight = E2M1[codes] * blocks(scales.astype(np.float32), 16) * np.float32(upper)
    return as_torch(packed(codes)), as_torch(scales), torch.from_numpy(weight)


def mx(rng, n, k, *, element):
    """e2m1 or e4m3 codes under powers of two, in bytes of E8M0, for each 32."""
    scales = rng.integers(117, 122, (n, k // 32), np.uint8)
    powers = np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
    if element == "e2m1":
        codes = rng.integers(0, 16, (n, k), np.uint8)
        held, values = packed(codes), E2M1[codes]
    else:
        held = e4m3_codes(rng, (n, k), -4, 4)
        values = held.astype(np.float32)
    return as_torch(held), as_torch(scales), torch.from_numpy(values * blocks(powers, 32))


def fp8(rng, n, k, *, scales):
    """e4m3 codes under float32 scales that have any shape that goes with [n, k]."""
    codes = e4m3_codes(rng, (n, k))
    return as_torch(codes), torch.from_numpy(codes.astype(np.float32) * scales)


def swizzled(scales):
    """Scales in tiles of 128 x 4, padded with zeros, as Blackwell's tensor cores read them.

    In a tile, row r and column c lie at (r % 32) x 16 + (r / 32) x 4 + c.
    """
    n, columns = scales.shape
    tall, wide = -(-n // 128), -(-columns // 4)
    out = np.zeros((tall, wide, 512), np.uint8)
    for r in range(n):
        for c in range(columns):
            out[r // 128, c // 4, r % 32 * 16 + r % 128 // 32 * 4 + c % 4] = scales[r, c]
    return out.reshape(32 * tall, 16 * wide)

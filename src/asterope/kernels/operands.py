"""Check what kernels ask of their operands: they read memory by shape and stride alone."""

from __future__ import annotations

import torch

from asterope.errors import KernelError, ShapeError
from asterope.kernels.cache_formats import CacheRows, lie_alike

__all__ = ["check_cache", "check_product_types", "check_rows", "check_rows_fit", "check_vectors"]

_FP8 = {torch.float8_e4m3fn, torch.float8_e5m2}
_TYPES = {torch.float32, torch.bfloat16, torch.float16} | _FP8


def check_cache(
    kernel: str, k_cache: CacheRows, v_cache: CacheRows, *, rows: int, past: int
) -> int:
    """Check that the caches have room for the rows of all sequences; return how many each has.

    Raises: ShapeError.
    """
    batch, _, capacity, dim = k_cache.shape
    if not lie_alike(k_cache, v_cache):
        raise ShapeError(
            f"keys {list(k_cache.shape)} and values {list(v_cache.shape)} differ", where=kernel
        )
    if tuple(k_cache.stride()[2:]) != (dim, 1):
        raise ShapeError("tokens of a head are not contiguous in the cache", where=kernel)
    return check_rows_fit(kernel, rows=rows, batch=batch, past=past, capacity=capacity)


def check_rows_fit(kernel: str, *, rows: int, batch: int, past: int, capacity: int) -> int:
    """Check that a cache has room for the rows of all sequences; return how many each has.

    Raises: ShapeError.
    """
    if batch == 0 or rows % batch:
        raise ShapeError(f"{rows} rows are not those of {batch} sequences", where=kernel)
    tokens = rows // batch
    if not 0 <= past <= capacity - tokens:
        raise ShapeError(
            f"{past} + {tokens} tokens are outside the cache's {capacity}", where=kernel
        )
    return tokens


def check_product_types(kernel: str, x: torch.Tensor, weight: torch.Tensor) -> None:
    """Check that the tensor unit multiplies both types, and that x's holds the weight's.

    Raises: KernelError.
    """
    widened = weight.dtype.itemsize < x.dtype.itemsize or (x.dtype in _FP8 and weight.dtype in _FP8)
    if {x.dtype, weight.dtype} <= _TYPES and (x.dtype == weight.dtype or widened):
        return
    kinds = [str(dtype).removeprefix("torch.") for dtype in (x.dtype, weight.dtype)]
    raise KernelError(
        f"x of {kinds[0]} is not multiplied by a weight of {kinds[1]}",
        where=kernel,
        hint="types are float32, bfloat16, float16 and fp8; that of the weight is x's or narrower",
    )


def check_rows(kernel: str, **matrices: torch.Tensor) -> None:
    """Check that each is a matrix whose rows lie in one piece; they may lie far apart.

    Raises: ShapeError naming the operand.
    """
    for name, matrix in matrices.items():
        if matrix.dim() != 2:
            raise ShapeError(f"{name} {list(matrix.shape)} is not a matrix", where=kernel)
        if matrix.stride(1) != 1 and matrix.shape[1] > 1:
            raise ShapeError(
                f"rows of {name} {list(matrix.shape)} are not contiguous",
                where=kernel,
                hint="call .contiguous()",
            )


def check_vectors(kernel: str, length: int, **vectors: torch.Tensor | None) -> None:
    """Check that each vector there is has that length, in one piece.

    Raises: ShapeError naming the operand.
    """
    for name, vector in vectors.items():
        if vector is None:
            continue
        if tuple(vector.shape) != (length,):
            raise ShapeError(f"{name} has shape {list(vector.shape)}, not {[length]}", where=kernel)
        if vector.stride(0) != 1 and length > 1:
            raise ShapeError(
                f"{name} {[length]} is not contiguous", where=kernel, hint="call .contiguous()"
            )

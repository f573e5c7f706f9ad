"""Buffers in another order: transposition through registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asterope.host.values import Buffer
from asterope.native import Val

if TYPE_CHECKING:
    from asterope.host.lower import Lowering

__all__ = ["is_row_major", "transpose_into", "transposed"]

_TILE = 16


def is_row_major(buffer: Buffer) -> bool:
    """Whether a buffer's elements lie in row-major order without gaps."""
    stride = 1
    for size, found in zip(reversed(buffer.type.shape), reversed(buffer.strides), strict=True):
        if size > 1 and found != stride:
            return False
        stride *= size
    return True


def transpose_into(low: Lowering, source: Buffer, target: Buffer) -> None:
    """Copy a matrix with neighbours along dimension 0 to one with neighbours along dimension 1.

    Cost: one load, log2(16) shuffles and one store for 16 elements.
    """
    fn = low.fn
    rows, columns = source.type.shape
    size = min(_TILE, rows & -rows, columns & -columns)
    if source.strides[0] != 1:
        size = 1
    with fn.loop(0, columns, size) as c, fn.loop(0, rows, size) as r:
        if size == 1:
            fn.store(fn.load(source.address((r, c)), source.kind), target.address((r, c)))
            return
        vectors = [fn.load(source.address((r, c + i)), source.kind, size) for i in range(size)]
        for i, vector in enumerate(transposed(vectors)):
            fn.store(vector, target.address((r + i, c)))


def transposed(vectors: list[Val]) -> list[Val]:
    """Transpose a square of registers: exchange halves, then quarters, and so on."""
    size = len(vectors)
    distance = size // 2
    while distance:
        following = list(vectors)
        for i in range(size):
            if i & distance:
                continue
            low, high = vectors[i], vectors[i + distance]
            following[i] = low.shuffle(
                [j if not j & distance else size + j - distance for j in range(size)], high
            )
            following[i + distance] = low.shuffle(
                [j + distance if not j & distance else size + j for j in range(size)], high
            )
        vectors = following
        distance //= 2
    return vectors

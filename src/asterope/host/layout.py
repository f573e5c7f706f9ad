"""Buffers in another order: transposition through registers."""

from __future__ import annotations

from collections.abc import Callable

from asterope.host.values import Buffer
from asterope.native import BITS, Function, Val

__all__ = ["copy_turned", "is_row_major", "strides_of", "transposed", "turn"]


def is_row_major(buffer: Buffer) -> bool:
    """Whether a buffer's elements lie in row-major order without gaps."""
    stride = 1
    for size, found in zip(reversed(buffer.type.shape), reversed(buffer.strides), strict=True):
        if size > 1 and found != stride:
            return False
        stride *= size
    return True


def strides_of(shape: tuple[int, ...], lane: int = -1) -> tuple[int, ...]:
    """Return strides without gaps, neighbours along `lane` (the last dimension)."""
    order = list(range(len(shape)))
    if lane >= 0:
        order.remove(lane)
        order.append(lane)
    strides, stride = [0] * len(shape), 1
    for d in reversed(order):
        strides[d] = stride
        stride *= shape[d]
    return tuple(strides)


def copy_turned(
    fn: Function, source: Val, target: Val, shape: tuple[int, ...], strides: tuple[int, ...],
    pitch: int, kind: str, to: str,
) -> None:  # fmt: skip
    """Copy a matrix, best with neighbours along dimension 0, to rows `pitch` elements apart.

    Elements of `kind` are widened to `to` on the way.
    """
    rows, columns = shape
    lanes = 16 if fn.isa.has_wide_masks else 8 if fn.isa.has_fma else 4
    size = min(lanes, rows & -rows, columns & -columns) if strides[0] == 1 else 1

    def load(r: Val, c: Val) -> Val:
        address = source.offset((r * strides[0] + c * strides[1]) * (BITS[kind] // 8))
        part = fn.load(address, kind, size if size > 1 else 0)
        return part if kind == to else part.fext(to) if part.is_float else part.sext(to)

    turn(fn, (rows, columns), size, load, target, pitch)


def turn(
    fn: Function, shape: tuple[int, int], size: int, load: Callable[[Val, Val], Val], target: Val,
    pitch: int,
) -> None:  # fmt: skip
    """Write a matrix in rows `pitch` elements apart, of which `load(row, column)` gives columns.

    It gives `size` rows of one column at once; `size` divides both dimensions.
    Cost: log2(size) shuffles and one store for each of them.
    """
    rows, columns = shape
    with fn.loop(0, columns, size) as c, fn.loop(0, rows, size) as r:
        for i, vector in enumerate(transposed([load(r, c + i) for i in range(size)])):
            place = target.offset(((r + i) * pitch + c) * (BITS[vector.kind] // 8))
            fn.store(vector, place)


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

"""What ops mean that run a named op or a block of scalars over elements: reduce, scan, map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.ir.interpreter.elementwise import ELEMENTWISE, dtype_of
from asterope.ir.program import Block, Op, Value
from asterope.ir.types import Type

__all__ = ["BY_ELEMENT_OPS", "REDUCE_PARTIALS"]

Array = npt.NDArray[Any]
RunBlock = Callable[[Block, Sequence[Array]], list[Array]]
_Combine = Callable[[list[Array], list[Array]], list[Array]]

REDUCE_PARTIALS = 64


def _each(run: RunBlock, block: Block, args: Sequence[Array], types: Sequence[Type]) -> list[Array]:
    """Run a block once for every element of arrays of one shape."""
    shape = args[0].shape
    results = [np.empty(shape, dtype_of(t)) for t in types]
    for at in np.ndindex(shape):
        given = run(block, [np.asarray(a[at]) for a in args])
        for result, value in zip(results, given, strict=True):
            result[at] = value
    return results


def _combine_of(op: Op, run: RunBlock) -> _Combine:
    """Return how two lists of arrays, one an operand, are combined element by element."""
    types = [Type(v.type.elem) for v in op.operands]
    if op.blocks:
        (block,) = op.blocks
        return lambda a, b: _each(run, block, [*a, *b], types)

    def named(a: list[Array], b: list[Array]) -> list[Array]:
        pair = Op(str(op.attrs["combine"]), [], {}, [])
        pair.results = [Value(types[0].with_shape(a[0].shape), pair)]
        return [np.asarray(ELEMENTWISE[pair.name](pair, a[0], b[0]))]

    return named


def _reduce(op: Op, run: RunBlock, *blocks: Array) -> list[Array]:
    """Combine along an axis: 64 partials in ascending order, then halving."""
    combine = _combine_of(op, run)
    xs = [np.moveaxis(a, op.attrs["axis"], 0) for a in blocks]
    size = len(xs[0])
    width = min(REDUCE_PARTIALS, size)

    def over_first(first: list[Array], rest: list[Array]) -> list[Array]:
        count = len(rest[0])
        done = combine([a[:count] for a in first], rest)
        return [np.concatenate([d, a[count:]]) for d, a in zip(done, first, strict=True)]

    partials = [x[:width] for x in xs]
    for start in range(width, size, width):
        partials = over_first(partials, [x[start : start + width] for x in xs])
    while len(partials[0]) > 1:
        half = (len(partials[0]) + 1) // 2
        partials = over_first([p[:half] for p in partials], [p[half:] for p in partials])
    return [p[0] for p in partials]


def _scan(op: Op, run: RunBlock, *blocks: Array) -> list[Array]:
    """Keep the total after each element, in order."""
    combine, axis = _combine_of(op, run), op.attrs["axis"]
    xs = [np.moveaxis(a, axis, 0) for a in blocks]
    if op.attrs["reverse"]:
        xs = [x[::-1] for x in xs]
    totals = [[x[0] for x in xs]]
    for i in range(1, len(xs[0])):
        totals.append(combine(totals[-1], [x[i] for x in xs]))
    results = [np.stack(column) for column in zip(*totals, strict=True)]
    if op.attrs["reverse"]:
        results = [r[::-1] for r in results]
    return [np.moveaxis(r, 0, axis) for r in results]


def _map(op: Op, run: RunBlock, *blocks: Array) -> list[Array]:
    """Run the block for every `pack` elements."""
    pack, shape = op.attrs["pack"], blocks[0].shape
    packed = [a.reshape(-1, pack)[:, i] for a in blocks for i in range(pack)]
    types = [Type(r.type.elem) for r in op.results for _ in range(pack)]
    found = _each(run, op.blocks[0], packed, types)
    groups = [found[i : i + pack] for i in range(0, len(found), pack)]
    return [np.stack(group, -1).reshape(shape) for group in groups]


BY_ELEMENT_OPS: dict[str, Callable[..., list[Array]]] = {
    "reduce": _reduce,
    "scan": _scan,
    "map": _map,
}

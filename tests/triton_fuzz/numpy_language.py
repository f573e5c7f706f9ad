"""`triton.language` a second time: the same names, on NumPy, independent of Asterope.

A kernel is Python; run with this in the place of `tl` it computes what the language means by it.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from triton_fuzz.elements import ELEMENTS
from triton_fuzz.numpy_block import Block, block, rounded
from triton_fuzz.numpy_block_pointers import BLOCK_POINTERS
from triton_fuzz.numpy_memory import ATOMICS
from triton_fuzz.numpy_reductions import REDUCTIONS
from triton_fuzz.numpy_scalars import fma32, larger, smaller

__all__ = ["language"]

_erf = np.vectorize(math.erf, otypes=[np.float64])
# Twice what the functions may be off: 2 units in the last place from the correctly rounded value.
_FUNCTION_ERROR = 2.0**-20


def _pair(a, b):
    a, b = (a, b) if isinstance(a, Block) else (b._with(a)[1], b)
    return a._with(b)


def where(condition, x, y):
    """Choose; numbers take the other's type."""
    if isinstance(x, Block) or isinstance(y, Block):
        x, y = _pair(x, y)
    c = block(condition).numbers
    if x.error is None and y.error is None:
        return Block(np.where(c, x.numbers, y.numbers))
    errors = [np.zeros(v.shape) if v.error is None else v.error for v in (x, y)]
    return Block(np.where(c, x.numbers, y.numbers), np.where(c, *errors), x.dtype)


def _choice(choose, nan):
    def run(x, y, propagate_nan=None):
        a, b = (v.numbers for v in _pair(x, y))
        found = choose(a, b)
        if propagate_nan == "all":
            found = np.where(np.isnan(a) | np.isnan(b), np.full((), np.nan, found.dtype), found)
        return Block(found)

    return run


def _function(f):
    def run(x):
        numbers = f(x.numbers.astype(np.float64))
        again = rounded(numbers, np.abs(numbers) * _FUNCTION_ERROR, x.dtype)
        return again if x.dtype == np.float32 else Block(numbers, again.error * 4, x.dtype)

    return run


def _exactly(f):
    return lambda x: Block(f(x.numbers))


def _umulhi(a, b):
    width = 8 * a.dtype.itemsize
    mask = (1 << width) - 1
    x, y = np.broadcast_arrays(a.numbers, b.numbers)
    pairs = zip(x.ravel().tolist(), y.ravel().tolist(), strict=True)
    high = np.array([((p & mask) * (q & mask)) >> width for p, q in pairs], f"u{width // 8}")
    return Block(high.reshape(x.shape).view(a.dtype))


def _range(*bounds):
    return (Block(np.asarray(i, np.int32)) for i in range(*bounds))


def _split(x):
    return x[..., 0], x[..., 1]


def _join(x, y):
    return Block(np.stack([x.numbers, y.numbers], -1))


def _interleave(x, y):
    joined = _join(x, y).numbers
    return Block(joined.reshape(*joined.shape[:-2], -1))


def _reshape(x, *shape):
    shape = shape[0] if shape and isinstance(shape[0], (tuple, list)) else shape
    return x.moved(lambda a: a.reshape(shape))


def _permute(x, *order):
    order = order[0] if isinstance(order[0], (tuple, list)) else order
    return x.moved(lambda a: a.transpose(order))


def _histogram(x, num_bins, mask=None):
    values = x.numbers if mask is None else x.numbers[mask.numbers]
    return Block(np.array([(values == i).sum() for i in range(num_bins)], np.int32))


def _gather(src, index, axis):
    return Block(np.take_along_axis(src.numbers, index.numbers.astype(np.int64), axis))


_NAMES = {
    **{e.name: e.dtype for e in ELEMENTS.values()},
    **REDUCTIONS,
    **ATOMICS,
    **BLOCK_POINTERS,
    "constexpr": int,
    "PropagateNan": SimpleNamespace(ALL="all", NONE="none"),
    "range": _range,
    "static_range": range,
    "arange": lambda start, end: Block(np.arange(start, end, dtype=np.int32)),
    "full": lambda shape, value, dtype: Block(np.full(shape, value, dtype)),
    "zeros": lambda shape, dtype: Block(np.zeros(shape, dtype)),
    "cast": lambda x, dtype: x.to(dtype),
    "where": where,
    "maximum": _choice(larger, "all"),
    "minimum": _choice(smaller, "all"),
    "abs": _exactly(np.abs),
    "floor": _exactly(np.floor),
    "ceil": _exactly(np.ceil),
    "sqrt": _exactly(np.sqrt),
    "sqrt_rn": _exactly(np.sqrt),
    "div_rn": lambda x, y: x / y,
    "fdiv": lambda x, y: x / y,
    "fma": lambda x, y, z: Block(fma32(x.numbers, y.numbers, z.numbers)),
    "umulhi": _umulhi,
    "cdiv": lambda x, y: (x + (y - 1)) // y,
    "exp": _function(np.exp),
    "exp2": _function(np.exp2),
    "log": _function(np.log),
    "log2": _function(np.log2),
    "sin": _function(np.sin),
    "cos": _function(np.cos),
    "rsqrt": _function(lambda a: 1 / np.sqrt(a)),
    "erf": _function(_erf),
    "broadcast_to": lambda x, shape: x.moved(lambda a: np.broadcast_to(a, shape)),
    "expand_dims": lambda x, axis: x.moved(lambda a: np.expand_dims(a, axis)),
    "reshape": _reshape,
    "permute": _permute,
    "trans": lambda x, *order: _permute(x, *(order or (1, 0))),
    "ravel": lambda x: x.moved(np.ravel),
    "flip": lambda x, dim: x.moved(lambda a: np.flip(a, dim)),
    "sort": lambda x, descending=False: x.moved(lambda a: np.sort(a)[:: -1 if descending else 1]),
    "join": _join,
    "split": _split,
    "interleave": _interleave,
    "histogram": _histogram,
    "gather": _gather,
}


def language(grid):
    """Return the language as a program of a grid sees it; set `program` to say which."""
    tl = SimpleNamespace(**_NAMES, program=(0, 0, 0))
    tl.program_id = lambda axis: Block(np.asarray(tl.program[axis], np.int32))
    tl.num_programs = lambda axis: Block(np.asarray(grid[axis], np.int32))
    return tl

"""Run one op of tile IR on arrays through the reference interpreter."""

from __future__ import annotations

import numpy as np

from asterope.ir import Type, dtype_of
from ir_builder import Writer, interpreted

__all__ = ["array_of", "run_op"]


def array_of(elem, values):
    """Make an array that holds values of an element type."""
    return np.array(values).astype(dtype_of(Type(elem)))


def run_op(name, *operands, to=None, results=1, **attrs):
    """Return an op's result (or results) on operands given as (element, array) pairs.

    Arrays of shape () are scalars. `to` is the result's type and defaults to the first operand's.
    """
    writer = Writer()
    values, arrays = [], []
    for i, (elem, array) in enumerate(operands):
        writer.param(f"x{i}", f"ptr<{elem}>")
        values.append(writer.load(f"x{i}", np.shape(array)))
        arrays.append(np.reshape(array, -1))
    type_ = to or values[0].type
    types = [type_ if isinstance(type_, Type) else writer.const(type_, 0).type] * results
    outs = []
    for i, value in enumerate(writer.op(name, *values, to=types, **attrs).results):
        writer.param(f"y{i}", f"ptr<{types[i].elem}>")
        writer.store(f"y{i}", value)
        outs.append(np.zeros(types[i].num_elements, dtype_of(types[i])))
    memory = interpreted(writer.done(), [*arrays, *outs])
    found = [m.reshape(t.shape) for m, t in zip(memory[len(arrays) :], types, strict=True)]
    return found if results > 1 else found[0]

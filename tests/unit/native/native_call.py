"""Compile one small function and call it on arrays."""

from __future__ import annotations

import ctypes

import numpy as np

from asterope.native import BITS, Library, Module, compile_object, isa_named

__all__ = ["compiled", "lanewise"]


def compiled(isa, params, body):
    """Return a callable over integers and arrays, which it passes on as addresses."""
    module = Module(isa_named(isa))
    fn = module.function("f", [(kind, f"p{i}") for i, kind in enumerate(params)])
    body(fn, *fn.args)
    fn.finish()
    library = Library(compile_object(module.text(), isa_named(isa)), ["f"], {})
    c_types = [ctypes.c_void_p if kind == "ptr" else ctypes.c_int64 for kind in params]
    function = ctypes.CFUNCTYPE(None, *c_types)(library.symbols["f"])

    def call(*args):
        assert library
        function(*[a.ctypes.data if isinstance(a, np.ndarray) else a for a in args])

    return call


def _kind(array):
    return "i1" if array.dtype == np.bool_ else f"{array.dtype.kind}{8 * array.itemsize}"


def lanewise(isa, lanes, emit, *arrays, dtype=None):
    """Return `emit(*vectors)` over equally long arrays, computed in chunks of `lanes` lanes.

    `lanes` 0 computes on scalars. A value of kind i1 comes back as bool. Where `emit` gives
    several values, an array of each comes back; they have one dtype, the first input's or `dtype`.
    """
    kinds = [_kind(a).replace("u", "i") for a in arrays]
    size, step = arrays[0].size, lanes or 1
    assert size % step == 0
    item_bytes = np.dtype(dtype or arrays[0].dtype).itemsize
    num_results = 0

    def body(fn, target, *sources):
        nonlocal num_results
        with fn.loop(0, size, step) as i:
            inputs = []
            for source, kind in zip(sources, kinds, strict=True):
                at = source.offset(i * max(1, BITS[kind] // 8))
                inputs.append(fn.load(at, kind, lanes))
            results = emit(*inputs)
            results = results if isinstance(results, tuple) else (results,)
            num_results = len(results)
            for k, result in enumerate(results):
                fn.store(result.splat(lanes), target.offset((i + k * size) * item_bytes))

    call = compiled(isa, ["ptr", *["ptr"] * len(arrays)], body)
    out = np.zeros((num_results, size), dtype or arrays[0].dtype)
    call(out, *arrays)
    return out if num_results > 1 else out[0]

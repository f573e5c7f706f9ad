"""Run a Triton kernel by the reference interpreter, with no driver."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from triton_to_tiles import tile_ir

from asterope.compiler import find_tiles, simplify
from asterope.ir import parse_kernel, print_kernel
from ir_builder import interpreted

__all__ = ["ELEMENTS", "random_array", "run"]

ELEMENTS = {
    "fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp64": np.float64,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u8": np.uint8,
    "u16": np.uint16, "u32": np.uint32, "u64": np.uint64, "i1": np.bool_,
    "fp8e4nv": ml_dtypes.float8_e4m3fn, "fp8e5": ml_dtypes.float8_e5m2,
    "fp8e4b8": ml_dtypes.float8_e4m3fnuz, "fp8e5b16": ml_dtypes.float8_e5m2fnuz,
}  # fmt: skip


def run(fn, signature, arguments, constants=None, grid=(1, 1, 1)):
    """Return the arrays after the interpreter ran the kernel; native code has to agree.

    The text is the binary form: what is parsed back from it is run too.
    """
    kernel = tile_ir(fn, signature, constants)
    # NumPy's unsigned integers are tile IR's integers, read without a sign.
    views = [a.view(a.dtype.str.replace("u", "i")) if unsigned(a) else a for a in arguments]
    expected = interpreted(kernel, views, grid)
    again = parse_kernel(print_kernel(kernel))
    for reading in (kernel, simplify(find_tiles(simplify(again)))):
        for got, wanted in zip(interpreted(reading, views, grid), expected, strict=True):
            assert got.tobytes() == wanted.tobytes()
    arrays = [a for a in arguments if isinstance(a, np.ndarray)]
    return [e.view(a.dtype) for e, a in zip(expected, arrays, strict=True)], again, views


def unsigned(a):
    return isinstance(a, np.ndarray) and a.dtype.kind == "u"


def random_array(elem, count, seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(ELEMENTS[elem])
    if elem == "i1":
        return rng.random(count) < 0.5
    if elem[0] in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, count, dtype, endpoint=True)
    return (rng.standard_normal(count) * 3).astype(np.float32).astype(dtype)

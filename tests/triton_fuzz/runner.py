"""Run a kernel three ways and say where they differ: on the host, interpreted, and by NumPy."""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import torch

from asterope.ir import interpret
from ir_builder import differing
from triton_fuzz.combines import HEADER
from triton_fuzz.numpy_language import language
from triton_fuzz.numpy_memory import Memory

__all__ = ["DifferenceError", "differences", "module_of", "numpy_run"]

_IMPORTS = "import triton\nimport triton.language as tl\n"
_TRITON = SimpleNamespace(jit=lambda f=None, **_: f or (lambda g: g))


class DifferenceError(AssertionError):
    """Two of the three disagree, or one of them fails; `reason` says which."""

    def __init__(self, text, reason):
        super().__init__(text)
        self.reason = reason


def module_of(kernels, path):
    """Write kernels to a file, which is where Triton reads them, and import it."""
    path.write_text(_IMPORTS + HEADER + "\n\n" + "\n\n".join(k.source() for k in kernels))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differences(kernel, module):
    """Run a kernel of a module three ways.

    Raises: DifferenceError with the kernel's source and the first element that differs.
    """
    try:
        _compare(kernel, getattr(module, kernel.name))
    except DifferenceError as error:
        raise DifferenceError(_report(kernel, error), error.reason) from None
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise DifferenceError(_report(kernel, text), type(error).__name__) from error


def _report(kernel, error):
    args = ", ".join(
        [f"{a.name}: {a.elem.name} {a.role} {a.content} {a.kind}" for a in kernel.arrays]
        + [f"{name}={value}" for name, value in kernel.numbers.items()]
        + [f"{b} is {a}" for b, a in kernel.aliases.items()]
    )
    return f"seed {kernel.seed}, grid {kernel.grid}, {args}\n{kernel.source()}{error}"


def _compare(kernel, fn):
    contents = kernel.contents()
    memories = numpy_run(kernel, contents)  # first: it notices what reaches outside of an array
    by_host = _each(contents, _tensor)
    compiled = fn[kernel.grid](*by_host.values(), *kernel.numbers.values())
    tiles = compiled.function.kernel  # what the launcher ran
    interpreted = _each(contents, lambda a: _signed(a).copy())
    known = {**interpreted, **kernel.numbers}
    interpret(tiles, kernel.grid, [known[p.name] for p in tiles.params])
    for array in kernel.arrays:
        host = by_host[array.name].view(torch.uint8).numpy().view(array.elem.dtype)
        other = interpreted[array.name].view(array.elem.dtype)
        memory = memories[array.name]
        if array.kind == "exact":
            _assert_bits(array, "host", host, "NumPy", memory.numbers)
        else:
            _assert_near(array, host, memory)
        if array.kind != "loose":
            _assert_bits(array, "host", host, "interpreter", other)
        else:
            _assert_near(array, other, memory)


def _each(contents, make):
    """Make something of every array; of one that is passed twice, once."""
    made = {}
    return {name: made.setdefault(id(a), make(a)) for name, a in contents.items()}


def _tensor(array):
    """Return a tensor with a copy of the numbers."""
    raw = torch.from_numpy(array.view(np.uint8).copy())
    name = {"float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2"}
    return raw.view(getattr(torch, name.get(array.dtype.name, array.dtype.name)))


def _signed(array):
    """Return NumPy's unsigned integers as tile IR's, which are read without a sign."""
    return array.view(f"i{array.itemsize}") if array.dtype.kind == "u" else array


def numpy_run(kernel, contents):
    """Return what the arrays hold after the source ran as Python, program after program."""
    tl = language(kernel.grid)
    scope = {"triton": _TRITON, "tl": tl, "range": tl.range}
    exec(compile(HEADER + kernel.source(), f"<numpy {kernel.name}>", "exec"), scope)
    # What is only nearly known is kept in float64, with a bound.
    exact = {a.name for a in kernel.arrays if a.kind == "exact"}
    memories = _each(contents, lambda a: Memory(a.copy(), a.dtype))
    for name in memories.keys() - exact:
        memories[name].numbers = memories[name].numbers.astype(np.float64)
    with np.errstate(all="ignore"):
        for program in range(math.prod(kernel.grid)):
            tl.program = (program % kernel.grid[0], program // kernel.grid[0], 0)
            pointers = [m.pointer() for m in memories.values()]
            scope[kernel.name](*pointers, *kernel.numbers.values())
    return memories


def _assert_bits(array, one, x, other, y):
    differ = differing(x, np.ascontiguousarray(y))
    if differ.any():
        at = int(np.argmax(differ))
        raise DifferenceError(
            f"{array.name}[{at}]: {one} {x[at]!r}, {other} {y[at]!r} ({differ.sum()} differ)",
            f"{one} and {other}",
        )


def _assert_near(array, x, memory):
    with np.errstate(all="ignore"):
        wanted, error = memory.numbers, memory.error
        largest = np.finfo(np.float64).max if array.elem.bits == 64 else 3.4e38
        checked = np.isfinite(wanted) & (np.abs(wanted) + error < largest)
        differ = checked & ~(np.abs(x.astype(np.float64) - wanted) <= error)
    if differ.any():
        at = int(np.argmax(differ))
        raise DifferenceError(
            f"{array.name}[{at}]: {x[at]!r}, but {wanted[at]!r} is known to {error[at]!r}",
            "beyond the error",
        )

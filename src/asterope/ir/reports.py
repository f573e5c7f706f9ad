"""What a program says while it runs: the lines of a `print`, the error of an `assert`.

The text of a line is that of Triton on a GPU:
`pid (x, y, z) idx (i, j) prefix: (operand n) number`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterope.errors import DeviceAssertError
from asterope.ir.program import Op
from asterope.ir.types import Type

__all__ = ["assertion_error", "printed"]

Array = npt.NDArray[Any]

_INT_BITS = 32  # C passes narrower integers to printf as this


def printed(op: Op, program: Sequence[int], values: Sequence[Array]) -> str:
    """Return the lines that one execution of a `print` writes.

    Shapes: `values` are the operands, in their shapes and element types.
    """
    head = f"pid ({', '.join(map(str, program))})"
    prefix, threads = str(op.attrs["prefix"]), int(op.attrs["threads"])
    if not values:
        return f"{head}{prefix}\n" * threads
    lines = []
    for number, (value, operand) in enumerate(zip(values, op.operands, strict=True)):
        which = f"(operand {number}) " if len(values) > 1 else ""
        words = _words(value, operand.type, signed=op.attrs["signed"][number], hex_=op.attrs["hex"])
        # Threads that have no element of their own share one.
        copies = max(1, threads // operand.type.num_elements)
        for place, word in zip(_places(operand.type.shape), words, strict=True):
            lines.append(f"{head} idx ({place}){prefix}{which}{word}\n" * copies)
    return "".join(lines)


def _places(shape: tuple[int, ...]) -> Iterator[str]:
    """Write the index of each element, padded to the digits of its dimension's size less one."""
    widths = [math.ceil(math.log10(size)) for size in shape]
    for index in np.ndindex(shape):
        yield ", ".join(f"{i:{width}}" for i, width in zip(index, widths, strict=True))


def _words(values: Array, type_: Type, *, signed: bool, hex_: bool) -> Iterator[str]:
    """Write each number as C's printf does with `%f`, `%i`, `%u`, `%p` or `0x%0nx`."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if type_.is_float and not hex_ and type_.bits > 8:
        for x in flat.tolist() if flat.dtype.kind == "f" else flat.astype(np.float64).tolist():
            yield f"{x:f}"
        return
    # Floats of 8 bits are their codes, as Triton passes them on.
    codes = flat.view(f"i{flat.itemsize}").astype(object)
    mask = (1 << max(1, type_.bits)) - 1
    for code in codes:
        number = code if signed and type_.is_int else code & mask
        if type_.is_ptr:
            yield f"{number:#x}"
        elif hex_:
            yield f"0x{number & ((1 << max(_INT_BITS, type_.bits)) - 1):0{type_.bits // 4}x}"
        else:
            yield str(number)


def assertion_error(op: Op, program: Sequence[int], element: int) -> DeviceAssertError:
    """Make the error of an `assert` whose condition's `element`, counted row-major, is not set."""
    message = str(op.attrs["message"]) or "the condition does not hold"
    shape = op.operands[0].type.shape
    where = f"program ({', '.join(map(str, program))})"
    if shape:
        index = ", ".join(str(int(i)) for i in np.unravel_index(element, shape))
        where += f", element ({index})"
    return DeviceAssertError(
        f"device-side assert failed in {where}: {message}",
        where=op.loc,
        hint="other programs may or may not have run; the arrays hold what was written so far",
    )

"""From Triton's bound arguments to what a launch takes: arrays and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from asterope.errors import KernelError
from asterope.runtime import Array, TileKernel
from asterope.triton_backend.arrays import as_array, plain_array

__all__ = ["flatten"]

_MAX_SIZE = (1 << 31) - 1


def flatten(
    types: Sequence[Any], args: Sequence[Any], kernel: TileKernel
) -> list[Array | int | float]:
    """Return the run-time arguments in the kernel's order, constexprs left out.

    Raises: KernelError for a tensor that has no plain memory on the CPU, naming the parameter, and
    for another number of arguments than the kernel was compiled for.
    """
    if len(args) != len(types):
        raise KernelError(
            f"takes {len(types)} arguments, constexprs included, got {len(args)}",
            where=kernel.name,
        )
    params = kernel.kernel.params
    found: list[Array | int | float] = []
    pairs = _flat(types, args, kernel.name) if _is_nested(types) else zip(types, args, strict=True)
    for type_, arg in pairs:
        if type_[0] == "*":
            array = plain_array(arg)
            found.append(array or as_array(arg, params[len(found)].name, kernel.name))
        elif type_ != "constexpr":
            found.append(arg)
    return found


def _is_nested(types: Sequence[Any]) -> bool:
    """Whether an argument stands for several: a tuple or a tensor descriptor."""
    return any(type_.__class__ is tuple or type_[0] == "t" for type_ in types)


def _flat(types: Sequence[Any], args: Sequence[Any], kernel: str) -> Iterator[tuple[str, Any]]:
    for type_, arg in zip(types, args, strict=True):
        if type_ == "constexpr":
            continue
        if isinstance(type_, tuple):
            yield from _flat(type_, arg, kernel)
        elif type_.startswith("tensordesc"):
            yield from _descriptor(type_, arg, kernel)
        else:
            yield type_, arg


def _descriptor(type_: str, arg: Any, kernel: str) -> Iterator[tuple[str, Any]]:
    """Take a host-made descriptor apart: what it is made of, then what the kernel may ask of it.

    Raises: KernelError if a coordinate in it would not fit 32 bits.
    """
    if max(arg.shape) > _MAX_SIZE:
        raise KernelError(
            f"a tensor descriptor of shape {list(arg.shape)} has a dimension above 2^31 - 1",
            where=kernel,
            hint="describe parts of the tensor, or use pointers of 64 bits",
        )
    yield "*", arg.base
    yield from (("i32", n) for n in arg.shape)
    yield from (("i64", n) for n in arg.strides[:-1])
    if type_.startswith(("tensordesc<fp", "tensordesc<bf")):
        yield "fp64", math.nan if arg.padding == "nan" else 0.0
    yield from (("i32", n) for n in arg.shape)
    yield from (("i64", n) for n in arg.strides)

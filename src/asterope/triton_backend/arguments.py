"""From Triton's bound arguments to what a launch takes: arrays and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from asterope.errors import KernelError
from asterope.runtime import Array, TileKernel
from asterope.triton_backend.arrays import as_array, plain_array

__all__ = ["Flattening"]

_MAX_SIZE = (1 << 31) - 1


class Flattening:
    """How what Triton binds to one kernel's parameters becomes what a launch takes."""

    def __init__(self, types: Iterable[Any]) -> None:
        self._types = list(types)
        wanted = [(i, t) for i, t in enumerate(self._types) if t != "constexpr"]
        # An argument may stand for several: a tuple, named or not, or a tensor descriptor.
        self._is_nested = any(isinstance(t, tuple) or t[0] == "t" for _, t in wanted)
        self._places = [] if self._is_nested else [(i, t[0] == "*") for i, t in wanted]
        # A compiled kernel that is launched by itself need not be told its last constexprs.
        self._least = wanted[-1][0] + 1 if wanted else 0
        self._most = len(self._types)

    def flatten(self, args: Sequence[Any], kernel: TileKernel) -> list[Array | int | float]:
        """Return the run-time arguments in the kernel's order, constexprs left out.

        Raises: KernelError for a tensor that has no plain memory on the CPU, naming the parameter,
        and for another number of arguments than the kernel was compiled for.
        """
        if not self._least <= len(args) <= self._most:
            raise KernelError(
                f"takes {self._most} arguments, constexprs included, got {len(args)}",
                where=kernel.name,
            )
        places = self._places
        if self._is_nested:
            pairs = list(_flat(self._types[: len(args)], args, kernel.name))
            args = [arg for _, arg in pairs]
            places = [(i, type_[0] == "*") for i, (type_, _) in enumerate(pairs)]
        found: list[Array | int | float] = []
        for i, is_pointer in places:
            arg = args[i]
            if is_pointer:
                arg = plain_array(arg) or _named_array(arg, len(found), kernel)
            found.append(arg)
        return found


def _named_array(arg: Any, index: int, kernel: TileKernel) -> Array:
    return as_array(arg, kernel.kernel.params[index].name, kernel.name)


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

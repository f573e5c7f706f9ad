"""From Triton's bound arguments to what a launch takes: arrays and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from asterope.errors import KernelError
from asterope.runtime import Array, TileKernel

__all__ = ["flatten"]

_META_BASE = 1 << 56


def flatten(
    types: Sequence[Any], args: Sequence[Any], kernel: TileKernel
) -> list[Array | int | float]:
    """Return the run-time arguments in the kernel's order, constexprs left out.

    Raises: KernelError for a tensor that is not on the CPU, naming the parameter.
    """
    names = (p.name for p in kernel.kernel.params)
    return [
        _array(a, next(names, "?"), kernel) if t[0] == "*" else _number(a, names)
        for t, a in _flat(types, args)
    ]


def _number(arg: Any, names: Iterator[str]) -> Any:
    next(names, None)
    return arg


def _flat(types: Sequence[Any], args: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for type_, arg in zip(types, args, strict=True):
        if type_ == "constexpr":
            continue
        if isinstance(type_, tuple):
            yield from _flat(type_, arg)
        elif type_.startswith("tensordesc"):
            yield from _descriptor(type_, arg)
        else:
            yield type_, arg


def _descriptor(type_: str, arg: Any) -> Iterator[tuple[str, Any]]:
    """Take a host-made descriptor apart: what it is made of, then what the kernel may ask of it."""
    yield "*", arg.base
    yield from (("i32", n) for n in arg.shape)
    yield from (("i64", n) for n in arg.strides[:-1])
    if arg.base.dtype.is_floating_point:
        yield "fp64", math.nan if arg.padding == "nan" else 0.0
    yield from (("i32", n) for n in arg.shape)
    yield from (("i64", n) for n in arg.strides)


def _array(arg: Any, name: str, kernel: TileKernel) -> Array:
    """Describe a pointer argument: a tensor, None, or a plain address."""
    if arg is None:
        return Array(0, 0, 0)
    device = getattr(arg, "device", None)
    if device is not None and device.type == "meta":
        return _meta_array(arg)
    if device is not None and device.type != "cpu":
        raise KernelError(
            f"the tensor {name} is on {device}, and kernels run on the CPU here",
            where=kernel.name,
            hint="move it: tensor.cpu()",
        )
    address = int(arg.data_ptr()) if hasattr(arg, "data_ptr") else int(arg)
    storage = getattr(arg, "untyped_storage", None)
    if storage is None:
        # Whoever gives a bare address gives no extent: take it to overlap everything.
        return Array(address, 0, 1 << 63)
    memory = storage()
    start = int(memory.data_ptr())
    return Array(address, start, start + int(memory.nbytes()))


_ALIGN = 1 << 12
_bases: dict[int, tuple[int, int]] = {}


def _end_of_bases() -> int:
    last = next(reversed(_bases.values()), (_META_BASE, 0))
    return last[0] + last[1]


def _meta_array(tensor: Any) -> Array:
    """Give a tensor without memory a place of its own, so that the simulator can tell it apart."""
    memory = tensor.untyped_storage()
    size = int(memory.nbytes())
    base, room = _bases.get(memory._cdata, (0, -1))
    if room < size:
        base = _end_of_bases()
        room = max(_ALIGN, -(-size // _ALIGN) * _ALIGN)
        _bases.pop(memory._cdata, None)  # so that the newest entry stays the last
        _bases[memory._cdata] = base, room
    address = base + tensor.storage_offset() * tensor.element_size()
    return Array(address, base, base + size, exists=False)

"""Where the memory of a pointer argument lies: a tensor's, a wrapper's, a plain address."""

from __future__ import annotations

from typing import Any

import torch

from asterope.errors import KernelError
from asterope.runtime import Array

__all__ = ["as_array", "plain_array"]

_META_BASE = 1 << 56
_ALIGN = 1 << 12
_ORDINARY = (torch.Tensor, torch.nn.Parameter)
_new = tuple.__new__
_DENSE = "pass a dense tensor with memory of its own"


def plain_array(arg: Any) -> Array | None:
    """Describe an ordinary dense tensor on the CPU; None if the argument needs a closer look."""
    if type(arg) not in _ORDINARY or not arg.is_cpu or arg.is_neg():
        return None
    try:
        memory = arg.untyped_storage()
        address, start = arg.data_ptr(), memory.data_ptr()
    except RuntimeError:
        return None
    if not address:
        return None
    # What Array's own constructor does, at a third of its time: every launch comes by here.
    return _new(Array, (address, start, start + memory.nbytes(), True))


def as_array(arg: Any, name: str, kernel: str) -> Array:
    """Describe a pointer argument: a tensor, None, an object with `data_ptr`, or an address.

    Raises: KernelError naming the parameter for a tensor whose elements do not lie in memory of
    the CPU as its type says.
    """
    if arg is None:
        return Array(0, 0, 0)
    is_tensor = hasattr(arg, "untyped_storage")
    if not is_tensor and hasattr(getattr(arg, "base", None), "untyped_storage"):
        arg, is_tensor = arg.base, True  # of what `triton.reinterpret` makes
    device = getattr(arg, "device", None)
    if getattr(device, "type", "cpu") not in ("cpu", "meta"):
        raise KernelError(
            f"the tensor {name} is on {device}, and kernels run on the CPU here",
            where=kernel,
            hint="move it: tensor.cpu()",
        )
    if not is_tensor:
        # Whoever gives a bare address gives no extent: take it to overlap everything.
        address = arg.data_ptr() if hasattr(arg, "data_ptr") else arg
        return Array(int(address), 0, 1 << 63)
    return _tensor(arg, name, kernel)


def _tensor(tensor: Any, name: str, kernel: str) -> Array:
    try:
        memory = tensor.untyped_storage()
        if memory.device.type == "meta":  # a fake tensor claims to be somewhere else
            return _without_memory(tensor, memory)
        address, start = int(tensor.data_ptr()), int(memory.data_ptr())
    except (NotImplementedError, RuntimeError) as error:
        what = (
            f"the tensor {name} is a {type(tensor).__name__} with layout {tensor.layout}: {error}"
        )
        raise KernelError(what, where=kernel, hint=_DENSE) from None
    if not address and tensor.numel():
        what = f"the memory of the tensor {name} was freed"
        raise KernelError(what, where=kernel, hint=_DENSE)
    if getattr(tensor, "is_neg", bool)():  # a wrapper with a storage need not know of negation
        raise KernelError(
            f"the tensor {name} is a view whose elements are the negated ones of its memory",
            where=kernel,
            hint="make it one of its own: tensor.resolve_neg()",
        )
    return Array(address, start, start + int(memory.nbytes()))


_bases: dict[int, tuple[int, int]] = {}


def _end_of_bases() -> int:
    last = next(reversed(_bases.values()), (_META_BASE, 0))
    return last[0] + last[1]


def _without_memory(tensor: Any, memory: Any) -> Array:
    """Give a tensor without memory a place of its own, so that the simulator can tell it apart."""
    size = int(memory.nbytes())
    base, room = _bases.get(memory._cdata, (0, -1))
    if room < size:
        base = _end_of_bases()
        room = max(_ALIGN, -(-size // _ALIGN) * _ALIGN)
        _bases.pop(memory._cdata, None)  # so that the newest entry stays the last
        _bases[memory._cdata] = base, room
    address = base + tensor.storage_offset() * tensor.element_size()
    return Array(address, base, base + size, exists=False)

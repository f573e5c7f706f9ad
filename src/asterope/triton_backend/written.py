"""Which bytes of tensors were ever written, for ASTEROPE_SANITIZE=1: torch.empty writes none.

A dispatch mode sees every call of a torch operator on this thread: those that only allocate leave
memory unwritten, all others write what they return or change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asterope.runtime import Written, is_sanitizing, know_written

__all__ = ["watch_torch"]

_ALLOCATING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


class _Storages:
    """A bool for each byte of the storages that torch.empty made."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[StorageWeakRef, Written]] = {}

    def allocated(self, tensor: torch.Tensor) -> None:
        """Take note of memory that nothing has written."""
        storage = tensor.untyped_storage()
        if tensor.device.type == "cpu" and storage.nbytes():
            written = np.zeros(storage.nbytes(), np.bool_)
            self.known[storage.data_ptr()] = StorageWeakRef(storage), written  # type: ignore[no-untyped-call]

    def wrote(self, tensor: torch.Tensor) -> None:
        """Take note that all elements of a tensor were written."""
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            return
        written = self.lookup(tensor.untyped_storage().data_ptr())
        if written is None or not tensor.numel():
            return
        size = tensor.element_size()
        first = tensor.storage_offset() * size
        strides = [stride * size for stride in tensor.stride()]
        as_strided(written[first:], (*tensor.shape, size), (*strides, 1))[...] = True

    def lookup(self, start: int) -> Written | None:
        """Return the bytes of the storage that begins at an address, None if it is not known."""
        if start not in self.known:
            return None
        storage, written = self.known[start]
        if storage.expired():  # type: ignore[no-untyped-call]
            del self.known[start]
            return None
        return written


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type it
    def __init__(self, storages: _Storages) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages = storages

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        name = func.overloadpacket.__name__
        if name in _ALLOCATING:
            self.storages.allocated(result)
            return result
        schema = func._schema
        for tensor in _changed(schema, args, given):
            self.storages.wrote(tensor)
        if all(r.alias_info is None for r in schema.returns):
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.storages.wrote(leaf)
        return result


def _changed(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors that an operator writes in place."""
    for i, parameter in enumerate(schema.arguments):
        if parameter.alias_info is None or not parameter.alias_info.is_write:
            continue
        value = args[i] if i < len(args) else kwargs.get(parameter.name)
        yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))


def watch_torch() -> None:
    """From now on take note of what torch writes on this thread, if the user asked for checks."""
    if not is_sanitizing():
        return
    storages = _Storages()
    know_written(storages.lookup)
    _Mode(storages).__enter__()  # type: ignore[no-untyped-call]  # until the process ends

"""What tests written for GPUs look at, on a machine that has none.

A shim never changes what a kernel computes. Each is a context manager, named in a suite.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton

__all__ = ["SHIMS"]


def _assert_expected_inline(actual: str, expected: str, skip: int = 0) -> None:
    assert actual == expected


def _tabulate(rows: Iterable[Iterable[object]], *args: object, **kwargs: object) -> str:
    return "\n".join("  ".join(map(str, row)) for row in rows)


_SMALL_PACKAGES = {
    "expecttest": {"assert_expected_inline": _assert_expected_inline},
    "tabulate": {"tabulate": _tabulate},
}


@contextmanager
def small_packages() -> Iterator[None]:
    """Stand in for packages that are not installed and of which one function is used."""
    for name, functions in _SMALL_PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            module = ModuleType(name)
            vars(module).update(functions)
            sys.modules[name] = module
    yield


def _properties(device: Any = None) -> SimpleNamespace:
    found = triton.runtime.driver.active.utils.get_device_properties(0)
    return SimpleNamespace(
        name="Asterope", major=0, minor=0, total_memory=1 << 36, warp_size=1,
        multi_processor_count=found["multiprocessor_count"],
        shared_memory_per_block_optin=found["max_shared_mem"],
    )  # fmt: skip


@contextmanager
def cuda_attributes() -> Iterator[None]:
    """Answer what tests ask of `torch.cuda` without using a device."""
    answers: dict[str, Callable[..., Any]] = {
        "get_device_capability": lambda device=None: (0, 0),
        "get_device_properties": _properties,
        "get_device_name": lambda device=None: "Asterope",
        "current_device": lambda: 0,
        "device": lambda device=None: contextlib.nullcontext(),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        yield


_CUDA = re.compile(r"cuda(:\d+)?$")


def _on_cpu(value: Any) -> Any:
    is_cuda = (isinstance(value, str) and _CUDA.match(value)) or (
        isinstance(value, torch.device) and value.type == "cuda"
    )
    return torch.device("cpu") if is_cuda else value


_FACTORIES = (
    "arange", "as_tensor", "empty", "empty_like", "empty_strided", "eye", "full", "full_like",
    "linspace", "ones", "ones_like", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "randperm", "tensor", "zeros", "zeros_like",
)  # fmt: skip


def _with_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of torch that takes "cuda", or a device's number, for the CPU."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("device"), int):
            kwargs["device"] = torch.device("cpu")
        return function(*map(_on_cpu, args), **{k: _on_cpu(v) for k, v in kwargs.items()})

    return call


@contextmanager
def cuda_is_cpu() -> Iterator[None]:
    """Put on the CPU what is asked for on "cuda" or on a device by number."""
    with contextlib.ExitStack() as stack:
        for name in _FACTORIES:
            stack.enter_context(patch.object(torch, name, _with_cpu(getattr(torch, name))))
        stack.enter_context(patch.object(torch.Tensor, "to", _with_cpu(torch.Tensor.to)))
        stack.enter_context(patch.object(torch.Tensor, "cuda", lambda self, *_, **__: self))
        yield


@contextmanager
def cpu_is_a_device() -> Iterator[None]:
    """Give the CPU what tests ask of any device's module: streams to set."""
    with patch.object(torch.cpu, "set_stream", lambda stream: None, create=True):
        yield


SHIMS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "small_packages": small_packages,
    "cuda_attributes": cuda_attributes,
    "cuda_is_cpu": cuda_is_cpu,
    "cpu_is_a_device": cpu_is_a_device,
}

"""What tests written for GPUs look at, on a machine that has none.

A shim never changes what a kernel computes. Each is a context manager, named in a suite.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget

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
        if find_spec(name) is None:
            module = module_from_spec(ModuleSpec(name, None))
            vars(module).update(functions)
            sys.modules[name] = module
    yield


def _asker() -> str:
    """Return the package whose code called the function that asks this."""
    name: str = sys._getframe(2).f_globals.get("__name__", "")
    return name.partition(".")[0]


def _properties(device: Any = None) -> SimpleNamespace:
    found = triton.runtime.driver.active.utils.get_device_properties(0)
    return SimpleNamespace(
        name="Asterope", major=0, minor=0, total_memory=1 << 36, warp_size=1,
        multi_processor_count=found["multiprocessor_count"], gcnArchName="",
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
    """Give the CPU what tests ask of any device's module."""
    answers: dict[str, Callable[..., Any]] = {
        "device": lambda device=None: contextlib.nullcontext(),
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: (0, 0),
        "get_device_properties": _properties,
        "set_stream": lambda stream: None,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cpu, name, answer, create=True))
        # Tests look kernels up by the number of a device, for which the driver has a name.
        driver = type(triton.runtime.driver.active)
        stack.enter_context(patch.object(driver, "get_current_device", lambda _: 0))
        yield


def _target_is(name: str) -> Callable[[], AbstractContextManager[None]]:
    """Return a shim that tells those who ask, but for Triton and us, that the target is `name`.

    They ask in order to name a device of torch or a path in a checkout.
    """

    @contextmanager
    def shim() -> Iterator[None]:
        driver = type(triton.runtime.driver.active)
        true_target = driver.get_current_target

        def get_current_target(self: Any) -> Any:
            found = true_target(self)
            return found if _asker() in {"triton", "asterope"} else GPUTarget(name, 0, 1)

        with patch.object(driver, "get_current_target", get_current_target):
            yield

    return shim


@contextmanager
def cuda_is_new() -> Iterator[None]:
    """Answer with the newest capability that tests ask for, so that they leave out the fewest."""
    with patch.object(torch.cuda, "get_device_capability", lambda device=None: (10, 0)):
        yield


@contextmanager
def histc_of_integers() -> Iterator[None]:
    """Count integers, which torch does on CUDA alone."""
    histc = torch.histc

    def call(values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        found = histc(values.to(torch.float64), *args, **kwargs)
        return found if values.is_floating_point() else found.to(values.dtype)

    with patch.object(torch, "histc", call):
        yield


@contextmanager
def tensors_are_cuda() -> Iterator[None]:
    """Let tensors say that they are on a CUDA device."""
    with patch.object(torch.Tensor, "is_cuda", True):
        yield


@contextmanager
def cuda_is_available() -> Iterator[None]:
    """Let those who look for a device, but for torch, find "cuda": `cuda_is_cpu` gives the CPU."""
    autocast = torch.autocast.__init__

    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        autocast(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    with (
        patch.object(torch.cuda, "is_available", lambda: _asker() != "torch"),
        patch.object(torch.autocast, "__init__", init),
    ):
        yield


class _Philox:
    """The state of a CUDA generator: a seed and an offset."""

    def __init__(self) -> None:
        self._state = torch.zeros(2, dtype=torch.int64).view(torch.uint8)

    def get_state(self) -> torch.Tensor:
        """Return a copy."""
        return self._state.clone()

    def set_state(self, state: torch.Tensor) -> None:
        """Take a state over."""
        self._state = state.clone()


@contextmanager
def flaggems_on_cpu() -> Iterator[None]:
    """Let FlagGems put the kernels that it has for one vendor's GPU in the place of the CPU's."""
    vendor = ModuleType("_nvidia")
    vendor.__path__ = [str(Path("src/flag_gems/runtime/backend/_nvidia").resolve())]
    vars(vendor).update(
        ARCH_MAP={}, CUSTOMIZED_UNUSED_OPS=(),
        vendor_info=SimpleNamespace(
            vendor_name="nvidia", device_name="cpu", device_query_cmd="true", dispatch_key="CPU",
            triton_extra_name="cuda", trademark=None, fp64_enabled=True, bf16_enabled=True,
            int64_enabled=True, tle_enabled=False,
        ),
    )  # fmt: skip
    generators = (_Philox(),)
    with (
        patch.dict(sys.modules, {"_nvidia": vendor}),
        patch.object(torch.cpu, "default_generators", generators, create=True),
        # It leaves constexprs out of launches for any Triton that it does not know, such as 3.7;
        # releases differ in which they know.
        patch.object(triton, "__version__", "3.5.0"),
    ):
        yield


SHIMS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "small_packages": small_packages,
    "cuda_attributes": cuda_attributes,
    "cuda_is_available": cuda_is_available,
    "cuda_is_cpu": cuda_is_cpu,
    "cuda_is_new": cuda_is_new,
    "cpu_is_a_device": cpu_is_a_device,
    "flaggems_on_cpu": flaggems_on_cpu,
    "histc_of_integers": histc_of_integers,
    "target_is_cpu": _target_is("cpu"),
    "target_is_cuda": _target_is("cuda"),
    "tensors_are_cuda": tensors_are_cuda,
}

"""Triton's view of Asterope as a device: launches, benchmarking, properties."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from asterope.chips import maia200
from asterope.errors import IRError
from asterope.runtime import TileKernel, launch
from asterope.triton_backend.arguments import Flattening
from asterope.triton_backend.benchmarking import Event, benchmark
from asterope.triton_backend.compiler import TARGET, WARP_SIZE
from asterope.triton_backend.written import watch_torch

__all__ = ["MaiaDriver"]

watch_torch()  # Triton imports this module while it is being imported: before tensors are made

_NAME = "maia"
_DEVICE = "cpu"  # what torch.cpu.current_device() returns


class _Utils:
    """What Triton asks of a driver's native helper."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Describe the device: the chip's tiles and clock in kHz, and limits that do not apply."""
        inside = maia200().inside()
        return {
            "max_shared_mem": 1 << 40,
            "multiprocessor_count": inside.num_tiles,
            "sm_clock_rate": int(inside.clock_hz / 1e3),
            "mem_clock_rate": 1,
            "mem_bus_width": 1,
            "max_num_regs": 1 << 16,
            "warpSize": WARP_SIZE,
        }

    def load_binary(
        self, name: str, kernel: bytes, shared: int, device: int
    ) -> tuple[TileKernel, TileKernel, int, int, int]:
        """Parse tile IR; return module, function, registers, spills and threads.

        Raises: IRError naming the folder if Triton's cache handed out a damaged file.
        """
        try:
            tile_kernel = TileKernel.parse(kernel.decode())
        except (IRError, UnicodeDecodeError) as error:
            raise IRError(
                f"the compiled kernel {name} is damaged: {error}",
                where=knobs.cache.dir,
                hint="delete this folder, which is Triton's cache",
            ) from None
        return tile_kernel, tile_kernel, 1, 0, 1 << 30

    def unload_module(self, module: TileKernel) -> None:
        """Hold nothing that would need unloading."""


class _Launcher:
    """Called for every launch with the bound arguments, constexprs included."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._flatten = Flattening(source.signature.values()).flatten

    def __call__(  # noqa: PLR0913, PLR0917  Triton calls it so
        self,
        grid_x: int, grid_y: int, grid_z: int,
        stream: int, function: TileKernel, packed: Any,
        launch_metadata: Any, enter_hook: Any, exit_hook: Any,
        *args: Any,
    ) -> None:  # fmt: skip
        if enter_hook is not None:
            enter_hook(launch_metadata)
        launch(function, (grid_x, grid_y, grid_z), self._flatten(args, function))
        if exit_hook is not None:
            exit_hook(launch_metadata)


class _DeviceInterface:
    """The part of `torch.cuda` that Triton's helpers call."""

    Event = Event

    @staticmethod
    def synchronize(device: Any = None) -> None:
        """Wait for nothing: launches return when they are done."""

    @staticmethod
    def current_device() -> str:
        """Return the only device, as `torch.cpu` calls it."""
        return _DEVICE

    @staticmethod
    def set_device(device: Any) -> None:
        """Stay on the only device."""


class MaiaDriver(DriverBase):  # type: ignore[misc]  # Triton ships no types
    """The device that Triton sees: this CPU, standing in for the chip."""

    def __init__(self) -> None:
        super().__init__()
        self.utils = _Utils()
        self.launcher_cls = _Launcher

    @classmethod
    def is_active(cls) -> bool:
        """Whether kernels should come here: asked for by name, or no GPU is there to take them."""
        if os.environ.get("TRITON_DEFAULT_BACKEND") == _NAME:
            return True
        from triton.backends import backends

        others = (b.driver for name, b in backends.items() if name != _NAME)
        return not any(driver.is_active() for driver in others)

    def get_current_device(self) -> str:
        """Return the only device; Triton keeps kernels by it, and tools look them up so."""
        return _DEVICE

    def set_current_device(self, device: Any) -> None:
        """Stay on the only device."""

    def get_current_stream(self, device: Any = None) -> int:
        """Return the only stream."""
        return 0

    def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
        """Have no CUDA capability."""
        return (0, 0)

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Return the C type of an argument (used by Triton's ahead-of-time tools only)."""
        floats = {
            "fp16": "float",
            "bf16": "float",
            "fp32": "float",
            "f32": "float",
            "fp64": "double",
        }
        if ty.startswith("*"):
            return "void*"
        return floats.get(ty, "int8_t" if ty == "i1" else f"{'u' * (ty[0] == 'u')}int{ty[1:]}_t")

    def get_current_target(self) -> GPUTarget:
        """Return what to compile for."""
        return TARGET

    def get_active_torch_device(self) -> Any:
        """Return where tensors live."""
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> type[_DeviceInterface]:
        """Return the event and synchronisation interface."""
        return _DeviceInterface

    def get_benchmarker(self) -> Callable[..., Any]:
        """Return how the autotuner times a configuration."""
        return benchmark

    def get_empty_cache_for_benchmark(self) -> Any:
        """Return a token buffer: nothing is cached between launches."""
        import torch

        return torch.empty(1, dtype=torch.int32)

    def clear_cache(self, cache: Any) -> None:
        """Clear nothing."""

"""Launch a kernel: compute its values, and let whoever is listening read its time."""

from __future__ import annotations

import math
import numbers
import operator
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from asterope.errors import KernelError
from asterope.runtime.arrays import Array, Grid
from asterope.runtime.kernel import TileKernel
from asterope.runtime.sanitize import is_sanitizing, launch_checked

__all__ = [
    "Launch",
    "Listener",
    "launch",
    "listen",
    "listeners",
    "only",
    "stop_listening",
]

# No launch of so many programs comes back, and counts of them stay far from 64 bits.
_MAX_PROGRAMS = 1 << 40
_MANY, _FEW = 1 << 20, 1 << 10


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch as a listener sees it."""

    kernel: TileKernel
    grid: Grid
    args: tuple[Array | int | float, ...]


class Listener(Protocol):
    """Is told of every launch of its thread; says whether values are to be computed."""

    wants_values: bool

    def on_launch(self, launch: Launch) -> None:
        """Take note of a launch before it runs."""


class _State(threading.local):
    def __init__(self) -> None:
        self.listeners: list[Listener] = []


_state = _State()


def listen(listener: Listener) -> None:
    """Tell a listener of this thread's launches from now on."""
    _state.listeners.append(listener)


def stop_listening(listener: Listener) -> None:
    """Stop telling a listener."""
    _state.listeners.remove(listener)


@contextmanager
def only(listener: Listener) -> Iterator[None]:
    """Tell one listener of this thread's launches, and no other, while the block runs."""
    others = _state.listeners
    _state.listeners = [listener]
    try:
        yield
    finally:
        _state.listeners = others


def listeners() -> tuple[Listener, ...]:
    """Return who is told of this thread's launches, the first to listen first."""
    return tuple(_state.listeners)


def _checked_grid(kernel: TileKernel, given: Grid) -> Grid:
    """Return the grid as plain integers; NumPy's and those of tensors are welcome."""
    try:
        x, y, z = given
        if not type(x) is type(y) is type(z) is int:
            x, y, z = map(operator.index, given)
    except TypeError:
        raise KernelError(
            f"a grid of {given!r} is not three integers",
            where=kernel.name,
            hint="divide with // or triton.cdiv",
        ) from None
    grid = (x, y, z)
    if 0 <= x < _MANY and 0 <= y < _FEW and 0 <= z < _FEW:
        return grid
    for axis, size in zip("xyz", grid, strict=True):
        if not 0 <= size < 1 << 31:
            raise KernelError(
                f"grid size {size} along {axis} is outside 0..2^31 - 1", where=kernel.name
            )
    count = math.prod(grid)
    if count > _MAX_PROGRAMS:
        raise KernelError(
            f"a grid of {' x '.join(map(str, grid))} is {count} programs, more than 2^40",
            where=kernel.name,
        )
    return grid


def _check_arguments(kernel: TileKernel, args: Sequence[Array | int | float]) -> None:
    """Refuse an argument of another type by its parameter's name."""
    places = zip(kernel.kernel.params, kernel.kernel.body.args, args, strict=False)
    for param, place, arg in places:
        if place.type.is_float:
            fits = isinstance(arg, numbers.Real)
        else:
            fits = isinstance(arg, numbers.Integral) or (place.type.is_ptr and type(arg) is Array)
        if not fits:
            raise KernelError(
                f"argument {param.name} is {arg!r}, which does not fit {place.type}",
                where=kernel.name,
            )


def launch(kernel: TileKernel, grid: Grid, args: Sequence[Array | int | float]) -> None:
    """Run a kernel over a grid.

    Raises: KernelError for a grid with a size that is negative, too large or no integer, an
    argument that its parameter cannot take, or arrays without memory where values are wanted.
    """
    grid = _checked_grid(kernel, grid)
    if _state.listeners:
        told = listeners()
        _check_arguments(kernel, args)
        for listener in told:
            listener.on_launch(Launch(kernel, grid, tuple(args)))
        if not all(listener.wants_values for listener in told):
            return
    values: list[int | float] = []
    extents: list[tuple[int, int]] = []
    for arg in args:
        if not isinstance(arg, Array):
            values.append(arg)
            continue
        address, start, end, exists = arg
        if not exists:
            raise _without_memory(kernel, args)
        values.append(address)
        extents.append((start, end))
    if is_sanitizing():
        _check_arguments(kernel, args)
        launch_checked(kernel, grid, args)
        return
    try:
        kernel.host.launch(grid, values, extents)
    except KernelError:
        _check_arguments(kernel, args)  # knows the parameter that an argument does not fit
        raise


def _without_memory(kernel: TileKernel, args: Sequence[Array | int | float]) -> KernelError:
    index = next(i for i, arg in enumerate(args) if isinstance(arg, Array) and not arg.exists)
    return KernelError(
        f"argument {kernel.kernel.params[index].name} has no memory to compute with",
        where=kernel.name,
        hint="meta tensors can be timed: with asterope.simulate(chip, values=False)",
    )

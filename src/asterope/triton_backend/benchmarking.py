"""How long launches take, for `triton.autotune` and `triton.testing.do_bench`.

Inside `asterope.simulate(chip)` that is simulated time, elsewhere the wall time of this CPU.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

from asterope.errors import CapacityError
from asterope.runtime import Timeline, current_timeline, time_aside
from asterope.units import PS_PER_S

__all__ = ["Event", "benchmark"]

_TO_MILLI = 1e3
_RUNS = 7
_ENOUGH_MS = 250.0
# Of a `triton.Config`: what host code depends on, and what only a GPU or a simulated chip reads.
_MAKE_CODE = ("kwargs", "pre_hook", "ir_override")
_LAUNCH_OPTIONS = frozenset({"num_warps", "num_stages", "num_ctas", "maxnreg"})
# Triton divides by times to find how often to repeat.
_LEAST_MS = 1e-6


class Event:
    """A moment, as `triton.testing.do_bench` records it: on this CPU and on the simulated chip."""

    def __init__(self, enable_timing: bool = True) -> None:
        self._wall_s = 0.0
        self._timeline: Timeline | None = None
        self._simulated_ps = 0

    def record(self, stream: Any = None) -> None:
        """Take the moment."""
        self._timeline = current_timeline()
        self._simulated_ps = self._timeline.time_ps if self._timeline else 0
        self._wall_s = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        """Return the milliseconds until a later event, never quite zero.

        They are simulated if both were recorded inside the same `simulate` block.
        """
        if self._timeline is not None and self._timeline is other._timeline:
            seconds = (other._simulated_ps - self._simulated_ps) / PS_PER_S
        else:
            seconds = other._wall_s - self._wall_s
        return max(seconds * _TO_MILLI, _LEAST_MS)


def benchmark(
    call: Callable[[], object], *, quantiles: Sequence[float] | None = None, **_: Any
) -> float | list[float]:
    """Time a configuration for the autotuner, in milliseconds.

    On a chip it is timed once, aside from the timeline and without computing values. A block
    that does not fit into the chip's TSRAM takes for ever.
    """
    timeline = current_timeline()
    asked = inspect.getclosurevars(call).nonlocals
    tuner, config = asked.get("self"), asked.get("config")
    _separate_chips(tuner)
    if timeline is None:
        return _summary(_tuned_times_ms(tuner, config, call), quantiles)
    with time_aside(timeline) as aside:
        try:
            call()
        except CapacityError:
            return _summary([float("inf")], quantiles)
    return _summary([aside.time_s * _TO_MILLI], quantiles)


class _BestByChip(dict[Any, Any]):
    """An autotuner's choices, each for the chip that was simulated then, or for none."""

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_with_chip(key))

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_with_chip(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_with_chip(key), value)


def _with_chip(key: object) -> tuple[object, object]:
    timeline = current_timeline()
    return (key, (timeline.chip, timeline.fidelity) if timeline else None)


def _separate_chips(tuner: object) -> None:
    """Make the autotuner that asks for a time remember its choices by chip.

    Triton keeps them by the arguments alone: it knows one device of a kind.
    """
    # Triton is only half imported when it discovers this package.
    from triton.runtime.autotuner import Autotuner

    if isinstance(tuner, Autotuner) and not isinstance(tuner.cache, _BestByChip):
        tuner.cache = _BestByChip()


class _Tuning(dict[str, Any]):
    """The arguments that an autotuner tries its configurations on, and the times so far."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__(arguments)
        self.times: list[tuple[Any, list[float]]] = []


def _tuned_times_ms(tuner: Any, config: Any, call: Callable[[], object]) -> list[float]:
    """Time a configuration on this CPU, where warps and stages make no other code.

    One that differs from an earlier one in such options alone is not compiled to be timed again.
    """
    arguments = getattr(tuner, "nargs", None)
    if config is None or not arguments or not _LAUNCH_OPTIONS.isdisjoint(tuner.arg_names):
        return _wall_times_ms(call)
    if not isinstance(arguments, _Tuning):
        arguments = tuner.nargs = _Tuning(arguments)
    for other, times in arguments.times:
        if all(getattr(other, name) == getattr(config, name) for name in _MAKE_CODE):
            return times
    times = _wall_times_ms(call)
    arguments.times.append((config, times))
    return times


def _wall_times_ms(call: Callable[[], object]) -> list[float]:
    call()
    times: list[float] = []
    while len(times) < _RUNS and sum(times) < _ENOUGH_MS:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * _TO_MILLI)
    return sorted(times)


def _summary(ordered: list[float], quantiles: Sequence[float] | None) -> float | list[float]:
    def at(quantile: float) -> float:
        return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]

    return at(0.5) if quantiles is None else [at(q) for q in quantiles]

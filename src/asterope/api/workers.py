"""Where points of a sweep are timed: on processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from asterope.api.sweep import Point, Row, Runner
from asterope.errors import ConfigError

__all__ = ["on_processes", "on_ray"]

_WAITING_PER_CORE = 4


def on_processes(jobs: int) -> Runner:
    """Run on so many processes of this machine.

    Raises: ConfigError for fewer than one.
    """
    if jobs < 1:
        raise ConfigError(f"{jobs} is below 1", where="jobs")

    def run(work: Callable[[Point], Row], points: Sequence[Point]) -> Iterator[Row]:
        if jobs == 1 or len(points) <= 1:
            yield from map(work, points)
            return
        # A fork of a process that has threads may hang: start afresh.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(points)), mp_context=context) as pool:
            for future in as_completed([pool.submit(work, point) for point in points]):
                yield future.result()

    return run


def on_ray(address: str = "") -> Runner:
    """Run as Ray tasks of one core each, on the cluster at an address or on this machine.

    Asterope has to be installed on all machines of the cluster.

    Raises: ConfigError if Ray is not installed or the cluster is not there.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise ConfigError(
            "is not installed", where="Ray", hint="pip install 'asterope[ray]'"
        ) from None

    def run(work: Callable[[Point], Row], points: Sequence[Point]) -> Iterator[Row]:
        try:
            ray.init(address or None, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"cannot be reached: {error}", where=f"Ray {address}".strip()
            ) from None
        try:
            yield from _tasks(ray, work, points)
        finally:
            ray.shutdown()

    return run


def _tasks(ray: Any, work: Callable[[Point], Row], points: Sequence[Point]) -> Iterator[Row]:
    """Keep every core supplied without queueing all points at once."""
    task = ray.remote(num_cpus=1, max_retries=3)(work)
    most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _WAITING_PER_CORE
    left, running = list(reversed(points)), list[Any]()
    while left or running:
        while left and len(running) < most:
            running.append(task.remote(left.pop()))
        done, running = ray.wait(running)
        yield from ray.get(done)

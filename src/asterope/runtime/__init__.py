"""Compile, launch, time: what front ends call."""

from __future__ import annotations

from asterope.runtime.arrays import Array
from asterope.runtime.kernel import PASSES, TileKernel, optimise
from asterope.runtime.launch import (
    Launch,
    Listener,
    launch,
    listen,
    listeners,
    stop_listening,
)
from asterope.runtime.perfetto import write_trace
from asterope.runtime.sanitize import is_sanitizing, know_written
from asterope.runtime.shadow import Written
from asterope.runtime.timeline import (
    TimedLaunch,
    Timeline,
    current_timeline,
    simulate,
    time_aside,
)

__all__ = [
    "PASSES",
    "Array",
    "Launch",
    "Listener",
    "TileKernel",
    "TimedLaunch",
    "Timeline",
    "Written",
    "current_timeline",
    "is_sanitizing",
    "know_written",
    "launch",
    "listen",
    "listeners",
    "optimise",
    "simulate",
    "stop_listening",
    "time_aside",
    "write_trace",
]

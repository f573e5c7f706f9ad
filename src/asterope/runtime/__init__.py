"""Compile, launch, time: what front ends call."""

from __future__ import annotations

from asterope.runtime.kernel import PASSES, TileKernel, optimise
from asterope.runtime.launch import Array, Launch, Listener, launch, listen, stop_listening
from asterope.runtime.perfetto import write_trace
from asterope.runtime.timeline import TimedLaunch, Timeline, simulate

__all__ = [
    "PASSES",
    "Array",
    "Launch",
    "Listener",
    "TileKernel",
    "TimedLaunch",
    "Timeline",
    "launch",
    "listen",
    "optimise",
    "simulate",
    "stop_listening",
    "write_trace",
]

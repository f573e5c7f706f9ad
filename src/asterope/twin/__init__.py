"""The serving twin: how long steps take, on which chip, and whether they fit."""

from __future__ import annotations

from asterope.twin.step import Memory, Phase, StepTime, memory_of, time_step

__all__ = ["Memory", "Phase", "StepTime", "memory_of", "time_step"]

"""The serving twin: how long steps take, on which chip, and whether they fit."""

from __future__ import annotations

from asterope.twin.by_operator import product_time
from asterope.twin.closed_loop import LoopTimes, Request, Server, closed_loop
from asterope.twin.expert_layer import ExpertLayer, time_expert_layer
from asterope.twin.overlap import OVERLAPS, Overlap, check_overlap
from asterope.twin.step import Memory, Phase, StepTime, memory_of, time_step

__all__ = [
    "OVERLAPS",
    "ExpertLayer",
    "LoopTimes",
    "Memory",
    "Overlap",
    "Phase",
    "Request",
    "Server",
    "StepTime",
    "check_overlap",
    "closed_loop",
    "memory_of",
    "product_time",
    "time_expert_layer",
    "time_step",
]

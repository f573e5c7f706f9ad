"""Tile IR to macro-instructions to time and energy."""

from __future__ import annotations

from asterope.sim.csram import pinnable_bytes
from asterope.sim.lines import LineTime
from asterope.sim.macro import TimeProgram, to_macro_instructions
from asterope.sim.result import Event, Result
from asterope.sim.semaphores import num_joins
from asterope.sim.simulate import FIDELITIES, Fidelity, simulate_launch
from asterope.sim.snapshot import Region
from asterope.sim.stream import own_memory_error
from asterope.sim.totals import load_counting

__all__ = [
    "FIDELITIES",
    "Event",
    "Fidelity",
    "LineTime",
    "Region",
    "Result",
    "TimeProgram",
    "load_counting",
    "num_joins",
    "own_memory_error",
    "pinnable_bytes",
    "simulate_launch",
    "to_macro_instructions",
]

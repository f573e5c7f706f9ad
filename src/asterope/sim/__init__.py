"""Tile IR to macro-instructions to time and energy."""

from __future__ import annotations

from asterope.sim.macro import TimeProgram, to_macro_instructions
from asterope.sim.result import Event, Result
from asterope.sim.simulate import FIDELITIES, Fidelity, simulate_launch

__all__ = [
    "FIDELITIES",
    "Event",
    "Fidelity",
    "Result",
    "TimeProgram",
    "simulate_launch",
    "to_macro_instructions",
]

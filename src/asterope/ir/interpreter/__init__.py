"""The reference interpreter: the definition of every op."""

from __future__ import annotations

from asterope.ir.interpreter.by_element import REDUCE_PARTIALS
from asterope.ir.interpreter.elementwise import dtype_of
from asterope.ir.interpreter.memory import Memory
from asterope.ir.interpreter.run import ELEMENTWISE_OPS, OPS_INTERPRETED, interpret

__all__ = [
    "ELEMENTWISE_OPS",
    "OPS_INTERPRETED",
    "REDUCE_PARTIALS",
    "Memory",
    "dtype_of",
    "interpret",
]

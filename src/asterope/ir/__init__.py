"""Tile IR: one program, read for values by `host` and for time by `sim`."""

from __future__ import annotations

from asterope.ir.accesses import (
    ATOMICS,
    READS,
    WRITES,
    address_operands,
    data_of,
    is_pinned,
    is_volatile,
    masks_of,
    offsets_of,
    pointer_of,
)
from asterope.ir.checks import COMBINERS, DOT_FORMATS
from asterope.ir.interpreter import (
    ELEMENTWISE_OPS,
    OPS_INTERPRETED,
    REDUCE_PARTIALS,
    Memory,
    dtype_of,
    interpret,
)
from asterope.ir.ops import OPS, Engine, OpSpec
from asterope.ir.program import Block, Builder, Kernel, Op, Param, Value, clone_block
from asterope.ir.reports import assertion_error, printed
from asterope.ir.roots import Roots, grows_by_one, loop_sources
from asterope.ir.text import parse_kernel, print_kernel
from asterope.ir.types import (
    ELEMENT_BITS,
    FLOATS,
    INTEGERS,
    MEMORY_SPACES,
    SEM,
    Ptr,
    Type,
    parse_type,
)
from asterope.ir.verify import verify

__all__ = [
    "ATOMICS",
    "COMBINERS",
    "DOT_FORMATS",
    "ELEMENTWISE_OPS",
    "ELEMENT_BITS",
    "FLOATS",
    "INTEGERS",
    "MEMORY_SPACES",
    "OPS",
    "OPS_INTERPRETED",
    "READS",
    "REDUCE_PARTIALS",
    "SEM",
    "WRITES",
    "Block",
    "Builder",
    "Engine",
    "Kernel",
    "Memory",
    "Op",
    "OpSpec",
    "Param",
    "Ptr",
    "Roots",
    "Type",
    "Value",
    "address_operands",
    "assertion_error",
    "clone_block",
    "data_of",
    "dtype_of",
    "grows_by_one",
    "interpret",
    "is_pinned",
    "is_volatile",
    "loop_sources",
    "masks_of",
    "offsets_of",
    "parse_kernel",
    "parse_type",
    "pointer_of",
    "print_kernel",
    "printed",
    "verify",
]

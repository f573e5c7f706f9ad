"""What the verifier asks of each family of ops. Each check raises IRError with what is wrong."""

from __future__ import annotations

from asterope.ir.checks.common import Check
from asterope.ir.checks.control import for_, if_, issue, program_id, signalled, terminator, while_
from asterope.ir.checks.elementwise import (
    DIRECTED,
    bessel,
    bitcast,
    compare,
    convert,
    directed,
    float_compare,
    int_compare,
    int_to_pointer,
    pointer_to_int,
    same,
    select,
)
from asterope.ir.checks.memory import addptr, load, load_tile, store, store_tile
from asterope.ir.checks.products import DOT_FORMATS, dot, dot_scaled
from asterope.ir.checks.shapes import (
    COMBINERS,
    broadcast,
    const,
    expand,
    iota,
    join,
    popcount,
    reduce,
    reshape,
    split,
    transpose,
)

__all__ = [
    "COMBINERS",
    "DIRECTED",
    "DOT_FORMATS",
    "Check",
    "addptr",
    "bessel",
    "bitcast",
    "broadcast",
    "compare",
    "const",
    "convert",
    "directed",
    "dot",
    "dot_scaled",
    "expand",
    "float_compare",
    "for_",
    "if_",
    "int_compare",
    "int_to_pointer",
    "iota",
    "issue",
    "join",
    "load",
    "load_tile",
    "pointer_to_int",
    "popcount",
    "program_id",
    "reduce",
    "reshape",
    "same",
    "select",
    "signalled",
    "split",
    "store",
    "store_tile",
    "terminator",
    "transpose",
    "while_",
]

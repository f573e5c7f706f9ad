"""What the verifier asks of each family of ops. Each check raises IRError with what is wrong."""

from __future__ import annotations

from asterope.ir.checks.by_element import COMBINERS, map_, reduce, scan
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
from asterope.ir.checks.reports import assert_, print_
from asterope.ir.checks.shapes import (
    broadcast,
    const,
    exchange,
    expand,
    gather,
    histogram,
    iota,
    join,
    popcount,
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
    "assert_",
    "bessel",
    "bitcast",
    "broadcast",
    "compare",
    "const",
    "convert",
    "directed",
    "dot",
    "dot_scaled",
    "exchange",
    "expand",
    "float_compare",
    "for_",
    "gather",
    "histogram",
    "if_",
    "int_compare",
    "int_to_pointer",
    "iota",
    "issue",
    "join",
    "load",
    "load_tile",
    "map_",
    "pointer_to_int",
    "popcount",
    "print_",
    "program_id",
    "reduce",
    "reshape",
    "same",
    "scan",
    "select",
    "signalled",
    "split",
    "store",
    "store_tile",
    "terminator",
    "transpose",
    "while_",
]

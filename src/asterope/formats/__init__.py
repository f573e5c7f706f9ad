"""Number formats: element codes, shared block scales, packing and dot products, by definition."""

from __future__ import annotations

from asterope.formats.block import QuantizedTensor, block_sizes, dequantize, quantize
from asterope.formats.dot import DOT_RULES, DotRule, dot, dot_rule
from asterope.formats.element import Overflow, Rounding, as_float32, decode, encode
from asterope.formats.fma import fma32
from asterope.formats.native_codec import emit_decode, emit_encode, emit_round
from asterope.formats.packing import pack, packed_bytes, unpack
from asterope.formats.scale import (
    MIN_GLOBAL_SCALE,
    amax_scale,
    e4m3_scale_codes,
    global_scale_of,
    scale_codes,
)
from asterope.formats.stochastic import uniform32
from asterope.formats.table import (
    BLOCKS,
    ELEMENTS,
    BlockFormat,
    ElementFormat,
    ScaleRule,
    block,
    element,
)

__all__ = [
    "BLOCKS",
    "DOT_RULES",
    "ELEMENTS",
    "MIN_GLOBAL_SCALE",
    "BlockFormat",
    "DotRule",
    "ElementFormat",
    "Overflow",
    "QuantizedTensor",
    "Rounding",
    "ScaleRule",
    "amax_scale",
    "as_float32",
    "block",
    "block_sizes",
    "decode",
    "dequantize",
    "dot",
    "dot_rule",
    "e4m3_scale_codes",
    "element",
    "emit_decode",
    "emit_encode",
    "emit_round",
    "encode",
    "fma32",
    "global_scale_of",
    "pack",
    "packed_bytes",
    "quantize",
    "scale_codes",
    "uniform32",
    "unpack",
]

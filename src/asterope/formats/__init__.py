"""Number formats: element codes, shared block scales, packing and dot products.

Each `reference_*` function is the definition, in plain NumPy; the function without the prefix gives
the same bits, in machine code where the array is large.
"""

from __future__ import annotations

from asterope.formats.block import dequantize as reference_dequantize
from asterope.formats.block import quantize as reference_quantize
from asterope.formats.dot import DOT_RULES, DotRule, dot, dot_rule
from asterope.formats.element import Overflow, Rounding, as_float32
from asterope.formats.element import decode as reference_decode
from asterope.formats.element import encode as reference_encode
from asterope.formats.fast_blocks import dequantize, quantize
from asterope.formats.fast_elements import decode, encode, pack, unpack
from asterope.formats.fma import fma32
from asterope.formats.native_codec import emit_decode, emit_encode, emit_round
from asterope.formats.packing import pack as reference_pack
from asterope.formats.packing import packed_bytes
from asterope.formats.packing import unpack as reference_unpack
from asterope.formats.quantized import QuantizedTensor, block_sizes
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
    "reference_decode",
    "reference_dequantize",
    "reference_encode",
    "reference_pack",
    "reference_quantize",
    "reference_unpack",
    "scale_codes",
    "uniform32",
    "unpack",
]

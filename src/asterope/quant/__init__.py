"""Quantize linear layers: schemes, round to nearest, layers for the kernels, checkpoints."""

from __future__ import annotations

from asterope.quant.checkpoint import from_tensors, to_tensors
from asterope.quant.config import parse_quantization_config, quantization_config
from asterope.quant.linear import QuantizedLinear, concatenate, from_quantized, split
from asterope.quant.rtn import quantize_weight
from asterope.quant.scheme import ACTIVATIONS, UNQUANTIZED, WEIGHT_FORMATS, Scheme, scheme

__all__ = [
    "ACTIVATIONS",
    "UNQUANTIZED",
    "WEIGHT_FORMATS",
    "QuantizedLinear",
    "Scheme",
    "concatenate",
    "from_quantized",
    "from_tensors",
    "parse_quantization_config",
    "quantization_config",
    "quantize_weight",
    "scheme",
    "split",
    "to_tensors",
]

"""Quantize linear layers: schemes, algorithms, layers for the kernels, checkpoints."""

from __future__ import annotations

from asterope.quant.algorithms import (
    ALGORITHMS,
    Algorithm,
    Calibrated,
    algorithm,
    quantize_calibrated,
)
from asterope.quant.checkpoint import from_tensors, to_tensors
from asterope.quant.config import parse_quantization_config, quantization_config
from asterope.quant.equalize import equalizing_scale
from asterope.quant.inputs import InputSums
from asterope.quant.linear import QuantizedLinear, concatenate, from_quantized, split
from asterope.quant.readers import Layout, experts_from_blocks, quantization_of, read_layout
from asterope.quant.recipes import RECIPES, Recipe, recipe
from asterope.quant.rtn import common_amax, quantize_weight
from asterope.quant.scheme import ACTIVATIONS, UNQUANTIZED, WEIGHT_FORMATS, Scheme, scheme

__all__ = [
    "ACTIVATIONS",
    "ALGORITHMS",
    "RECIPES",
    "UNQUANTIZED",
    "WEIGHT_FORMATS",
    "Algorithm",
    "Calibrated",
    "InputSums",
    "Layout",
    "QuantizedLinear",
    "Recipe",
    "Scheme",
    "algorithm",
    "common_amax",
    "concatenate",
    "equalizing_scale",
    "experts_from_blocks",
    "from_quantized",
    "from_tensors",
    "parse_quantization_config",
    "quantization_config",
    "quantization_of",
    "quantize_calibrated",
    "quantize_weight",
    "read_layout",
    "recipe",
    "scheme",
    "split",
    "to_tensors",
]

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
from asterope.quant.qat import FakeQuantizedLinear, prepare_qat, quantized_layers
from asterope.quant.rtn import common_amax, quantize_weight
from asterope.quant.scheme import ACTIVATIONS, UNQUANTIZED, WEIGHT_FORMATS, Scheme, scheme

__all__ = [
    "ACTIVATIONS",
    "ALGORITHMS",
    "UNQUANTIZED",
    "WEIGHT_FORMATS",
    "Algorithm",
    "Calibrated",
    "FakeQuantizedLinear",
    "InputSums",
    "QuantizedLinear",
    "Scheme",
    "algorithm",
    "common_amax",
    "concatenate",
    "equalizing_scale",
    "from_quantized",
    "from_tensors",
    "parse_quantization_config",
    "prepare_qat",
    "quantization_config",
    "quantize_calibrated",
    "quantize_weight",
    "quantized_layers",
    "scheme",
    "split",
    "to_tensors",
]

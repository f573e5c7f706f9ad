"""Quantize linear layers: schemes, algorithms, layers for the kernels, checkpoints."""

from __future__ import annotations

from asterope.quant.algorithms import (
    ALGORITHMS,
    Algorithm,
    Calibrated,
    algorithm,
    quantize_calibrated,
)
from asterope.quant.budget import Budget, parse_budget
from asterope.quant.checkpoint import from_tensors, to_tensors
from asterope.quant.column_loop import load_column_loop
from asterope.quant.config import parse_quantization_config, quantization_config
from asterope.quant.corrected_bias import with_corrected_bias
from asterope.quant.equalize import equalizing_scale
from asterope.quant.fake_quant import fake_inputs
from asterope.quant.front import FrontPoint, pareto_front
from asterope.quant.fused import concatenate, split, stack
from asterope.quant.inputs import InputSums
from asterope.quant.kv_config import CACHE_SCALES, kv_cache_scheme
from asterope.quant.learned_rounding import LearnedRounding
from asterope.quant.linear import QuantizedLinear, from_quantized
from asterope.quant.low_rank import BranchFitting
from asterope.quant.mix import MODULES, PLACES, Mix, Plan, mix_of
from asterope.quant.mixed_config import parse_plan, plan_config
from asterope.quant.nvfp4_svd import is_nvfp4_svd, nvfp4_svd_config, nvfp4_svd_tensors
from asterope.quant.qat import IGNORED, FakeQuantizedLinear, prepare_qat, quantized_layers
from asterope.quant.readers import Layout, quantization_of, read_layout
from asterope.quant.recipes import RECIPES, Recipe, recipe
from asterope.quant.rtn import common_amax, quantize_weight
from asterope.quant.scheme import ACTIVATIONS, UNQUANTIZED, WEIGHT_FORMATS, Scheme, scheme
from asterope.quant.unpacked_experts import UnpackedExperts, unpack_experts

__all__ = [
    "ACTIVATIONS",
    "ALGORITHMS",
    "CACHE_SCALES",
    "IGNORED",
    "MODULES",
    "PLACES",
    "RECIPES",
    "UNQUANTIZED",
    "WEIGHT_FORMATS",
    "Algorithm",
    "BranchFitting",
    "Budget",
    "Calibrated",
    "FakeQuantizedLinear",
    "FrontPoint",
    "InputSums",
    "Layout",
    "LearnedRounding",
    "Mix",
    "Plan",
    "QuantizedLinear",
    "Recipe",
    "Scheme",
    "UnpackedExperts",
    "algorithm",
    "common_amax",
    "concatenate",
    "equalizing_scale",
    "fake_inputs",
    "from_quantized",
    "from_tensors",
    "is_nvfp4_svd",
    "kv_cache_scheme",
    "load_column_loop",
    "mix_of",
    "nvfp4_svd_config",
    "nvfp4_svd_tensors",
    "pareto_front",
    "parse_budget",
    "parse_plan",
    "parse_quantization_config",
    "plan_config",
    "prepare_qat",
    "quantization_config",
    "quantization_of",
    "quantize_calibrated",
    "quantize_weight",
    "quantized_layers",
    "read_layout",
    "recipe",
    "scheme",
    "split",
    "stack",
    "to_tensors",
    "unpack_experts",
    "with_corrected_bias",
]

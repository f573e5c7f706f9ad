"""Language models: configurations, checkpoints, the forward pass, generation, evaluation."""

from __future__ import annotations

from asterope.llm.config import FAMILIES, ModelConfig, Rope, read_config
from asterope.llm.evaluate import Quality, evaluate
from asterope.llm.generate import Sampling, generate, sample
from asterope.llm.layers import KVCache, Layer, Linear, PlainLinear
from asterope.llm.load import load_model, model_from_config
from asterope.llm.model import Model
from asterope.llm.parameters import ParameterCount, count_parameters
from asterope.llm.published import (
    PublishedModel,
    published_config,
    published_model,
    published_names,
)
from asterope.llm.tensors import TensorFiles, open_tensors
from asterope.llm.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "FAMILIES",
    "KVCache",
    "Layer",
    "Linear",
    "Model",
    "ModelConfig",
    "ParameterCount",
    "PlainLinear",
    "PublishedModel",
    "Quality",
    "Rope",
    "Sampling",
    "TensorFiles",
    "Tokenizer",
    "count_parameters",
    "evaluate",
    "generate",
    "load_model",
    "load_tokenizer",
    "model_from_config",
    "open_tensors",
    "published_config",
    "published_model",
    "published_names",
    "read_config",
    "sample",
]

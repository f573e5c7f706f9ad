"""Language models: configurations, checkpoints, the forward pass, generation, evaluation.

Configurations are read without torch; what needs it is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asterope.llm.config import FAMILIES, ExpertsConfig, LatentConfig, ModelConfig, read_config
from asterope.llm.parameters import ParameterCount, count_parameters
from asterope.llm.published import (
    PublishedModel,
    published_config,
    published_model,
    published_names,
)
from asterope.llm.rope import Rope
from asterope.llm.sharing import Sharing

if TYPE_CHECKING:
    from asterope.llm.cache import CACHE_FORMATS, with_cache, with_scales
    from asterope.llm.distillation import Trained, TrainingPlan, distill, distillation_loss
    from asterope.llm.kept_layers import KeptLayers
    from asterope.llm.kept_losses import KeptLosses
    from asterope.llm.layers import KVCache, Layer, Linear, PlainLinear
    from asterope.llm.load import (
        load_model,
        model_from_config,
        read_checkpoint_config,
        stored_layout,
    )
    from asterope.llm.model import Model
    from asterope.llm.pieces import (
        KV_UP,
        fused_pieces,
        module_names,
        projections,
        routers,
        scheme_place,
        stored_name,
        torch_name,
    )
    from asterope.llm.ptq import check_plain, quantize_layers
    from asterope.llm.quality import Quality, Reference, evaluate
    from asterope.llm.router import EXPERT_LOADS, ExpertLoads, ExpertShare, Router
    from asterope.llm.sampling import Sampling, generate, sample
    from asterope.llm.sensitivity import PlaceLoss, place_losses
    from asterope.llm.shard import shard
    from asterope.llm.tensors import TensorFiles, open_tensors
    from asterope.llm.tokenizer import Tokenizer, load_tokenizer
    from asterope.llm.trained import start_from, trained_model
    from asterope.llm.training_state import TrainingState
    from asterope.llm.working_set import working_set_bytes

__all__ = [
    "CACHE_FORMATS",
    "EXPERT_LOADS",
    "FAMILIES",
    "KV_UP",
    "ExpertLoads",
    "ExpertShare",
    "ExpertsConfig",
    "KVCache",
    "KeptLayers",
    "KeptLosses",
    "LatentConfig",
    "Layer",
    "Linear",
    "Model",
    "ModelConfig",
    "ParameterCount",
    "PlaceLoss",
    "PlainLinear",
    "PublishedModel",
    "Quality",
    "Reference",
    "Rope",
    "Router",
    "Sampling",
    "Sharing",
    "TensorFiles",
    "Tokenizer",
    "Trained",
    "TrainingPlan",
    "TrainingState",
    "check_plain",
    "count_parameters",
    "distill",
    "distillation_loss",
    "evaluate",
    "fused_pieces",
    "generate",
    "load_model",
    "load_tokenizer",
    "model_from_config",
    "module_names",
    "open_tensors",
    "place_losses",
    "projections",
    "published_config",
    "published_model",
    "published_names",
    "quantize_layers",
    "read_checkpoint_config",
    "read_config",
    "routers",
    "sample",
    "scheme_place",
    "shard",
    "start_from",
    "stored_layout",
    "stored_name",
    "torch_name",
    "trained_model",
    "with_cache",
    "with_scales",
    "working_set_bytes",
]

_MODULE_OF = {
    name: module
    for module, names in {
        "cache": ("CACHE_FORMATS", "with_cache", "with_scales"),
        "distillation": ("Trained", "TrainingPlan", "distill", "distillation_loss"),
        "kept_layers": ("KeptLayers",),
        "kept_losses": ("KeptLosses",),
        "layers": ("KVCache", "Layer", "Linear", "PlainLinear"),
        "load": ("load_model", "model_from_config", "read_checkpoint_config", "stored_layout"),
        "model": ("Model",),
        "pieces": (
            "KV_UP",
            "fused_pieces",
            "module_names",
            "projections",
            "routers",
            "scheme_place",
            "stored_name",
            "torch_name",
        ),
        "ptq": ("check_plain", "quantize_layers"),
        "quality": ("Quality", "Reference", "evaluate"),
        "router": ("EXPERT_LOADS", "ExpertLoads", "ExpertShare", "Router"),
        "sampling": ("Sampling", "generate", "sample"),
        "shard": ("shard",),
        "sensitivity": ("PlaceLoss", "place_losses"),
        "tensors": ("TensorFiles", "open_tensors"),
        "tokenizer": ("Tokenizer", "load_tokenizer"),
        "trained": ("start_from", "trained_model"),
        "training_state": ("TrainingState",),
        "working_set": ("working_set_bytes",),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value

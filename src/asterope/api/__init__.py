"""What users import: models to hold in the hand, and the run behind `asterope run`.

What needs torch is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asterope.api.pricing import Pricing

if TYPE_CHECKING:
    from asterope.api.attention import (
        AttentionMapping,
        AttentionTime,
        attention_launches,
        attention_mappings,
        time_attention,
    )
    from asterope.api.calibration import Calibration, read_calibration, text_windows
    from asterope.api.estimation import EstimateOptions, estimate
    from asterope.api.experts import (
        ExpertMapping,
        ExpertsShape,
        ExpertsTime,
        experts_launches,
        experts_mappings,
        time_experts,
    )
    from asterope.api.heads import HeadShape
    from asterope.api.language_model import LanguageModel, from_config, load, with_scheme
    from asterope.api.latent_heads import LatentHeadShape
    from asterope.api.launched import PAGE_EVENTS, launch_report
    from asterope.api.mapping import MappingTime, PlacedTime, product_mappings
    from asterope.api.memory import MemoryUse, MemoryWatch
    from asterope.api.mix_search import compare_mixes, fit_budget, mix_report
    from asterope.api.operation import MappedTime, OperationTime
    from asterope.api.options import COMPARED_CHIPS, COMPARED_FORMATS, RunOptions
    from asterope.api.place_costs import PlaceCosts, Workload
    from asterope.api.place_sensitivity import (
        MIXED_FORMATS,
        FrontMix,
        PlaceSensitivity,
        measure_places,
    )
    from asterope.api.product import ProductTime, product_launches, time_product
    from asterope.api.progress import Progress
    from asterope.api.run import run_checkpoint
    from asterope.api.save import check_target
    from asterope.api.score import Scored, score_formats
    from asterope.api.sensitivity import Sensitivity, vary_figures
    from asterope.api.source import (
        SHIPPED_NAME,
        Source,
        find_source,
        read_scheme,
        resolve_scheme,
        shipped_model,
    )
    from asterope.api.sweep import read_sweep, run_sweep, time_point
    from asterope.api.tasks import score_tasks
    from asterope.api.text import HELD_OUT_MODULES, ScoredText, text_of
    from asterope.api.timed import Run
    from asterope.api.training import (
        TrainedModel,
        forget_training,
        from_trained,
        torch_model,
        train,
    )
    from asterope.api.workers import on_processes, on_ray

__all__ = [
    "COMPARED_CHIPS",
    "COMPARED_FORMATS",
    "HELD_OUT_MODULES",
    "MIXED_FORMATS",
    "PAGE_EVENTS",
    "SHIPPED_NAME",
    "AttentionMapping",
    "AttentionTime",
    "Calibration",
    "EstimateOptions",
    "ExpertMapping",
    "ExpertsShape",
    "ExpertsTime",
    "FrontMix",
    "HeadShape",
    "LanguageModel",
    "LatentHeadShape",
    "MappedTime",
    "MappingTime",
    "MemoryUse",
    "MemoryWatch",
    "OperationTime",
    "PlaceCosts",
    "PlaceSensitivity",
    "PlacedTime",
    "Pricing",
    "ProductTime",
    "Progress",
    "Run",
    "RunOptions",
    "Scored",
    "ScoredText",
    "Sensitivity",
    "Source",
    "TrainedModel",
    "Workload",
    "attention_launches",
    "attention_mappings",
    "check_target",
    "compare_mixes",
    "estimate",
    "experts_launches",
    "experts_mappings",
    "find_source",
    "fit_budget",
    "forget_training",
    "from_config",
    "from_trained",
    "launch_report",
    "load",
    "measure_places",
    "mix_report",
    "on_processes",
    "on_ray",
    "product_launches",
    "product_mappings",
    "read_calibration",
    "read_scheme",
    "read_sweep",
    "resolve_scheme",
    "run_checkpoint",
    "run_sweep",
    "score_formats",
    "score_tasks",
    "shipped_model",
    "text_of",
    "text_windows",
    "time_attention",
    "time_experts",
    "time_point",
    "time_product",
    "torch_model",
    "train",
    "vary_figures",
    "with_scheme",
]

_MODULE_OF = {
    name: module
    for module, names in {
        "attention": (
            "AttentionMapping",
            "AttentionTime",
            "attention_launches",
            "attention_mappings",
            "time_attention",
        ),
        "calibration": ("Calibration", "read_calibration", "text_windows"),
        "estimation": ("EstimateOptions", "estimate"),
        "experts": (
            "ExpertMapping",
            "ExpertsShape",
            "ExpertsTime",
            "experts_launches",
            "experts_mappings",
            "time_experts",
        ),
        "heads": ("HeadShape",),
        "language_model": ("LanguageModel", "from_config", "load", "with_scheme"),
        "latent_heads": ("LatentHeadShape",),
        "launched": ("PAGE_EVENTS", "launch_report"),
        "mapping": ("MappingTime", "PlacedTime", "product_mappings"),
        "memory": ("MemoryUse", "MemoryWatch"),
        "mix_search": ("compare_mixes", "fit_budget", "mix_report"),
        "operation": ("MappedTime", "OperationTime"),
        "options": ("COMPARED_CHIPS", "COMPARED_FORMATS", "RunOptions"),
        "place_costs": ("PlaceCosts", "Workload"),
        "place_sensitivity": (
            "MIXED_FORMATS",
            "FrontMix",
            "PlaceSensitivity",
            "measure_places",
        ),
        "product": ("ProductTime", "product_launches", "time_product"),
        "progress": ("Progress",),
        "run": ("run_checkpoint",),
        "save": ("check_target",),
        "sensitivity": ("Sensitivity", "vary_figures"),
        "score": ("Scored", "score_formats"),
        "tasks": ("score_tasks",),
        "source": (
            "SHIPPED_NAME",
            "Source",
            "find_source",
            "read_scheme",
            "resolve_scheme",
            "shipped_model",
        ),
        "sweep": ("read_sweep", "run_sweep", "time_point"),
        "text": ("HELD_OUT_MODULES", "ScoredText", "text_of"),
        "timed": ("Run",),
        "training": ("TrainedModel", "forget_training", "from_trained", "torch_model", "train"),
        "workers": ("on_processes", "on_ray"),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value

"""What users import: models to hold in the hand, and the run behind `asterope run`.

What needs torch is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asterope.api.pricing import Pricing

if TYPE_CHECKING:
    from asterope.api.estimation import EstimateOptions, estimate
    from asterope.api.language_model import LanguageModel, from_config, load, with_scheme
    from asterope.api.options import COMPARED_CHIPS, COMPARED_FORMATS, RunOptions
    from asterope.api.progress import Progress
    from asterope.api.run import run_checkpoint
    from asterope.api.save import check_target
    from asterope.api.score import Scored, score_formats
    from asterope.api.source import (
        SHIPPED_NAME,
        Source,
        find_source,
        resolve_scheme,
        shipped_model,
    )
    from asterope.api.text import HELD_OUT_MODULES, ScoredText, text_of
    from asterope.api.timed import Run

__all__ = [
    "COMPARED_CHIPS",
    "COMPARED_FORMATS",
    "HELD_OUT_MODULES",
    "SHIPPED_NAME",
    "EstimateOptions",
    "LanguageModel",
    "Pricing",
    "Progress",
    "Run",
    "RunOptions",
    "Scored",
    "ScoredText",
    "Source",
    "check_target",
    "estimate",
    "find_source",
    "from_config",
    "load",
    "resolve_scheme",
    "run_checkpoint",
    "score_formats",
    "shipped_model",
    "text_of",
    "with_scheme",
]

_MODULE_OF = {
    name: module
    for module, names in {
        "estimation": ("EstimateOptions", "estimate"),
        "language_model": ("LanguageModel", "from_config", "load", "with_scheme"),
        "options": ("COMPARED_CHIPS", "COMPARED_FORMATS", "RunOptions"),
        "progress": ("Progress",),
        "run": ("run_checkpoint",),
        "save": ("check_target",),
        "score": ("Scored", "score_formats"),
        "source": ("SHIPPED_NAME", "Source", "find_source", "resolve_scheme", "shipped_model"),
        "text": ("HELD_OUT_MODULES", "ScoredText", "text_of"),
        "timed": ("Run",),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value

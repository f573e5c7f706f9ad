from asterope import chips, cost, formats, llm, quant, twin
from asterope.api import (
    EstimateOptions,
    LanguageModel,
    Pricing,
    Run,
    RunOptions,
    estimate,
    from_config,
    from_trained,
    load,
    shipped_model,
    train,
)
from asterope.api import run_checkpoint as run
from asterope.cost import Assumptions
from asterope.errors import AsteropeError
from asterope.runtime import Timeline, simulate

__version__: str

__all__ = [
    "Assumptions",
    "AsteropeError",
    "EstimateOptions",
    "LanguageModel",
    "Pricing",
    "Run",
    "RunOptions",
    "Timeline",
    "__version__",
    "chips",
    "cost",
    "estimate",
    "formats",
    "from_config",
    "from_trained",
    "llm",
    "load",
    "quant",
    "run",
    "shipped_model",
    "simulate",
    "train",
    "twin",
]

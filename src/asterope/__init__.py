"""Asterope: an open Maia 200 in software.

    import asterope as ast

    model = ast.load("path/to/hf-checkpoint").quantize("mxfp4")
    run = model.simulate(ast.chips.maia200(), batch=32, context=4096)
    run.tokens_per_s, run.usd_per_mtok, run.bound_by

Names are imported when they are used: `import asterope` is fast and needs no torch. Their types
are in `__init__.pyi`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

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

_PACKAGES = ("chips", "cost", "formats", "llm", "quant", "twin")
_PACKAGE_OF = {
    "Assumptions": "cost",
    "AsteropeError": "errors",
    "EstimateOptions": "api",
    "LanguageModel": "api",
    "Pricing": "api",
    "Run": "api",
    "RunOptions": "api",
    "Timeline": "runtime",
    "estimate": "api",
    "from_config": "api",
    "from_trained": "api",
    "load": "api",
    "run": "api",
    "shipped_model": "api",
    "simulate": "runtime",
    "train": "api",
}
_ORIGINAL_NAME = {"run": "run_checkpoint"}


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PACKAGE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        package = importlib.import_module(f"{__name__}.{_PACKAGE_OF[name]}")
        value = getattr(package, _ORIGINAL_NAME.get(name, name))
    except ModuleNotFoundError as error:
        what = f"asterope.{name} needs {error.name}: pip install 'asterope[torch]'"
        raise ModuleNotFoundError(what, name=error.name) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Packages that only some commands need, imported when they are."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from asterope.errors import ConfigError

__all__ = ["optional_package"]


def optional_package(name: str, *, called: str, purpose: str, extra: str) -> Any:
    """Import a package that an extra installs, its warnings about its own dependencies left out.

    Raises: ConfigError, saying what for and how to install it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"{purpose} needs {called}", where=purpose, hint=f"pip install 'asterope[{extra}]'"
        ) from None

"""One file of kernels, without the package around it.

Serving frameworks import all of themselves before a kernel. A file is loaded with stand-ins for the
modules of its own package that are not loaded yet: the launcher code in it is of no use then, its
kernels are what they are.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

__all__ = ["load_kernels"]


class _StandIn(ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=f"{self.__name__}.{name}")


class _StandIns(MetaPathFinder, Loader):
    """Finds a stand-in for each module of a package that is not loaded."""

    def __init__(self, package: str) -> None:
        self._prefix = f"{package}."

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Claim the modules of the package."""
        return ModuleSpec(name, self, is_package=True) if name.startswith(self._prefix) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


def load_kernels(name: str, *, first: Sequence[str]) -> ModuleType:
    """Import a module after the modules `first`, with stand-ins for the rest of its package."""
    package = importlib.import_module(name.partition(".")[0])
    for other in first:
        importlib.import_module(other)
    folder = Path(package.__path__[0]).parent
    spec = spec_from_file_location(name, folder / (name.replace(".", "/") + ".py"))
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    finder = _StandIns(package.__name__)
    sys.meta_path.insert(0, finder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.meta_path.remove(finder)
        for key in [k for k, found in sys.modules.items() if isinstance(found, _StandIn)]:
            del sys.modules[key]
    return module

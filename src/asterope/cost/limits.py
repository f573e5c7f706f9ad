"""Refuse a value outside its limits, naming the field, the value, the limit and a hint."""

from __future__ import annotations

import math
import numbers
import reprlib

from asterope.errors import ConfigError

__all__ = ["check_count", "check_flag", "check_number"]


def check_number(where: str, value: object, *, low: float, high: float, hint: str = "") -> float:
    """Return the value as a float if it is a finite number from `low` to `high`.

    Raises: ConfigError naming the field if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"{reprlib.repr(value)} is not a number", where=where, hint=hint)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high:
        what = f"{reprlib.repr(value)} is not from {low:g} to {high:g}"
        raise ConfigError(what, where=where, hint=hint)
    return number


def check_count(where: str, value: object, *, high: int, hint: str = "") -> int:
    """Return the value if it is a whole number from 1 to `high`.

    Raises: ConfigError naming the field if it is not.
    """
    if not isinstance(value, bool) and isinstance(value, numbers.Integral):
        number = int(value)
        if 1 <= number <= high:
            return number
    what = f"{reprlib.repr(value)} is not a whole number from 1 to {high}"
    raise ConfigError(what, where=where, hint=hint)


def check_flag(where: str, value: object) -> bool:
    """Return the value if it is True or False.

    Raises: ConfigError naming the field if it is not.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{reprlib.repr(value)} is neither True nor False", where=where)
    return value

"""Fields of a checkpoint's quantization configuration: what they may hold, and errors about it."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

from asterope.errors import CheckpointError, UnsupportedError

__all__ = ["check_fields", "look_up", "mapping", "names", "refuse"]

T = TypeVar("T")


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return a value that has to be an object.

    Raises: CheckpointError naming the field.
    """
    if not isinstance(value, Mapping):
        raise CheckpointError(f"is {type(value).__name__}, not an object", where=where)
    return value


def names(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of names; null is an empty one.

    Raises: CheckpointError naming the field.
    """
    found = [] if value is None else value
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise CheckpointError("is not a list of names", where=where)
    return tuple(found)


def look_up(table: Mapping[Any, T], key: object) -> T | None:
    """Return what a table has for a key out of JSON, which may be anything: lists do not hash."""
    return next((value for known, value in table.items() if known == key), None)


def refuse(where: str, found: object, wanted: str) -> NoReturn:
    """Raise the UnsupportedError of a valid value that cannot be read."""
    raise UnsupportedError(f"{reprlib.repr(found)} cannot be read; {wanted} can", where=where)


def check_fields(config: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Check that nothing is said that is not understood: it might change what the weights mean.

    A field that says nothing (null, false, empty) may have any name.

    Raises: UnsupportedError naming the field.
    """
    for field, value in config.items():
        says_nothing = value is None or value is False or value in ("", [], {})
        if field not in known and not says_nothing:
            raise UnsupportedError(
                f"{reprlib.repr(value)} is not understood, and might change what the weights mean",
                where=f"{where}.{field}",
                hint=f"fields that are read: {', '.join(sorted(known))}",
            )

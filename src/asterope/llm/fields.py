"""The fields of a table in a file, each read by the kind of value that it may hold."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asterope.errors import CheckpointError

__all__ = [
    "CONTEXT", "EXPERTS", "FLAG", "HEADS", "LAYERS", "NAME", "POSITIVE", "SIZE", "TABLE", "TOKEN",
    "Fields", "Kind", "list_of", "one_of", "whole",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field may hold, and what is said of a value that it may not."""

    accepts: Callable[[Any], bool]
    complaint: str


def whole(low: int, high: int) -> Kind:
    """Return the kind of whole numbers within limits."""
    return Kind(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
        f"is not a whole number from {low} to {high}",
    )


def list_of(item: Kind, what: str) -> Kind:
    """Return the kind of lists of a kind; `what` says of what, in errors."""
    return Kind(
        lambda v: isinstance(v, list) and all(item.accepts(each) for each in v),
        f"is not a list of {what}",
    )


def one_of(*values: str) -> Kind:
    """Return the kind of some names."""
    return Kind(lambda v: isinstance(v, str) and v in values, "is not supported")


LAYERS = whole(1, 10_000)
HEADS = whole(1, 2**16)
EXPERTS = whole(1, 2**12)
SIZE = whole(1, 2**24)
CONTEXT = whole(1, 2**31 - 1)
TOKEN = whole(0, 2**24)
POSITIVE = Kind(
    # Beyond these float32, in which models compute, has zero and infinity.
    lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 1e-30 < v < 1e30,
    "is not a number above 0",
)
FLAG = Kind(lambda v: isinstance(v, bool), "is neither true nor false")
NAME = Kind(lambda v: isinstance(v, str), "is not a name")
TABLE = Kind(lambda v: isinstance(v, Mapping), "is not a table")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """A table, and where it is from, for errors."""

    raw: Mapping[str, Any]
    where: str

    def fail(self, what: str, field: str, hint: str = "") -> CheckpointError:
        """Return the error that says what is wrong with a field."""
        return CheckpointError(what, where=f"{self.where}{field}", hint=hint)

    def get(self, field: str, kind: Kind, default: Any = None, *, hint: str = "") -> Any:
        """Return a field, or the default where it is absent or null.

        Raises: CheckpointError for a value of another kind; if there is no default, for none.
        """
        value = self.raw.get(field)
        value = default if value is None else value
        if value is None:
            raise self.fail("is missing", field)
        if not kind.accepts(value):
            raise self.fail(f"{reprlib.repr(value)} {kind.complaint}", field, hint)
        return value

    def has(self, field: str) -> bool:
        """Whether a field is there and not null."""
        return self.raw.get(field) is not None

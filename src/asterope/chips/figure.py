"""Figures: how a field of a chip states its unit, and a figure its source and confidence."""

from __future__ import annotations

import difflib
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from asterope.errors import ChipError

__all__ = [
    "RATE_FORMATS",
    "Confidence",
    "FrozenMap",
    "Provenance",
    "Spec",
    "Value",
    "check",
    "did_you_mean",
    "figure",
    "figures_of",
    "show",
    "spec_of",
    "specs",
]

Value = int | float | str | bool
V = TypeVar("V")

RATE_FORMATS = (
    "fp4", "fp6", "fp8", "bf16", "fp16", "tf32", "fp32", "int4", "int8", "mx6", "mx9",
)  # fmt: skip
"""Element formats a maker states a rate for; `mx6` and `mx9` are Maia 100's integer blocks."""

_MAX_INT = 2**63 - 1  # the event engine counts in 64 bits
_MAX_FLOAT = 1e30  # products of figures stay finite


class Confidence(StrEnum):
    """How a figure is known, from the maker's own words down to a user's what-if."""

    PUBLISHED = "published"
    SECONDARY = "secondary"
    DERIVED = "derived"
    CALIBRATED = "calibrated"
    ASSUMED = "assumed"
    WHAT_IF = "what_if"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a figure comes from, how sure it is, and what a reader must know about it."""

    source: str
    confidence: Confidence
    note: str = ""


class FrozenMap(Mapping[str, V]):
    """A mapping that is hashable, picklable and never changes."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, V]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, key: str) -> V:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return repr(self._entries)


def figure(
    unit: str, doc: str, *, zero: bool = False, at_most: float = math.inf, optional: bool = False
) -> Any:
    """Declare a figure of a chip: its unit, what it means, and its limits."""
    metadata = {"unit": unit, "doc": doc, "zero": zero, "at_most": at_most}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


@dataclass(frozen=True, slots=True)
class Spec:
    """One figure a description may hold; a `keyed` one holds one value for each element format."""

    path: str
    kind: type
    unit: str
    doc: str
    zero: bool
    at_most: float
    optional: bool
    keyed: bool


@cache
def specs(cls: type, prefix: str = "") -> tuple[Spec, ...]:
    """List the figures of a dataclass and its parts, in the order of declaration."""
    hints = typing.get_type_hints(cls)
    found: list[Spec] = []
    for item in fields(cls):
        kind, optional = without_none(hints[item.name])
        path = prefix + item.name
        if isinstance(kind, type) and is_dataclass(kind):
            found.extend(specs(kind, path + "."))
        elif "unit" in item.metadata:
            keyed = typing.get_origin(kind) is Mapping
            kind = typing.get_args(kind)[1] if keyed else kind
            found.append(Spec(path, kind, **item.metadata, optional=optional, keyed=keyed))
    return tuple(found)


def without_none(hint: Any) -> tuple[Any, bool]:
    """Split `X | None` into X and whether None was allowed."""
    if not isinstance(hint, types.UnionType):
        return hint, False
    return next(part for part in typing.get_args(hint) if part is not types.NoneType), True


def spec_of(cls: type, path: str) -> Spec | None:
    """Find the figure that a dotted path names, if there is one."""
    by_path = {spec.path: spec for spec in specs(cls)}
    if path in by_path and not by_path[path].keyed:
        return by_path[path]
    group, _, key = path.rpartition(".")
    keyed = by_path.get(group)
    return keyed if keyed is not None and keyed.keyed and key in RATE_FORMATS else None


def figures_of(part: Any, prefix: str = "") -> Iterator[tuple[str, Value]]:
    """Walk the figures that are present, as dotted path and value."""
    for item in fields(part):
        value = getattr(part, item.name)
        path = prefix + item.name
        if value is None:
            continue
        if is_dataclass(value):
            yield from figures_of(value, path + ".")
        elif "unit" in item.metadata and isinstance(value, Mapping):
            yield from ((f"{path}.{key}", entry) for key, entry in value.items())
        elif "unit" in item.metadata:
            yield path, value


def check(spec: Spec, path: str, value: object) -> Value:
    """Return the value in the type its field asks for, or say what is wrong with it.

    Raises: ChipError with the path if the value has the wrong type or is outside its limits.
    """
    if spec.kind is str:
        return _check_text(path, value)
    if spec.kind is bool:
        if isinstance(value, bool):
            return value
        raise ChipError(f"{show(value)} is neither true nor false", where=path)
    return _check_number(spec, path, value)


def _check_text(path: str, value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ChipError(f"{show(value)} is not a line of printable text", where=path)


def _check_number(spec: Spec, path: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ChipError(f"{show(value)} is not a number [{spec.unit}]", where=path)
    if isinstance(value, float) and not math.isfinite(value):
        raise ChipError(f"{show(value)} is not finite", where=path)
    if value < 0 or (value == 0 and not spec.zero):
        limit = "zero or more" if spec.zero else "more than zero"
        raise ChipError(f"{show(value)} {spec.unit} must be {limit}", where=path)
    if value > spec.at_most:
        raise ChipError(f"{show(value)} is more than {spec.at_most:g}", where=path)
    if spec.kind is float and value <= _MAX_FLOAT:
        return float(value)
    if spec.kind is int and value <= _MAX_INT and value == int(value):
        return int(value)
    limit = f"up to {_MAX_FLOAT:g}" if spec.kind is float else "that is whole and below 2^63"
    raise ChipError(f"{show(value)} is not a number {limit} [{spec.unit}]", where=path)


def show(value: object) -> str:
    """Write any value shortly enough for an error message."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_INT:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, dict)):
        return "a table" if isinstance(value, dict) else "a list"
    return reprlib.repr(value)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Write the hint for a misspelt word."""
    close = difflib.get_close_matches(word[:200], list(known), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else otherwise

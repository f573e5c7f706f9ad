"""Assemble a chip from a flat description, and change one by a what-if."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from asterope.chips.chip import Chip
from asterope.chips.figure import (
    RATE_FORMATS,
    Confidence,
    Provenance,
    Spec,
    Value,
    check,
    did_you_mean,
    figures_of,
    spec_of,
    specs,
    without_none,
)
from asterope.chips.relations import follow
from asterope.errors import ChipError

__all__ = ["GROUPS", "Entry", "change", "chip_of", "known_spec", "replace"]

_KEYED = frozenset(spec.path for spec in specs(Chip) if spec.keyed)
GROUPS = _KEYED.union(
    ".".join(spec.path.split(".")[:end])
    for spec in specs(Chip)
    for end in range(1, spec.path.count(".") + 1)
)
"""Dotted paths that hold figures and are none themselves."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as a description states it, with as much of a label as it gives."""

    value: object
    source: str = ""
    confidence: Confidence | None = None
    note: str = ""

    @property
    def is_plain(self) -> bool:
        """Say whether the value comes without any label."""
        return not (self.source or self.confidence or self.note)

    def label(self, origin: str) -> Provenance:
        """Complete the label: what is not said is the what-if of `origin`."""
        confidence = self.confidence or Confidence.WHAT_IF
        return Provenance(self.source or origin, confidence, self.note)


def known_spec(path: str, beside: tuple[str, ...] = ()) -> Spec:
    """Find the figure a path names; `beside` adds words that a misspelt path may have meant.

    Raises: ChipError with the nearest known path if there is none.
    """
    spec = spec_of(Chip, path)
    if spec is not None:
        return spec
    if path in GROUPS:
        raise ChipError("is a group of figures and has no value of its own", where=path)
    if path.rpartition(".")[0] in _KEYED:
        hint = f"the formats are {', '.join(RATE_FORMATS)}"
        raise ChipError("is not an element format with a rate", where=path, hint=hint)
    known = [*beside, *(spec.path for spec in specs(Chip))]
    leaves = {name.rpartition(".")[2]: name for name in known}
    nearest = leaves.get(path.rpartition(".")[2], "")
    hint = f"did you mean {nearest!r}?" if nearest else did_you_mean(path, known)
    raise ChipError("is not a field of a chip", where=path, hint=hint)


def chip_of(
    identity: Mapping[str, Any], values: Mapping[str, Value], provenance: Mapping[str, Provenance]
) -> Chip:
    """Build and check a chip from dotted paths.

    Raises: ChipError naming the figure that is missing or wrong.
    """
    return Chip(**identity, **_arguments(Chip, values, ""), provenance=provenance)


def _arguments(cls: type, values: Mapping[str, Value], prefix: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for item in fields(cls):
        kind, optional = without_none(hints[item.name])
        path = prefix + item.name
        below = {name: value for name, value in values.items() if name.startswith(path + ".")}
        if is_dataclass(kind) and isinstance(kind, type):
            if below or not optional:
                arguments[item.name] = kind(**_arguments(kind, below, path + "."))
        elif "unit" not in item.metadata:
            continue
        elif typing.get_origin(kind) is Mapping:
            arguments[item.name] = {name.removeprefix(path + "."): below[name] for name in below}
        elif path in values:
            arguments[item.name] = values[path]
        elif not optional:
            what = f"is missing [{item.metadata['unit']}]: {item.metadata['doc']}"
            raise ChipError(what, where=path)
    return arguments


def change(
    base: Chip, entries: Mapping[str, Entry], *, origin: str, identity: Mapping[str, str]
) -> Chip:
    """Lay entries over a chip; what differs is labelled a what-if of `origin`.

    An entry that repeats both value and label of the base says nothing. One that repeats the label
    beside another value has lost the right to it: the source did not say the new value.
    """
    before = dict(figures_of(base))
    after, provenance = dict(before), dict(base.provenance)
    stated: set[str] = set()
    for path, entry in entries.items():
        value = check(known_spec(path), path, entry.value)
        label, same = entry.label(origin), before.get(path) == value
        copied = label == provenance.get(path)
        if same and copied:
            continue
        stated.add(path)
        after[path] = value
        if entry.is_plain and same:
            continue
        provenance[path] = Provenance(origin, Confidence.WHAT_IF) if copied else label
    for path, value in follow(before, after, stated).items():
        after[path] = value
        provenance[path] = Provenance(origin, Confidence.WHAT_IF, "follows from what was changed")
    own = {"name": base.name, "vendor": base.vendor, "profile": base.profile, "base": base.base}
    return chip_of({**own, **identity}, after, provenance)


def replace(chip: Chip, overrides: Mapping[str, Value], *, origin: str = "what-if") -> Chip:
    """Change figures by dotted path; they and what follows from them are labelled what-if.

    Example: `replace(chip, {"hbm.bandwidth_bytes_per_s": 8e12})`.

    Raises: ChipError naming the path if it is unknown, or the value does not fit.
    """
    entries = {path: Entry(value) for path, value in overrides.items()}
    return change(chip, entries, origin=origin, identity={})

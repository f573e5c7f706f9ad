"""Read the TOML form of a chip into entries by dotted path."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asterope.chips.assemble import GROUPS, Entry, known_spec
from asterope.chips.figure import Confidence, did_you_mean, show
from asterope.errors import ChipError

__all__ = ["Document", "parse"]

_TEXTS = ("name", "vendor", "base", "profile", "default_profile")
_TABLES = ("sources", "profiles")
_ROOT_KEYS = (*_TEXTS, *_TABLES, "aliases")
_LABELS = ("value", "source", "confidence", "note")


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A parsed description: who it is, its figures, and each profile's overrides."""

    texts: Mapping[str, str]
    aliases: tuple[str, ...]
    entries: Mapping[str, Entry]
    profiles: Mapping[str, Mapping[str, Entry]]

    def profile_names(self) -> tuple[str, ...]:
        """List the profiles, the default one first."""
        default = self.texts.get("default_profile") or self.texts.get("profile")
        if not self.profiles:
            return (default or "default",)
        return tuple(sorted(self.profiles, key=lambda name: name != default))

    def in_profile(self, profile: str | None) -> tuple[str, dict[str, Entry]]:
        """Return the name of the chosen profile and all figures in it.

        Raises: ChipError listing the profiles if the chosen one does not exist.
        """
        names = self.profile_names()
        chosen = profile or self.texts.get("default_profile") or names[0]
        if chosen not in names:
            what = f"{show(chosen)} is not a profile of this chip"
            raise ChipError(what, where="profile", hint=f"it has {', '.join(names)}")
        return chosen, {**self.entries, **self.profiles.get(chosen, {})}


def parse(text: str) -> Document:
    """Parse a description.

    Raises: ChipError naming the line of bad TOML, or the path of a field that does not exist.
    """
    try:
        tree = tomllib.loads(text)
    except RecursionError:
        raise ChipError("nests too deep to be a chip", where="TOML") from None
    except ValueError as error:
        hint = "strings need quotes, and a table's name stands in [brackets]"
        raise ChipError(f"is not valid TOML: {error}", where="TOML", hint=hint) from None
    texts = {key: _text(key, tree.pop(key)) for key in _TEXTS if key in tree}
    aliases = tree.pop("aliases", [])
    if not isinstance(aliases, list):
        raise ChipError(f"{show(aliases)} is not a list of names", where="aliases")
    tables = {key: _table(key, tree.pop(key, {})) for key in _TABLES}
    sources = {key: _text(f"sources.{key}", text) for key, text in tables["sources"].items()}
    return Document(
        texts=texts,
        aliases=tuple(_text("aliases", alias) for alias in aliases),
        entries=dict(_entries(tree, "", sources)),
        profiles={
            name: _profile(name, _table(f"profiles.{name}", table), sources)
            for name, table in tables["profiles"].items()
        },
    )


def _text(path: str, value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ChipError(f"{show(value)} is not a line of printable text", where=path)


def _table(path: str, value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ChipError(f"{show(value)} is not a table", where=path)


def _profile(name: str, table: dict[str, Any], sources: Mapping[str, str]) -> dict[str, Entry]:
    try:
        return dict(_entries(table, "", sources))
    except ChipError as error:
        where = f"profiles.{name}.{error.where}"
        raise ChipError(error.what, where=where, hint=error.hint) from None


def _entries(
    table: Mapping[str, Any], prefix: str, sources: Mapping[str, str]
) -> Iterator[tuple[str, Entry]]:
    for key, value in table.items():
        path = prefix + key
        if path in GROUPS and "." not in key:
            yield from _entries(_table(path, value), path + ".", sources)
            continue
        if "." in key:
            raise ChipError("is a quoted key with a dot", where=path, hint="leave the quotes out")
        known_spec(path, beside=() if prefix else _ROOT_KEYS)
        yield path, _entry(path, value, sources)


def _entry(path: str, value: object, sources: Mapping[str, str]) -> Entry:
    if not isinstance(value, dict):
        return Entry(value)
    for key in value:
        if key not in _LABELS:
            hint = did_you_mean(key, _LABELS, f"a figure has {', '.join(_LABELS)}")
            raise ChipError("is not part of a figure", where=f"{path}.{key}", hint=hint)
    if "value" not in value:
        raise ChipError("has no value", where=path)
    labels = {key: _text(f"{path}.{key}", value[key]) for key in _LABELS[1:] if key in value}
    source = labels.get("source", "")
    return Entry(
        value["value"],
        source=sources.get(source, source),
        confidence=_confidence(path, labels.get("confidence")),
        note=labels.get("note", ""),
    )


def _confidence(path: str, text: str | None) -> Confidence | None:
    if text is None:
        return None
    if text in list(Confidence):
        return Confidence(text)
    hint = did_you_mean(text, Confidence, f"one of {', '.join(Confidence)}")
    raise ChipError(f"{show(text)} is not a confidence", where=f"{path}.confidence", hint=hint)

"""Published model configurations by name, for what needs a model's shape but no weights."""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from asterope.chips import Confidence
from asterope.errors import ConfigError

__all__ = ["PublishedModel", "published_config", "published_model", "published_names"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedModel:
    """Say what a configuration is called, where it is from and how large its maker says it is."""

    name: str
    source: str
    confidence: Confidence
    aliases: tuple[str, ...] = ()
    params_published: str | None = None
    active_published: str | None = None
    note: str = ""


def published_names() -> tuple[str, ...]:
    """List the models, without their aliases."""
    return tuple(sorted(_catalogue()))


def published_model(name: str) -> PublishedModel:
    """Return what is known about a model besides its configuration.

    Raises: ConfigError with the nearest name and the list if the model is not known.
    """
    return _catalogue()[_canonical(name)][0]


def published_config(name: str) -> dict[str, Any]:
    """Return a model's configuration as its Hugging Face config.json spells it, to keep.

    `name` is a name or alias in any spelling of case and punctuation.

    Raises: ConfigError with the nearest name and the list if the model is not known.
    """
    return copy.deepcopy(_catalogue()[_canonical(name)][1])


@cache
def _catalogue() -> Mapping[str, tuple[PublishedModel, dict[str, Any]]]:
    """Read the packaged file, by the name of the model."""
    file = resources.files("asterope.llm") / "published.toml"
    tree = tomllib.loads(file.read_text(encoding="utf-8"))
    sources = tree.pop("sources")
    return {name: _entry(name, row, sources) for name, row in tree.items()}


def _entry(
    name: str, row: dict[str, Any], sources: Mapping[str, str]
) -> tuple[PublishedModel, dict[str, Any]]:
    config = row.pop("config")
    row["source"] = sources.get(row["source"], row["source"])
    row["confidence"] = Confidence(row["confidence"])
    row["aliases"] = tuple(row.get("aliases", ()))
    return PublishedModel(name=name, **row), config


def _canonical(name: str) -> str:
    """Find the model that a name or alias means."""
    by_spelling = {
        _spelling(spelling): model.name
        for model, _ in _catalogue().values()
        for spelling in (model.name, *model.aliases)
    }
    if _spelling(name) in by_spelling:
        return by_spelling[_spelling(name)]
    close = difflib.get_close_matches(_spelling(name[:200]), by_spelling, n=1, cutoff=0.5)
    known = f"the published models are {', '.join(published_names())}"
    hint = f"did you mean '{by_spelling[close[0]]}'? {known}" if close else known
    raise ConfigError(f"{name[:200]!r} is not a published model", where="model", hint=hint)


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""The built-in chips, one data file each, and the way from a name or a file to a chip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from asterope.chips.assemble import change, chip_of, known_spec
from asterope.chips.chip import Chip
from asterope.chips.figure import check, did_you_mean, show
from asterope.chips.toml_in import Document, parse
from asterope.errors import ChipError

__all__ = ["get", "load_toml", "loads_toml", "maia200", "names", "profiles"]


def names() -> tuple[str, ...]:
    """List the built-in chips."""
    return tuple(sorted(_documents()))


def profiles(name: str) -> tuple[str, ...]:
    """List the profiles of a built-in chip, the default one first.

    Raises: ChipError if there is no such chip.
    """
    return _documents()[_canonical(name)].profile_names()


def maia200(profile: str = "bench") -> Chip:
    """Return Maia 200 as its measurements were published (`bench`) or as sold (`headline`)."""
    return get("maia200", profile)


def get(name: str, profile: str | None = None) -> Chip:
    """Return a chip by name (`h100`), name and profile (`maia200:headline`) or TOML file.

    Raises: ChipError listing the chips or profiles that exist, or naming the field of the file.
    """
    if name.endswith(".toml"):
        return load_toml(name, profile=profile)
    chip, _, named_profile = name.partition(":")
    if named_profile and profile and named_profile != profile:
        what = f"{show(named_profile)} in the name and {show(profile)} beside it differ"
        raise ChipError(what, where="profile")
    return _built_in(_canonical(chip), named_profile or profile)


def load_toml(path: str | Path, *, profile: str | None = None) -> Chip:
    """Read a chip from a TOML file.

    Raises: ChipError if the file cannot be read, or with the field that is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ChipError(f"cannot be read: {reason}", where=str(path)) from None
    return loads_toml(text, where=str(path), profile=profile)


def loads_toml(text: str, *, where: str = "what-if", profile: str | None = None) -> Chip:
    """Read a chip from TOML: a complete description, or changes over a `base`.

    A figure that differs from the base is labelled what-if of `where` unless the text labels it.

    Raises: ChipError whose `where` is this `where` and the path of the figure.
    """
    try:
        document = parse(text)
        if "base" in document.texts:
            return _over_base(document, where, profile)
        return _on_its_own(document, where, profile)
    except ChipError as error:
        raise ChipError(error.what, where=f"{where}: {error.where}", hint=error.hint) from None


def _over_base(document: Document, where: str, profile: str | None) -> Chip:
    texts = document.texts
    if document.profiles or "default_profile" in texts:
        raise ChipError("do not go with a base, which has its own", where="profiles")
    if profile is not None and profile != texts.get("profile", profile):
        what = f"{show(profile)} is asked for, and the file is over {show(texts['profile'])}"
        raise ChipError(what, where="profile")
    base = _built_in(_canonical(texts["base"], where="base"), texts.get("profile") or profile)
    identity = {key: texts[key] for key in ("name", "vendor") if key in texts}
    return change(base, document.entries, origin=_printable(where), identity=identity)


def _on_its_own(document: Document, where: str, profile: str | None, *, base: str = "") -> Chip:
    """Build a chip from nothing else; `base` is the built-in's own name, and asks for labels."""
    chosen, entries = document.in_profile(profile)
    for key in ("name", "vendor"):
        if key not in document.texts:
            hint = 'or start from a chip with base = "maia200"'
            raise ChipError("is missing", where=key, hint=hint)
    for path, entry in entries.items():
        if base and not (entry.source and entry.confidence):
            raise ChipError("has no source or no confidence", where=path)
    texts = document.texts
    return chip_of(
        {"name": texts["name"], "vendor": texts["vendor"], "profile": chosen, "base": base},
        {path: check(known_spec(path), path, entry.value) for path, entry in entries.items()},
        {path: entry.label(_printable(where)) for path, entry in entries.items()},
    )


def _printable(where: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in where) or "what-if"


@cache
def _documents() -> Mapping[str, Document]:
    """Parse the data files, by the name of the chip."""
    files = (resources.files("asterope.chips") / "data").iterdir()
    return {
        file.name.removesuffix(".toml"): parse(file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".toml")
    }


@cache
def _built_in(name: str, profile: str | None) -> Chip:
    return _on_its_own(_documents()[name], name, profile, base=name)


def _canonical(name: str, where: str = "chip") -> str:
    """Find the built-in chip that a name or alias means, ignoring case and punctuation."""
    by_spelling = {
        _spelling(spelling): chip
        for chip, document in _documents().items()
        for spelling in (chip, *document.aliases)
    }
    if _spelling(name) in by_spelling:
        return by_spelling[_spelling(name)]
    known = f"the chips are {', '.join(names())}"
    close = did_you_mean(_spelling(name), by_spelling)
    hint = f"{close} {known}" if close else known
    raise ChipError(f"{show(name)} is not a built-in chip", where=where, hint=hint)


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""Write a chip as TOML: every figure with its meaning, unit, source and confidence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal

from asterope.chips.chip import Chip, FigureRow, figures
from asterope.chips.figure import Value

__all__ = ["dumps_toml"]


def dumps_toml(chip: Chip) -> str:
    """Write a complete description, which loads back to an equal chip."""
    rows = list(figures(chip))
    keys = _source_keys(row.source for row in rows)
    identity = {
        "name": chip.name,
        "vendor": chip.vendor,
        "base": chip.base,
        "profile": chip.profile,
    }
    lines = [f"{key} = {_literal(text)}" for key, text in identity.items() if text]
    groups: dict[str, list[FigureRow]] = {"": []}
    for row in rows:
        groups.setdefault(row.path.rpartition(".")[0], []).append(row)
    lines += _figure_lines(groups.pop(""), keys)
    lines += ["", "[sources]", *(f"{key} = {_literal(text)}" for text, key in keys.items())]
    for group, members in groups.items():
        lines += ["", f"[{group}]"]
        lines += _figure_lines(members, keys)
    return "\n".join(lines) + "\n"


def _figure_lines(rows: Iterable[FigureRow], keys: dict[str, str]) -> Iterator[str]:
    comment = ""
    for row in rows:
        if comment != f"# {row.doc} [{row.unit}]":
            comment = f"# {row.doc} [{row.unit}]"
            yield comment
        label = f'source = "{keys[row.source]}", confidence = "{row.confidence}"'
        note = f", note = {_literal(row.note)}" if row.note else ""
        name = row.path.rpartition(".")[2]
        yield f"{name} = {{ value = {_literal(row.value)}, {label}{note} }}"


def _source_keys(sources: Iterable[str]) -> dict[str, str]:
    """Give each source a short key made of its first words."""
    keys: dict[str, str] = {}
    for source in dict.fromkeys(sources):
        words = re.findall(r"[a-z0-9]+", source.lower())[:3]
        stem = key = "_".join(words) or "source"
        while key in keys.values():
            key = f"{stem}_{len(keys)}"
        keys[source] = key
    return keys


def _literal(value: Value) -> str:
    """Write a TOML value, large and small floats with an exponent of thousands."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, float):
        return _float_literal(value)
    return json.dumps(value, ensure_ascii=False)


def _float_literal(value: float) -> str:
    if value == 0 or 1e-3 <= value < 1e6:
        return repr(value)
    exact = Decimal(repr(value))
    exponent = exact.adjusted() // 3 * 3
    return f"{exact.scaleb(-exponent).normalize():f}e{exponent}"

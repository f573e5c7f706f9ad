"""HTML out of plain values; all text is escaped here."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "data",
    "element",
    "escape",
    "figure",
    "figures",
    "key",
    "paragraph",
    "section",
    "table",
]


def escape(text: object) -> str:
    """Write a value as text of a page."""
    return html.escape(str(text))


def element(tag: str, *inner: str, **attributes: str) -> str:
    """Return an element around HTML; `class_` stands for class, `data_x` for data-x."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for name, value in attributes.items()
        if value
    )
    return f"<{tag}{named}>{''.join(inner)}</{tag}>"


def paragraph(text: str, class_: str = "") -> str:
    """Return a paragraph of text."""
    return element("p", escape(text), class_=class_)


def section(anchor: str, title: str, *inner: str) -> str:
    """Return a part of the page under its title."""
    return element("section", element("h2", escape(title)), *inner, id=anchor)


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, marked: Collection[int] = ()
) -> str:
    """Return a table of text; a column whose name starts with `>` holds numbers, with `~` prose.

    `marked` are the rows to point out, by number.
    """
    sides = [{">": "number", "~": "prose"}.get(name[:1], "") for name in head]
    top = [
        element("th", escape(name.lstrip(">~")), class_=side, scope="col")
        for name, side in zip(head, sides, strict=True)
    ]
    body = [
        element(
            "tr",
            *(element("td", escape(c), class_=s) for c, s in zip(cells, sides, strict=True)),
            class_="marked" if index in marked else "",
        )
        for index, cells in enumerate(rows)
    ]
    inner = element("thead", element("tr", *top)) + element("tbody", *body)
    return element("div", element("table", inner), class_="table")


def data(anchor: str, value: object) -> str:
    """Return a value as JSON that the page's script reads."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return element("script", text, id=anchor, type="application/json")


def figure(anchor: str, chart: Mapping[str, Any]) -> str:
    """Return the place of a chart, with its data beside it."""
    return element("div", id=anchor, class_="figure") + data(f"{anchor}-data", chart)


def figures(anchor: str, charts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return charts side by side, below each other where the screen is narrow."""
    columns = (
        element("div", element("h4", escape(title)), figure(f"{anchor}-{index}", chart))
        for index, (title, chart) in enumerate(charts.items())
    )
    return element("div", *columns, class_="charts")


def key(words: str, shape: str, colour: str) -> str:
    """Return one entry of a legend."""
    return element(
        "span", element("i", class_=shape, style=f"color: {colour}"), escape(words), class_="key"
    )

"""One HTML file that opens anywhere, offline: what is around the sections of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterope.report.markup import data, element, escape
from asterope.report.style import CSS, SCRIPT

__all__ = ["document", "tile"]

# Nothing may be fetched: the page works, and says nothing to anybody, wherever it is opened.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def document(title: str, body: str, report: Mapping[str, Any]) -> str:
    """Return a page around a body; `report` is what it shows, as data, for programs.

    Raises: ModuleNotFoundError without plotly, which the extra `torch` brings.
    """
    from plotly.offline import get_plotlyjs

    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", escape(title)),
        element("style", CSS),
        "</head><body>",
        body,
        data("report", report),
        element("script", get_plotlyjs(), id="plotly"),
        element("script", SCRIPT),
        "</body></html>\n",
    ])  # fmt: skip


def tile(name: str, value: str, more: str) -> str:
    """Return one figure of a page's top, large, with what it is."""
    return element(
        "div",
        element("div", escape(name), class_="name"),
        element("div", escape(value), class_="value"),
        element("div", escape(more), class_="more"),
        class_="tile",
    )

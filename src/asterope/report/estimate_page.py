"""The page of an estimate: a model's steps on chips, timed from shapes alone."""

from __future__ import annotations

from asterope.report.data import Estimate, plain
from asterope.report.document import document
from asterope.report.markup import element, escape, paragraph, section
from asterope.report.numbers import count, parameters
from asterope.report.sections import memory_section, speed_section

__all__ = ["estimate_page"]


def estimate_page(found: Estimate, command: str) -> str:
    """Return the page; prices are not on it.

    Raises: ModuleNotFoundError without plotly, which the extra `torch` brings.
    """
    model = found.model
    title = f"{model.name} on {found.chip.name}"
    facts = (
        f"{found.scheme}; {model.family}, {parameters(model.parameters)} parameters,"
        f" {model.num_layers} layers, hidden {count(model.hidden_size)}"
    )
    notes = element("ul", *(element("li", escape(note)) for note in found.notes))
    body = element(
        "main",
        element(
            "header",
            paragraph("Asterope, timed from shapes", "kind"),
            element("h1", escape(title)),
            paragraph(facts, "soft"),
        ),
        speed_section(found),
        memory_section(found),
        section("notes", "What to know", notes) if found.notes else "",
        section("reproduce", "How to reproduce", element("pre", escape(command))),
    )
    return document(title, body, plain(found))

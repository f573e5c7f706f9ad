"""The page of a search for a mix of formats: the picture of accuracy against speed."""

from __future__ import annotations

from collections.abc import Iterator

from asterope.report.data import plain
from asterope.report.document import document, tile
from asterope.report.markup import element, escape, figures, paragraph, section, table
from asterope.report.mix_charts import heat_figures, pareto_figures
from asterope.report.mix_data import MixReport
from asterope.report.mix_tables import MIX_COLUMNS, mix_cells
from asterope.report.numbers import amount, count, seconds, size, speed

__all__ = ["mix_page"]


def mix_page(report: MixReport, command: str) -> str:
    """Return the page.

    Raises: ModuleNotFoundError without plotly, which the extra `torch` brings.
    """
    title = f"Mixed precision of {report.model} on {report.chip}"
    by = f", calibrated on {report.calibrated_on}" if report.calibrated_on else ""
    pareto = (
        f"Each model was quantized by {report.algorithm}{by}, scored on {report.text}, and its"
        f" decode step of {report.batch} x {count(report.context)} tokens simulated"
        f" ({report.fidelity}). Mixes are those of least predicted KL for their time, or their"
        " bytes; the prediction adds up what places lose alone, and is shown beside what was"
        " measured."
    )
    heat = (
        "KL divergence from the original, in nats a token, with one place of one layer quantized"
        " and the rest as it was."
    )
    notes = element("ul", *(element("li", escape(note)) for note in report.notes))
    body = element(
        "main",
        element(
            "header",
            paragraph("Asterope, mixed precision", "kind"),
            element("h1", escape(title)),
            element("div", *_tiles(report), class_="tiles"),
        ),
        section(
            "pareto", "Accuracy against speed and memory", paragraph(pareto, "soft"),
            figures("pareto-chart", pareto_figures(report.mixes)),
            table(MIX_COLUMNS, [mix_cells(row) for row in report.mixes]),
        ),
        section(
            "places", "Where it is lost", paragraph(heat, "soft"),
            figures("heat-chart", heat_figures(report)),
        ),
        section("notes", "What to know", notes) if report.notes else "",
        section("reproduce", "How to reproduce", element("pre", escape(command))),
    )  # fmt: skip
    return document(title, body, plain(report))


def _tiles(report: MixReport) -> Iterator[str]:
    original, *others = report.mixes
    yield tile("Original", f"{speed(original.tokens_per_s)} tokens/s",
               f"{seconds(original.time_s)} a step, {size(original.weight_bytes)},"
               f" perplexity {amount(original.perplexity, 4)}")  # fmt: skip
    if others:
        fastest = max(others, key=lambda row: row.tokens_per_s)
        yield tile("Fastest", f"{speed(fastest.tokens_per_s)} tokens/s",
                   f"{fastest.name}, KL {amount(fastest.kl, 3)}")  # fmt: skip
        nearest = min(others, key=lambda row: row.kl)
        yield tile("Nearest to the original", f"KL {amount(nearest.kl, 3)}",
                   f"{nearest.name}, {speed(nearest.tokens_per_s)} tokens/s")  # fmt: skip

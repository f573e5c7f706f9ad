"""The page of a run: its sections, in order."""

from __future__ import annotations

from collections.abc import Iterator

from asterope.report import charts
from asterope.report.data import Assumption, RunReport
from asterope.report.document import document, tile
from asterope.report.markup import element, escape, figures, paragraph, section, table
from asterope.report.numbers import (
    amount,
    bits,
    count,
    figure_value,
    parameters,
    percent,
    ratio_change,
    seconds,
    size,
    speed,
    usd,
)
from asterope.report.sections import cost_section, memory_section, memory_share, speed_section
from asterope.report.terminal import short_scheme
from asterope.report.verdict import chosen_row, original_row, report_dict, verdict

__all__ = ["html_page"]


def html_page(report: RunReport) -> str:
    """Return the page.

    Raises: ModuleNotFoundError without plotly, which the extra `torch` brings.
    """
    found = report.estimate
    body = element(
        "main",
        _header(report),
        _accuracy(report),
        speed_section(found),
        cost_section(found),
        memory_section(found),
        _assumptions(report),
        _reproduce(report),
    )
    return document(_title(report), body, report_dict(report))


def _title(report: RunReport) -> str:
    found = report.estimate
    return f"{found.model.name} in {chosen_row(report).format} on {found.chip.name}"


def _header(report: RunReport) -> str:
    model = report.estimate.model
    facts = (
        f"{model.family}, {parameters(model.parameters)} parameters, {model.num_layers} layers,"
        f" hidden {count(model.hidden_size)}, {model.num_heads} query and"
        f" {model.num_kv_heads} key-value heads, vocabulary {count(model.vocab_size)},"
        f" computed in {model.dtype}"
    )
    return element(
        "header",
        paragraph(f"Asterope run of {_moment(report.created)}", "kind"),
        element("h1", escape(_title(report))),
        paragraph(verdict(report), "verdict"),
        element("div", *_tiles(report), class_="tiles"),
        paragraph(facts, "soft"),
    )


def _moment(created: str) -> str:
    """Write a time to the minute."""
    return f"{created[:16].replace('T', ' ')} UTC"


def _tiles(report: RunReport) -> Iterator[str]:
    row, original = chosen_row(report), original_row(report)
    change = ratio_change(row.perplexity_ratio)
    yield tile(
        "Perplexity", change, f"{amount(original.perplexity, 4)} to {amount(row.perplexity, 4)}"
    )
    yield tile(
        "Bits a weight", bits(row.bits_per_weight),
        f"{size(original.weight_bytes)} of weights to {size(row.weight_bytes)}",
    )  # fmt: skip
    found = report.estimate
    for step in found.finest_steps():
        what = f"{speed(step.tokens_per_s)} tokens/s, {step.batch} x {count(step.context)}"
        yield tile(f"{step.phase.capitalize()} step", seconds(step.time_s), what)
    decode = found.finest("decode")
    cost = found.cost(decode) if decode else None
    if cost is not None:
        assumed = ", assumed" if cost.price_is_assumed else ""
        more = f"a million output tokens, {usd(cost.usd_per_chip_hour)} a chip-hour{assumed}"
        yield tile("Cost", usd(cost.usd_per_mtok), more)
    fit = found.memory[0]
    taken = size(fit.weight_bytes + fit.kv_bytes)
    yield tile("Memory", taken, f"{memory_share(fit)} of {size(fit.capacity_bytes)} on {fit.chip}")


def _accuracy(report: RunReport) -> str:
    rows = report.accuracy.rows
    cells = [
        (
            row.format, short_scheme(row.scheme), bits(row.bits_per_weight), size(row.weight_bytes),
            amount(row.perplexity, 4), f"{row.perplexity_ratio:.4f}", amount(row.kl, 3),
            percent(row.top1_agreement),
        )
        for row in rows
    ]  # fmt: skip
    head = ("format", "weights/activations", ">bits a weight", ">weights in memory", ">perplexity",
            ">ratio to original", ">KL [nats a token]", ">same top token")  # fmt: skip
    marked = [i for i, row in enumerate(rows) if row.is_chosen]
    chart = figures("accuracy-chart", charts.accuracy_figures(rows)) if len(rows) > 1 else ""
    about = (
        f"Scored on {report.accuracy.text}, in windows of {count(report.accuracy.context)} tokens"
        " that overlap by half. Round to nearest, no calibration; every product, norm, rotation and"
        " attention ran through the compiled kernels that are timed below."
    )
    return section(
        "accuracy", "Accuracy against format",
        paragraph(about, "soft"), chart, table(head, cells, marked=marked), _sample(report),
    )  # fmt: skip


def _sample(report: RunReport) -> str:
    sample = report.sample
    if sample is None:
        return ""
    prompt = element("span", escape(sample.prompt), class_="prompt")

    def column(name: str, text: str, tokens_per_s: float) -> str:
        title = f"{name}, {speed(tokens_per_s)} tokens/s on this CPU"
        return element("div", element("h3", escape(title)), element("pre", prompt, escape(text)))

    return element(
        "div",
        column("Original", sample.original, sample.original_tokens_per_s),
        column(chosen_row(report).format, sample.quantized, sample.quantized_tokens_per_s),
        class_="samples",
    )


def _assumptions(report: RunReport) -> str:
    head = ("of", "figure", ">value", "unit", "confidence", "~source and remarks")
    said = (*report.estimate.notes, *report.notes)
    notes = element("ul", *(element("li", escape(note)) for note in said))
    prices = [_assumption(a) for a in report.estimate.assumptions if a.kind == "cost"]
    figures = [_assumption(a) for a in report.estimate.assumptions if a.kind == "chip"]
    return section(
        "assumptions", "What this rests on",
        *((notes,) if said else ()),
        element("h3", "Prices, power and hours"), table(head, prices),
        element(
            "details",
            element("summary", escape(f"{len(figures)} figures of the chips that are not public")),
            table(head, figures),
        ),
    )  # fmt: skip


def _assumption(a: Assumption) -> tuple[str, ...]:
    source = f"{a.source}. {a.note}" if a.note else a.source
    return a.subject, a.name, figure_value(a.value), a.unit, a.confidence, source


def _reproduce(report: RunReport) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return section(
        "reproduce", "How to reproduce",
        element("pre", escape(report.command or "asterope.run(asterope.RunOptions(...))")),
        paragraph(versions, "soft"),
        paragraph(
            "The figures of this page lie in report.json beside it, and inside it as the element"
            " with the id report.", "soft",
        ),
    )  # fmt: skip

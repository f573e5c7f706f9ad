"""Tables of a search for a mix of formats, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from asterope.report.mix_data import MixReport, MixRow, PlaceRow
from asterope.report.numbers import amount, percent, ratio_change, seconds, size, speed, usd
from asterope.report.terminal import new_table, short_scheme

__all__ = ["MIX_COLUMNS", "by_format", "mix_cells", "mix_tables", "mix_words", "place_names"]

MIX_COLUMNS = (
    "model", "formats", ">perplexity", ">KL, nats", ">predicted", ">same top token", ">weights",
    ">step", ">tokens/s", ">$/M tokens",
)  # fmt: skip


def mix_tables(report: MixReport) -> Iterator[Table]:
    """Yield a table of places for each format, and that of the models that were measured."""
    places = place_names(report)
    for name, rows in by_format(report).items():
        table = new_table(f"{name} in one place: KL, nats", "layer",
                          *(f">{place}" for place in places))  # fmt: skip
        kl = {(row.layer, row.place): row.kl for row in rows}
        for layer in range(report.num_layers):
            cells = (kl.get((layer, place)) for place in places)
            table.add_row(str(layer), *("" if x is None else amount(x, 3) for x in cells))
        first = {row.place: row for row in rows if row.layer == 0}
        saved = [first.get(place) for place in places]
        table.add_row("saves", *(size(x.bytes_saved) if x else "" for x in saved), style="dim")
        table.add_row("", *(_saved_time(x) if x else "" for x in saved), style="dim")
        yield table
    load = f"{report.batch} x {report.context:,} tokens on {report.chip}, {report.fidelity}"
    table = new_table(f"Measured and simulated (a decode step, {load})", *MIX_COLUMNS)
    for row in report.mixes:
        table.add_row(*mix_cells(row))
    yield table


def place_names(report: MixReport) -> list[str]:
    """Return the places of a layer, in their order."""
    return list(dict.fromkeys(row.place for row in report.places))


def by_format(report: MixReport) -> dict[str, list[PlaceRow]]:
    """Return the places of each format."""
    found: dict[str, list[PlaceRow]] = {}
    for row in report.places:
        found.setdefault(row.format, []).append(row)
    return found


def mix_cells(row: MixRow) -> tuple[str, ...]:
    """Return a measured model as text, in the order of `MIX_COLUMNS`."""
    changed = row.kind != "original"
    return (
        row.name, short_scheme(row.scheme),
        ratio_change(row.perplexity_ratio) if changed else amount(row.perplexity, 4),
        amount(row.kl, 3) if changed else "", amount(row.predicted_kl, 3) if changed else "",
        percent(row.top1_agreement) if changed else "", size(row.weight_bytes),
        seconds(row.time_s), speed(row.tokens_per_s),
        "" if row.usd_per_mtok is None else usd(row.usd_per_mtok),
    )  # fmt: skip


def mix_words(row: MixRow) -> str:
    """Return what was measured of a model, in words."""
    return (
        f"perplexity {ratio_change(row.perplexity_ratio)}, KL {amount(row.kl, 3)} (predicted"
        f" {amount(row.predicted_kl, 3)}), {size(row.weight_bytes)} of weights, a step of"
        f" {seconds(row.time_s)}, {speed(row.tokens_per_s)} tokens/s"
    )


def _saved_time(row: PlaceRow) -> str:
    sign = "-" if row.time_saved_s < 0 else ""
    return f"{sign}{seconds(abs(row.time_saved_s))}" if row.time_saved_s else "0 s"

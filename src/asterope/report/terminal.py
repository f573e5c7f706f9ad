"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from asterope.report.data import (
    AccuracyRow,
    Assumption,
    BreakEven,
    CostRow,
    Estimate,
    MemoryFit,
    RunReport,
    Sample,
    Step,
)
from asterope.report.numbers import (
    amount,
    bits,
    count,
    energy_per_mtok,
    energy_per_token,
    figure_value,
    percent,
    ratio_change,
    seconds,
    size,
    speed,
    usd,
)
from asterope.report.verdict import verdict

__all__ = [
    "accuracy_table",
    "assumption_table",
    "break_even_rows",
    "break_even_table",
    "cost_table",
    "estimate_tables",
    "kernel_table",
    "memory_lines",
    "new_table",
    "notes_text",
    "price_basis",
    "run_tables",
    "step_table",
]

_TOP_KERNELS = 8


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table; a column whose name starts with `>` holds numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="dim",
                  box=None, pad_edge=False, padding=(0, 2, 0, 0))  # fmt: skip
    for name in columns:
        is_number = name.startswith(">")
        table.add_column(
            name.removeprefix(">"),
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="ellipsis" if is_number else "fold",
        )
    return table


def accuracy_table(rows: Sequence[AccuracyRow]) -> Table:
    """Return formats against what they lose."""
    table = new_table(
        "Accuracy", "format", ">bits/weight", ">weights", ">perplexity", ">change",
        ">KL [nats]", ">same top token",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.format, bits(row.bits_per_weight), size(row.weight_bytes),
            amount(row.perplexity, 4),
            "" if row.is_original else ratio_change(row.perplexity_ratio),
            "" if row.is_original else amount(row.kl, 3),
            "" if row.is_original else percent(row.top1_agreement),
            style="bold" if row.is_chosen else "",
        )  # fmt: skip
    return table


def step_table(steps: Sequence[Step]) -> Table:
    """Return steps with their time, speed, energy, and what bound them."""
    loads = dict.fromkeys(f"{s.phase} {s.batch} x {s.context:,} tokens" for s in steps)
    if steps and steps[0].num_chips > 1:
        loads[f"{steps[0].num_chips} chips share it"] = None
    table = new_table(
        f"Step time ({'; '.join(loads)})", "phase", "chip", "timed by", "scheme", ">time",
        ">tokens/s", ">energy/token", "bound by", ">of peak", ">of HBM",
    )  # fmt: skip
    for step in steps:
        table.add_row(
            step.phase, step.chip, step.fidelity, short_scheme(step.scheme),
            seconds(step.time_s), speed(step.tokens_per_s), energy_per_token(step.joules_per_token),
            step.bound_by, percent(step.peak_share, 0), percent(step.bandwidth_share, 0),
        )  # fmt: skip
    return table


def short_scheme(scheme: str) -> str:
    """Write a scheme in words as `weights/activations`."""
    return scheme.replace(" weights, ", "/").replace(" activations", "")


def kernel_table(step: Step) -> Table:
    """Return where the time of a step goes."""
    title = f"Where a {step.phase} step goes ({step.place}, {step.fidelity})"
    table = new_table(title, "kernel", ">launches", ">time", ">share", "bound by")
    for group in step.groups[:_TOP_KERNELS]:
        share = group.time_s / step.time_s if step.time_s else 0.0
        bound = next(iter(group.bound_s), "")
        table.add_row(
            group.label, count(group.launches), seconds(group.time_s), percent(share), bound
        )
    rest = step.groups[_TOP_KERNELS:]
    if rest:
        took = sum(group.time_s for group in rest)
        launches = sum(group.launches for group in rest)
        table.add_row("others", count(launches), seconds(took), percent(took / step.time_s), "")
    return table


def cost_table(costs: Sequence[CostRow]) -> Table:
    """Return what a million tokens cost."""
    table = new_table(
        "Cost of a million tokens", "phase", "chip", "timed by", "scheme", ">USD",
        ">electricity", ">energy", ">chip-hour", "price basis",
    )  # fmt: skip
    for row in costs:
        table.add_row(
            row.phase, row.chip, row.fidelity, short_scheme(row.scheme),
            usd(row.usd_per_mtok), usd(row.electricity_usd_per_mtok),
            energy_per_mtok(row.joules_per_token), usd(row.usd_per_chip_hour), price_basis(row),
        )  # fmt: skip
    return table


def price_basis(row: CostRow) -> str:
    """Say what a price pays for, with the word *assumed* where nobody has published it."""
    return f"{row.price_basis}, assumed" if row.price_is_assumed else row.price_basis


def break_even_rows(ties: Sequence[BreakEven]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and rows of a table: the price per chip-hour at which the chip ties with others.

    A star marks prices of different bases.
    """
    others = list(dict.fromkeys((t.other, t.other_fidelity) for t in ties))
    own = list(dict.fromkeys((t.phase, t.chip, t.fidelity) for t in ties))
    prices = {
        (t.phase, t.chip, t.fidelity, t.other, t.other_fidelity): (
            "never" if t.usd_per_chip_hour is None else usd(t.usd_per_chip_hour)
        )
        + ("" if t.same_basis else " *")
        for t in ties
    }
    head = ("phase", "chip", "timed by", *(f">as {name}, {how}" for name, how in others))
    return head, [(*key, *(prices.get((*key, *other), "") for other in others)) for key in own]


def break_even_table(ties: Sequence[BreakEven]) -> Table:
    """Return at which price the chip ties with others."""
    head, rows = break_even_rows(ties)
    table = new_table("Break-even price of a chip-hour", *head)
    for row in rows:
        table.add_row(*row)
    return table


def memory_lines(memory: Sequence[MemoryFit]) -> Iterator[str]:
    """Say what fits where."""
    for fit in memory:
        total = fit.weight_bytes + fit.kv_bytes
        yield (
            f"{fit.chip}: {fit.verb}: {size(fit.weight_bytes)} of weights"
            f" + {size(fit.kv_bytes)} of KV cache ({fit.batch} x {fit.context:,} tokens)"
            f" = {percent(total / fit.capacity_bytes)} of {size(fit.capacity_bytes)}"
        )


def estimate_tables(found: Estimate) -> Iterator[RenderableType]:
    """Yield times, where they go, costs if there are any, and memory."""
    yield step_table(found.steps)
    for step in found.finest_steps():
        yield kernel_table(step)
    if found.costs:
        yield cost_table(found.costs)
    if found.break_even:
        yield break_even_table(found.break_even)
    yield Text.assemble(("Memory\n", "bold"), "\n".join(memory_lines(found.memory)))


def assumption_table(rows: Sequence[Assumption]) -> Table:
    """Return what figures rest on, with source and confidence."""
    table = new_table(
        "What it rests on", "of", "figure", ">value", "unit", "confidence", "source and remarks"
    )
    for row in rows:
        table.add_row(
            row.subject, row.name, figure_value(row.value), row.unit, row.confidence,
            f"{row.source}. {row.note}" if row.note else row.source,
        )  # fmt: skip
    return table


def notes_text(notes: Sequence[str]) -> Iterator[RenderableType]:
    """Yield what a reader must know to read the figures right."""
    if notes:
        yield Text("\n".join(f"note: {note}" for note in notes), style="dim")


def run_tables(report: RunReport) -> Iterator[RenderableType]:
    """Yield a run from top to bottom."""
    yield Text(verdict(report), style="bold")
    yield accuracy_table(report.accuracy.rows)
    yield Text(f"on {report.accuracy.text}", style="dim")
    if report.sample is not None:
        yield _sample_text(report.sample)
    yield from estimate_tables(report.estimate)
    yield from notes_text((*report.estimate.notes, *report.notes))


def _sample_text(sample: Sample) -> RenderableType:
    speeds = (
        f"{speed(sample.original_tokens_per_s)} tokens/s, quantized"
        f" {speed(sample.quantized_tokens_per_s)} tokens/s"
    )
    return Text.assemble(
        ("Sample", "bold"), f" ({sample.sampling}; on this CPU: original {speeds})\n",
        (sample.prompt, "dim"), (sample.quantized, "green"),
    )  # fmt: skip

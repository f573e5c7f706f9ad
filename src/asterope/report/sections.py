"""The sections of the page about chips: time of a step, comparison and cost, memory."""

from __future__ import annotations

from asterope.report import charts
from asterope.report.data import Estimate, MemoryFit, Step
from asterope.report.markup import element, escape, figures, key, paragraph, section, table
from asterope.report.numbers import (
    amount,
    count,
    energy_per_mtok,
    energy_per_token,
    percent,
    seconds,
    size,
    speed,
    usd,
)
from asterope.report.pictures import bound_words, under_the_roofs, where_it_goes
from asterope.report.terminal import break_even_rows, price_basis, short_scheme

__all__ = ["cost_section", "memory_section", "memory_share", "speed_section"]


def speed_section(found: Estimate) -> str:
    """Show each step's time, where it goes, and its launches under the roofline."""
    chosen = found.finest_steps()
    charted = [
        where_it_goes(
            step,
            f"Where a {step.phase} step goes: {_workload(step)} on {step.chip}, {step.fidelity}",
            step.phase,
        )
        for step in chosen
    ]
    about = (
        "A decode step makes one token for each sequence of its batch; a prefill reads prompts of"
        " the given context. Timed by tile, every macro-instruction is played on a model of the"
        " chip's inside; operators are closed forms, calibrated on measured GPUs; the roofline is"
        " the least time that the maker's peaks allow. Energy is the chip's alone; but for the tile"
        " it is that of the TDP."
    )
    roofline = (
        f"Launches of the tensor engines on {found.chip.name}, by place in the model; the size of"
        " a mark is its share of the step. Norms, rotations and activations do no tensor work and"
        " are not shown. The launch overhead is within their time."
    )
    return section(
        "speed", "Time of a step",
        paragraph(about, "soft"), _steps_table(found), *charted, bound_words(),
        under_the_roofs(found.chip, chosen, roofline),
    )  # fmt: skip


def _workload(step: Step) -> str:
    unit = "sequences" if step.phase == "decode" else "prompts"
    unit = unit.removesuffix("s") if step.batch == 1 else unit
    where = f" on {step.num_chips} chips" if step.num_chips > 1 else ""
    return f"{step.batch} {unit} of {count(step.context)} tokens{where}"


def _steps_table(found: Estimate) -> str:
    head = ("phase", "chip", "timed by", "scheme", ">batch", ">context", ">time", ">tokens/s",
            ">energy a token", "bound by", ">of peak", ">of HBM")  # fmt: skip
    cells = [
        (
            s.phase, s.chip, s.fidelity, short_scheme(s.scheme), count(s.batch), count(s.context),
            seconds(s.time_s), speed(s.tokens_per_s),
            energy_per_token(s.joules_per_token), s.bound_by,
            percent(s.peak_share), percent(s.bandwidth_share),
        )
        for s in found.steps
    ]  # fmt: skip
    finest = found.finest_steps()
    return table(head, cells, marked=[i for i, s in enumerate(found.steps) if s in finest])


def cost_section(found: Estimate) -> str:
    """Set speed, energy and dollars beside those of other chips."""
    head = ("phase", "chip", "timed by", "scheme", ">USD a Mtok", ">of it electricity",
            ">energy a Mtok", ">USD a chip-hour", "price basis")  # fmt: skip
    cells = [
        (
            c.phase, c.chip, c.fidelity, short_scheme(c.scheme), usd(c.usd_per_mtok),
            usd(c.electricity_usd_per_mtok), energy_per_mtok(c.joules_per_token),
            usd(c.usd_per_chip_hour), price_basis(c),
        )
        for c in found.costs
    ]  # fmt: skip
    finest = [found.cost(step) for step in found.finest_steps()]
    utilisation = found.costs[0].utilisation if found.costs else 1.0
    others = " and ".join(chip.name for chip in found.chips[1:])
    against = f" against {others}" if others else ""
    about = (
        f"Dollars a million tokens (Mtok) at these speeds, with {percent(utilisation, 0)}"
        f" of the paid hours serving. Hatched bars: nobody has published the price."
        " Energy is the site's: chip, host, network and facility; but for the tile it rests on the"
        " chip's TDP, an upper bound."
    )
    compared = [
        element("h3", escape(f"{tokens} tokens: {_workload(step)}"))
        + figures(f"{step.phase}-cost", charts.comparison_figures(found, step.phase))
        for step, tokens in zip(found.finest_steps(), ("Output", "Input"), strict=False)
    ]
    return section(
        "cost", f"Speed, energy and dollars{against}",
        paragraph(about, "soft"), *compared,
        table(head, cells, marked=[i for i, c in enumerate(found.costs) if c in finest]),
        _break_even(found),
    )  # fmt: skip


def _break_even(found: Estimate) -> str:
    if not found.break_even:
        return ""
    head, rows = break_even_rows(found.break_even)
    about = (
        f"The price of a chip-hour of {found.chip.name} at which a million tokens cost the same as"
        " on the other chip. Roofline beside roofline compares like with like; the finest row sets"
        " what this chip's kernels reach against the finest time of the other."
    )
    star = "* The two prices are of different bases." if "*" in str(rows) else ""
    return (
        element("h3", "Break-even price of a chip-hour")
        + paragraph(about, "soft")
        + table(head, rows)
        + (paragraph(star, "soft") if star else "")
    )


def memory_section(found: Estimate) -> str:
    """Show what fits where."""
    rows = []
    for fit in found.memory:
        parts = [
            element(
                "div",
                class_=name,
                style=f"width: {min(100.0, 100 * taken / fit.capacity_bytes):.3f}%",
            )
            for name, taken in (("weights", fit.weight_bytes), ("kv", fit.kv_bytes))
        ]
        verdict_class = "fits" if fit.fits else "bursts"
        words = (
            f": {size(fit.weight_bytes)} of weights and {size(fit.kv_bytes)} of KV cache,"
            f" {memory_share(fit)} of {size(fit.capacity_bytes)}"
        )
        rows += [
            element("div", escape(fit.chip), class_="chip"),
            element("div", *parts, class_="bar"),
            element("div", element("span", escape(fit.verb), class_=verdict_class), escape(words)),
        ]  # fmt: skip
    first = found.memory[0]
    about = (
        f"Weights, and a KV cache for {first.batch} sequences of {count(first.context)} tokens;"
        " nothing is set aside for activations."
    )
    keys = key("weights", "block", "var(--weights)") + key("KV cache", "block", "var(--kv)")
    return section(
        "memory",
        "Memory",
        paragraph(about, "soft"),
        element("div", keys, class_="keys"),
        element("div", *rows, class_="fit"),
    )


def memory_share(fit: MemoryFit) -> str:
    """Write how much of a chip's memory is taken."""
    return f"{amount(100 * (fit.weight_bytes + fit.kv_bytes) / fit.capacity_bytes, 2)} %"

"""Numbers, the verdict and the tables of the terminal."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
from rich.console import Console

from asterope.report import notes_text, plain, report_dict, run_tables, verdict
from asterope.report.numbers import (
    amount,
    energy_per_mtok,
    energy_per_token,
    figure_value,
    parameters,
    percent,
    ratio_change,
    size,
    speed,
    usd,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (amount(0.000123456), "0.000123"),
        (amount(1234567.0), "1,234,567"),
        (amount(0), "0"),
        (amount(math.inf), "inf"),
        (usd(1.234), "$1.23"),
        (usd(0.00657), "$0.00657"),
        (usd(0.0000181), "18.1 µ$"),
        (usd(0), "$0"),
        (size(40.6e9), "40.6 GB"),
        (size(999), "999 B"),
        (parameters(70.6e9), "70.6 B"),
        (parameters(5.77e6), "5.77 M"),
        (percent(0.1234), "12.3 %"),
        (ratio_change(1.0053), "+0.53 %"),
        (ratio_change(0.9), "-10.00 %"),
        (speed(12.34), "12.3"),
        (speed(137326), "137,326"),
        (energy_per_mtok(0.36), "100 Wh"),
        (energy_per_token(0.0011), "1.1 mJ"),
        (energy_per_token(None), ""),
        (figure_value(True), "yes"),
        (figure_value(2e9), "2e+09"),
        (figure_value("TSMC 3 nm"), "TSMC 3 nm"),
    ],
)
def test_numbers_are_written_as_people_read_them(written, expected):
    assert written == expected


def test_verdict_says_loss_speed_cost_and_the_like_with_like(report):
    assert verdict(report) == (
        "mxfp4 changes the perplexity of tiny <b>llama</b> by +2.50 % (KL 0.031 nats a token) at"
        " 4.25 instead of 16.00 bits a weight. On maia200:bench a decode step of 32 sequences takes"
        " 7 ms: 4,568 tokens/s, bound by hbm; at an assumed price of $1.95 per chip-hour, a million"
        " output tokens cost $0.611. At the roofline of each chip they cost $0.811 on"
        " maia200:bench, $0.911 on h200 and $1.01 on b200."
    )


def test_verdict_on_random_tokens_says_nothing_of_perplexity(report):
    random = dataclasses.replace(report.accuracy, is_random=True)
    words = verdict(dataclasses.replace(report, accuracy=random))
    assert "perplexity" not in words
    assert "3.1 % of random places" in words


def test_verdict_without_prices_names_none(report):
    estimate = dataclasses.replace(report.estimate, costs=())
    words = verdict(dataclasses.replace(report, estimate=estimate))
    assert "$" not in words
    assert words.endswith("bound by hbm.")


def test_verdict_with_one_fidelity_compares_nothing(report):
    estimate = dataclasses.replace(
        report.estimate, costs=tuple(c for c in report.estimate.costs if c.fidelity == "tile")
    )
    assert "roofline" not in verdict(dataclasses.replace(report, estimate=estimate))


def shown(renderables):
    text = io.StringIO()
    console = Console(file=text, width=200)
    for renderable in renderables:
        console.print(renderable)
    return text.getvalue()


def test_tables_show_what_the_report_holds(report):
    words = shown(run_tables(report))
    for part in (
        "+2.50 %", "0.0310", "96.9 %", "7 ms", "4,568", "46.9 mJ", "$0.611", "100 Wh", "never *",
        "down · scaled_linear", "57.1 %", "needs 2 chips", "note: A note about chips.",
        "note: A note about accuracy.", "if a < b: return <b>",
    ):  # fmt: skip
        assert part in words, part


def test_many_kernels_are_summed_up_as_others(report):
    step = report.estimate.finest("decode")
    many = tuple(
        dataclasses.replace(step.groups[0], kernel=f"kernel_{n}", time_s=step.time_s / 16)
        for n in range(16)
    )
    changed = dataclasses.replace(step, groups=many)
    estimate = dataclasses.replace(report.estimate, steps=(changed,))
    words = shown(run_tables(dataclasses.replace(report, estimate=estimate)))
    rest = next(line for line in words.splitlines() if line.startswith("others"))
    assert rest.split()[1:] == ["16", "3.5", "ms", "50.0", "%"]


def test_no_notes_show_nothing():
    assert shown(notes_text(())) == ""


def test_plain_has_no_number_that_json_cannot_write(report):
    rows = (dataclasses.replace(report.accuracy.rows[0], perplexity=math.inf, kl=math.nan),)
    found = plain(dataclasses.replace(report.accuracy, rows=rows))
    assert (found["rows"][0]["perplexity"], found["rows"][0]["kl"]) == (None, None)


def test_report_dict_opens_with_the_verdict(report):
    found = report_dict(report)
    assert next(iter(found)) == "verdict"
    assert set(found) == {"verdict"} | {f.name for f in dataclasses.fields(report)}

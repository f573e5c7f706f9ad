"""The page: it asks nobody for anything, holds what report.json holds, and says it in words."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from asterope.report import Estimate, RunReport, html_page, report_dict, verdict


class Reader(HTMLParser):
    """Collect tables, embedded data, visible words, and every attribute."""

    def __init__(self):
        super().__init__()
        self.attributes, self.data, self.rows, self.words = [], {}, [], []
        self.ids, self.inside, self.script = [], "", ""

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [named["id"]] if "id" in named else []
        self.inside = tag
        self.script = named.get("id", "") if tag == "script" else ""
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.data[self.script] = self.data.get(self.script, "") + data
        elif self.inside != "style":
            self.words.append(data)
            if self.inside in {"td", "th"}:
                self.rows[-1][-1] += data


@pytest.fixture
def page(report):
    """The page as a browser reads it."""
    reader = Reader()
    reader.feed(html_page(report))
    return reader


def test_page_loads_nothing(page, report):
    assert not [a for a in page.attributes if a[1] in {"src", "href", "srcset", "action"}]
    ours = html_page(report)
    style = re.search(r"<style>(.*?)</style>", ours, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    policy = next(value for _, name, value in page.attributes if name == "content")
    assert policy.startswith("default-src 'none'")
    assert "connect-src" not in policy


def test_page_holds_what_report_json_holds(page, report):
    assert json.loads(page.data["report"]) == report_dict(report)
    assert json.loads(json.dumps(report_dict(report))) == report_dict(report)


def test_verdict_comes_before_everything_else(page, report):
    words = "".join(page.words)
    assert words.index(verdict(report)) < words.index("Accuracy against format")


def test_every_chart_has_its_place_and_its_data(page):
    places = [name for name in page.ids if f"{name}-data" in page.data]
    in_steps, under_roofs = 2 * (1 + 2 + 1), 1 + 2
    assert len(places) == 2 + in_steps + under_roofs + 6
    for name in places:
        figure = json.loads(page.data[f"{name}-data"])
        assert figure["data"]
        assert figure["layout"]["height"] > 60


def test_charts_draw_the_numbers_of_the_report(page, report):
    def bars(name):
        return json.loads(page.data[f"{name}-data"])["data"][0]

    decode = [row for row in report.estimate.costs if row.phase == "decode"]
    assert bars("decode-cost-0")["x"] == [row.tokens_per_s for row in decode]
    assert bars("decode-cost-1")["x"] == [row.joules_per_token for row in decode]
    assert bars("decode-cost-2")["x"] == [row.usd_per_mtok for row in decode]
    hatched = [bool(shape) for shape in bars("decode-cost-2")["marker"]["pattern"]["shape"]]
    assert hatched == [row.price_is_assumed for row in decode]
    assert bars("accuracy-chart-0")["x"] == [pytest.approx(-0.005), pytest.approx(0.025)]
    assert bars("accuracy-chart-1")["x"] == [0.028, 0.031]


def test_time_chart_adds_up_to_the_step(page, report):
    step = report.estimate.finest("decode")
    traces = json.loads(page.data["decode-chart-data"])["data"]
    drawn_ms = sum(sum(trace["x"]) for trace in traces if trace["type"] == "bar")
    assert drawn_ms == pytest.approx(1e3 * step.time_s)


def test_roofline_marks_lie_where_launches_do(page, report):
    traces = json.loads(page.data["roofline-chart-data"])["data"]
    marks = next(t for t in traces if t.get("name") == "decode, tile")
    groups = [g for g in report.estimate.finest("decode").groups if g.flop]
    assert marks["x"] == [g.total_flop / g.hbm_bytes for g in groups]
    assert marks["y"] == [g.total_flop / g.time_s for g in groups]


def test_tables_show_every_row(page, report):
    def rows(first, width):
        return [row for row in page.rows if row[0] == first and len(row) == width]

    assert len(rows("decode", 12)) == len(rows("prefill", 12)) == 5
    assert rows("decode", 12)[0][6:10] == ["7 ms", "4,568", "46.9 mJ", "hbm"]
    assert rows("decode", 9)[0][4:8] == ["$0.611", "$0.0123", "100 Wh", "$1.95"]
    assert rows("mxfp4", 8)[0][2:] == ["4.25", "4.25 MB", "20.50", "1.0250", "0.0310", "96.9 %"]
    assert rows("decode", 5)[0][3:] == ["$1.92", "never *"]
    assert rows("all chips", 6)[0] == [
        "all chips", "pue", "1.12", "W/W", "secondary", "A source. A remark",
    ]  # fmt: skip


def test_text_of_users_is_text(page, report):
    assert "tiny <b>llama</b>" in "".join(page.words)
    assert "<b>" not in html_page(report)
    assert " return <b>" in "".join(page.words)


def test_page_says_what_does_not_fit(page):
    words = "".join(page.words)
    assert "needs 2 chips: 40 GB of weights and 186 GB of KV cache, 150 % of 151 GB" in words


def test_page_says_how_to_reproduce_it(page, report):
    words = "".join(page.words)
    assert report.command in words
    assert "torch 2.13.0" in words
    assert "2026-01-02 03:04 UTC" in words


def without(report: RunReport, **changes) -> RunReport:
    estimate: Estimate = dataclasses.replace(report.estimate, **changes)
    return dataclasses.replace(report, estimate=estimate)


@pytest.mark.parametrize(
    "changes",
    [
        {"break_even": ()},
        {"steps": (), "costs": (), "break_even": ()},
        {"assumptions": (), "notes": ()},
    ],
    ids=["no comparison", "no steps", "nothing assumed"],
)
def test_a_report_with_less_in_it_is_a_page_too(report, changes):
    smaller = dataclasses.replace(without(report, **changes), sample=None, notes=())
    assert "</html>" in html_page(smaller)


def test_a_run_that_quantizes_nothing_is_a_page_too(report):
    rows = dataclasses.replace(report.accuracy, rows=report.accuracy.rows[:1])
    page = html_page(dataclasses.replace(report, accuracy=rows))
    assert "as it is" in page
    assert "accuracy-chart" not in page.split('id="report"')[0]

"""The pictures of mixed precision: what is drawn is what was measured."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console
from test_report_page import Reader

from asterope.report import MixReport, MixRow, PlaceRow, mix_page, mix_tables, plain
from asterope.report.mix_charts import heat_figures, pareto_figures

PLACES = ("qkv", "down")


def row(name, kind, ratio, tokens_per_s, kl, **more):
    return MixRow(
        name=name, kind=kind, scheme=f"{name} weights, bf16 activations", predicted_kl=1.25 * kl,
        layers=((name, "bf16"),) * 2,
        kl=kl, perplexity=20 * ratio, perplexity_ratio=ratio, top1_agreement=1 - kl,
        weight_bytes=int(1e12 / tokens_per_s), time_s=32 / tokens_per_s,
        tokens_per_s=tokens_per_s, usd_per_mtok=400 / tokens_per_s, **more,
    )  # fmt: skip


@pytest.fixture
def report():
    """A search over two layers, two places and two formats; one place has one format only."""
    places = [
        PlaceRow(layer=layer, place=place, format=name, kl=0.001 * (1 + layer) * scale,
                 perplexity_ratio=1.01, time_saved_s=1e-6 * scale, bytes_saved=1000)
        for layer in (0, 1) for place in PLACES for name, scale in (("mxfp4", 4), ("fp8_row", 1))
        if (place, name) != ("down", "mxfp4")
    ]  # fmt: skip
    mixes = (
        row("original", "original", 1.0, 1000.0, 0.0),
        row("mxfp4", "one format", 1.05, 3000.0, 0.05),
        row("mix 2", "mix", 1.03, 2500.0, 0.03),
        row("mix 1", "mix", 1.01, 2000.0, 0.01),
    )
    return MixReport(
        model="small", num_layers=2, chip="maia200:bench", fidelity="tile", batch=32, context=512,
        algorithm="gptq", calibrated_on="4 windows", text="a text", num_tokens=100,
        places=tuple(places), mixes=mixes, notes=("mxfp4 was left out in down: <why>",),
    )  # fmt: skip


def test_losses_are_drawn_against_speed_and_bytes(report):
    speed, memory = pareto_figures(report.mixes).values()
    mixes, formats, original = speed["data"]
    assert mixes["x"] == [2000.0, 2500.0]
    assert mixes["y"] == [pytest.approx(1.0), pytest.approx(3.0)]
    assert (formats["x"], formats["text"]) == ([3000.0], ["mxfp4"])
    assert (original["x"], original["y"]) == ([1000.0], [0.0])
    assert memory["data"][0]["x"] == [pytest.approx(400.0), pytest.approx(500.0)]
    assert "$0.200 a million tokens" in mixes["hovertext"][0]
    assert "predicted 0.0125" in mixes["hovertext"][0]


def test_places_are_drawn_on_one_scale_of_colours(report):
    figures = heat_figures(report)
    assert list(figures) == ["mxfp4", "fp8_row"]
    first, second = (figure["data"][0] for figure in figures.values())
    assert first["z"] == [[pytest.approx(math.log10(0.004)), None],
                          [pytest.approx(math.log10(0.008)), None]]  # fmt: skip
    assert first["text"][0] == ["0.0040", ""]
    assert (first["zmin"], first["zmax"]) == (second["zmin"], second["zmax"])
    assert first["zmin"] == pytest.approx(-3)
    assert (second["x"], second["y"]) == (list(PLACES), [0, 1])


def test_the_page_says_what_the_data_says(report):
    page = mix_page(report, "asterope sensitivity small")
    reader = Reader()
    reader.feed(page)
    assert json.loads(reader.data["report"]) == json.loads(json.dumps(plain(report)))
    places = [name for name in reader.ids if f"{name}-data" in reader.data]
    assert len(places) == 2 + 2
    words = "".join(reader.words)
    for said in ("gptq, calibrated on 4 windows", "<why>", "asterope sensitivity small",
                 "mix 1, 2,000 tokens/s", "mxfp4, KL 0.0500"):  # fmt: skip
        assert said in words
    assert ["mxfp4", "mxfp4/bf16", "+5.00 %"] in [cells[:3] for cells in reader.rows]
    assert not [a for a in reader.attributes if a[1] in {"src", "href"}]


def test_tables_hold_every_place_and_every_mix(report):
    text = io.StringIO()
    console = Console(width=200, file=text)
    for table in mix_tables(report):
        console.print(table)
    shown = text.getvalue()
    assert "fp8_row in one place" in shown
    assert "0.00400" in shown
    assert "saves" in shown
    assert "4 µs" in shown or "4.00 µs" in shown
    assert all(row.name in shown for row in report.mixes)
    assert "$0.133" in shown

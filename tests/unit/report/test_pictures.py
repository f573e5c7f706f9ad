"""Waterfalls, occupancy, power: what is drawn is what was found."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_page import Reader

from asterope import chips
from asterope.api import launch_report, product_launches, resolve_scheme
from asterope.api.rows import chip_facts
from asterope.errors import OutputError
from asterope.report import Activity, estimate_page, launch_page, write_page
from asterope.report.occupancy import occupancy_figure
from asterope.report.power_roofline import power_at, power_figures
from asterope.report.waterfall import waterfall_figures

MAIA = chips.maia200("headline")
FACTS = chip_facts(MAIA)


def bars(figure):
    return figure["data"][0]


TIME, ENERGY = "Time, by what bound it", "Energy, by what it went into"


@pytest.mark.parametrize(("name", "unit"), [(TIME, "s"), (ENERGY, "J")])
def test_a_waterfall_goes_from_nothing_to_the_total_without_a_gap(report, name, unit):
    step = report.estimate.finest("decode")
    total = step.time_s if name == TIME else step.energy_j
    figure = waterfall_figures(step)[name]
    *parts, last = zip(bars(figure)["base"], bars(figure)["x"], strict=True)
    ends = [0.0, *(base + size for base, size in parts)]
    assert [base for base, _ in parts] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(total)
    assert last == (0.0, pytest.approx(total))
    assert bars(figure)["text"][-1].endswith(unit)
    sizes = [size for _, size in parts]
    assert sizes == sorted(sizes, reverse=True)


def test_parts_too_small_to_see_are_one_bar(report):
    step = report.estimate.finest("decode")
    small = {f"part {i}": 1e-4 for i in range(5)}
    figure = waterfall_figures(dataclasses.replace(step, breakdown_s={"hbm": 1.0, **small}))
    assert bars(figure[TIME])["y"] == ["hbm ", "others ", "total "]
    assert sum(bars(figure[TIME])["x"][:-1]) == pytest.approx(1.0005)


def test_a_roofline_has_no_waterfall_of_energy(report):
    step = next(s for s in report.estimate.steps if s.fidelity == "roofline")
    assert list(waterfall_figures(step)) == [TIME]


def test_occupancy_has_a_row_a_resource_and_gaps_where_nothing_is_known():
    activity = Activity(time_s=4e-6, busy={"load": (0.25, None), "tensor": (1.0, 0.0)})
    (heat,) = occupancy_figure(activity)["data"]
    assert heat["y"] == ["load ", "tensor "]
    assert heat["z"] == [[0.25, None], [1.0, 0.0]]
    assert heat["x"] == pytest.approx([1.0, 3.0])
    assert heat["text"][0] == ["25.0 % busy at 1 µs", ""]


@given(st.sampled_from(sorted(FACTS.power_roofs)), st.floats(0.01, 1e6), st.floats(160, 2000))
def test_a_roof_never_exceeds_peak_bandwidth_or_tdp(element, intensity, tdp_w):
    chip = dataclasses.replace(FACTS, tdp_w=tdp_w)
    flop_per_s, watts = power_at(chip, element, intensity)
    assert 0 < flop_per_s <= chip.peak_flop_per_s[element]
    assert flop_per_s / intensity <= chip.hbm_effective_bytes_per_s * (1 + 1e-9)
    assert watts <= tdp_w
    roof = chip.power_roofs[element]
    drawn = roof.static_w + flop_per_s * (roof.flop_j + roof.hbm_byte_j / intensity)
    assert watts == pytest.approx(drawn)


def test_the_roof_of_power_peaks_where_both_engines_are_busy_at_the_published_peak():
    ridge = FACTS.peak_flop_per_s["fp8"] / FACTS.hbm_effective_bytes_per_s
    peak = next(p for p in chips.peak_power(MAIA) if p.format == "fp8")
    assert power_at(FACTS, "fp8", ridge)[1] == pytest.approx(peak.power_w, rel=2e-3)


def test_marks_of_power_lie_where_launches_do(report):
    step = report.estimate.finest("decode")
    power, efficiency = power_figures(report.estimate.chip, [step]).values()
    groups = [g for g in step.groups if g.flop]
    assert power["data"][-1]["y"] == [g.energy_j / g.time_s for g in groups]
    assert efficiency["data"][-1]["y"] == [g.total_flop / g.energy_j for g in groups]
    assert not power_figures(report.estimate.chips[1], [step])


def test_the_page_of_an_estimate_has_the_pictures_of_its_steps(report):
    reader = Reader()
    reader.feed(estimate_page(report.estimate, "asterope simulate 'a model'"))
    places = [name for name in reader.ids if f"{name}-data" in reader.data]
    assert len(places) == 2 * (1 + 2 + 1) + 1 + 2
    assert "tiny <b>llama</b> on maia200:bench" in "".join(reader.words)
    assert "asterope simulate 'a model'" in "".join(reader.words)


@pytest.fixture(scope="module")
def launched():
    scheme = resolve_scheme("mxfp8", activations="same", rule=None)
    timeline = product_launches(chips.maia200(), 512, 768, 1024, scheme, max_events=1 << 16)
    return launch_report(timeline, "a <product>", phase="product", command="asterope x")


def test_a_page_of_launches_shows_them(launched):
    reader = Reader()
    reader.feed(launch_page(launched))
    found = json.loads(reader.data["report"])
    assert sum(found["breakdown_s"].values()) == pytest.approx(found["time_s"])
    assert sum(found["energy_parts_j"].values()) == pytest.approx(found["energy_j"])
    assert sum(g["time_s"] for g in found["groups"]) == pytest.approx(found["time_s"])
    assert sum(g["energy_j"] for g in found["groups"]) == pytest.approx(found["energy_j"])
    assert "activity" not in found
    places = {name for name in reader.ids if f"{name}-data" in reader.data}
    assert places == {
        "product-chart", "product-waterfall-0", "product-waterfall-1", "product-occupancy",
        "roofline-chart", "power-chart-0", "power-chart-1",
    }  # fmt: skip
    assert "a <product>" in "".join(reader.words)


def test_a_page_that_cannot_be_written_names_the_file(launched, tmp_path):
    (tmp_path / "no").write_text("a file, not a directory")
    with pytest.raises(OutputError) as caught:
        write_page(launch_page(launched), tmp_path / "no" / "page.html")
    assert caught.value.where == str(tmp_path / "no" / "page.html")
